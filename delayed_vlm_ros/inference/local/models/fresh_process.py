"""Whether a new process can load a checkpoint that this process cannot.

A shortage of memory, threads or file descriptors may last for the life of a process: Python keeps modules whose import
ended half-way, and libraries keep a thread pool that could not be started. No error tells this from a damaged file. So
the checkpoint is loaded in a new process, which ends afterwards.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from enum import Enum

from delayed_vlm_ros.dependencies import is_installed
from delayed_vlm_ros.errors import ConfigurationError, DelayedVlmError, DeviceMemoryError, NonFiniteError
from delayed_vlm_ros.inference.local.models.checkpoint import Checkpoint, resolve_checkpoint
from delayed_vlm_ros.inference.local.models.loading import load_model
from delayed_vlm_ros.inference.local.oom import is_shortage

_FAILS = 3  # exit code; any other than 0 is a shortage, also an end by a signal
_SHORTAGE = os.EX_TEMPFAIL
_POLL_PERIOD_SEC = 0.1
_TIMEOUT_SEC = 600.0


class Trial(Enum):
    """What a new process makes of a checkpoint."""

    LOADS = "loads"
    FAILS = "fails"
    SHORTAGE = "shortage"


def may_need_a_fresh_process(error: BaseException) -> bool:
    """Return whether a library, not a check of this package, refused to load a model.

    Args:
        error: Exception of ``load_model``.
    """
    if isinstance(error, (ConfigurationError, DeviceMemoryError, NonFiniteError)):
        return False
    cause = error.__cause__ if isinstance(error, DelayedVlmError) else error
    is_missing = (
        isinstance(cause, ModuleNotFoundError) and cause.name and not is_installed(cause.name.partition(".")[0])
    )
    return cause is not None and not is_missing


def load_in_fresh_process(
    checkpoint: Checkpoint, *, device: str, dtype: str, attention: str, is_cancelled: Callable[[], bool]
) -> Trial:
    """Load a checkpoint in a new process. Takes seconds to minutes.

    Args:
        checkpoint: The checkpoint, on this machine.
        device: Device as for ``load_model``.
        dtype: Dtype as for ``load_model``.
        attention: Attention as for ``load_model``.
        is_cancelled: Called again and again; the process is killed when it returns true.
    """
    command = [sys.executable, "-m", __name__, str(checkpoint.path), device, dtype, attention]
    try:
        process = subprocess.Popen(  # noqa: S603  this module, with a folder and checked options
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
    except (OSError, MemoryError):
        return Trial.SHORTAGE
    deadline = time.monotonic() + _TIMEOUT_SEC
    while process.poll() is None:
        if is_cancelled() or time.monotonic() > deadline:
            process.kill()
        time.sleep(_POLL_PERIOD_SEC)
    return {0: Trial.LOADS, _FAILS: Trial.FAILS}.get(process.returncode, Trial.SHORTAGE)


def _exit_code(path: str, device: str, dtype: str, attention: str) -> int:
    try:
        load_model(resolve_checkpoint(path), device=device, dtype=dtype, attention=attention)
    except BaseException as error:  # noqa: BLE001  a library's panic included
        return _SHORTAGE if isinstance(error, DeviceMemoryError) or is_shortage(error) else _FAILS
    return 0


if __name__ == "__main__":
    code = _exit_code(*sys.argv[1:])
    os._exit(code)  # with torch loaded, the interpreter takes seconds to finalise
