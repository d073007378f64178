"""Implementations of ``Backend``: a ``scene_memory`` node, and a memory in this process."""
