"""Processor time and memory of processes, read from ``/proc``."""

from __future__ import annotations

import os
from pathlib import Path

_TICKS_PER_SEC = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def stat_fields(pid: int | str) -> list[str]:
    """Return the fields of ``/proc/<pid>/stat`` that follow the process name; the first is the state."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()


def processor_sec(pid: int | str) -> float:
    """Return the processor time that a process has used, user and system, in seconds."""
    fields = stat_fields(pid)
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SEC


def resident_bytes() -> int:
    """Return the resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE_BYTES
