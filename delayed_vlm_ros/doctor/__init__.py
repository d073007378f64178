"""Checks of a robot for ``delayed-vlm doctor``, one module per subject. Each returns findings with a remedy."""
