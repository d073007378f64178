"""The ``scene_memory`` node: parameters, lifecycle, cameras, persistence."""
