"""The ``delayed-vlm`` command: imports the command line only here, where a missing package can be reported."""

from __future__ import annotations

import sys

from delayed_vlm_ros.dependencies import run_program


def main() -> int:
    """Run the command line; gives the process's exit code."""
    return run_program("delayed_vlm_ros.cli.main")


if __name__ == "__main__":
    sys.exit(main())
