"""Measure the peak memory of a block of code, if the machine can report it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

_PROCESS = Path("/proc/self")
_RESET_PEAK = "5"  # value that resets the peak, see proc_pid_clear_refs(5)


@dataclass
class Peak:
    """Peak memory of a block of code, set when the block ends.

    Attributes:
        bytes: Peak memory of the CUDA device, otherwise of the whole process, in bytes; None if it is unknown.
    """

    bytes: int | None = None


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Peak]:
    """Measure the peak memory of the enclosed block."""
    peak = Peak()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        yield peak
        peak.bytes = int(torch.cuda.max_memory_allocated(device))
        return
    is_reset = _reset_process_peak()
    yield peak
    if is_reset:
        peak.bytes = _process_peak()


def _reset_process_peak() -> bool:
    try:
        (_PROCESS / "clear_refs").write_text(_RESET_PEAK)
    except OSError:  # not Linux, or not permitted
        return False
    return True


def _process_peak() -> int | None:
    found = re.search(r"^VmHWM:\s+(\d+) kB", (_PROCESS / "status").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else None
