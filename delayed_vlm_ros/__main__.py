"""The ``delayed-vlm`` command. It imports the command line inside a function, to report a missing package readably."""

from __future__ import annotations

import sys

from delayed_vlm_ros.dependencies import run_program


def main() -> int:
    """Run the command line and return the exit code of the process."""
    return run_program("delayed_vlm_ros.cli.main")


if __name__ == "__main__":
    sys.exit(main())
