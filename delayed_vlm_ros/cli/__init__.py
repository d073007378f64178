"""The ``delayed-vlm`` command, one module per subcommand."""
