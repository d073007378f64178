"""The ``delayed-vlm`` command: one module a command."""
