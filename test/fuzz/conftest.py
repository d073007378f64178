"""Prints the number of cases at the end of the run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))

from fuzzing import CASES


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if CASES:
        terminalreporter.write_line(f"fuzz: {sum(CASES.values()):,} cases")
        for name, count in sorted(CASES.items()):
            terminalreporter.write_line(f"    {count:>8,} {name}")
