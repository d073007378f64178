"""Whether a new process can load a checkpoint that this process cannot.

A shortage of memory, threads or file descriptors may last for the life of a process: Python keeps modules whose import
ended half-way, and libraries keep a thread pool that could not be started. The error does not distinguish this from a
damaged file. So the checkpoint is loaded in a new process, which ends afterwards.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from enum import Enum

from delayed_vlm_ros.child_process import python_command
from delayed_vlm_ros.dependencies import is_installed
from delayed_vlm_ros.errors import ConfigurationError, DelayedVlmError, DeviceMemoryError, NonFiniteError
from delayed_vlm_ros.inference.local.models.checkpoint import Checkpoint, resolve_checkpoint
from delayed_vlm_ros.inference.local.models.loading import load_model
from delayed_vlm_ros.inference.local.oom import is_shortage

_FAILS = 3  # exit code
_SHORTAGE = os.EX_TEMPFAIL
_POLL_PERIOD_SEC = 0.1
_TIMEOUT_SEC = 600.0


class LoadResult(Enum):
    """Result of loading a checkpoint in a new process.

    Attributes:
        LOADS: The process has loaded it.
        FAILS: It could not, or ended by a signal or the time limit.
        SHORTAGE: Memory, threads or file descriptors were short there, too.
        NOT_STARTED: Python ended before it could load anything.
    """

    LOADS = "loads"
    FAILS = "fails"
    SHORTAGE = "shortage"
    NOT_STARTED = "not started"


def may_need_a_new_process(error: BaseException) -> bool:
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


def free_failed_model(error: BaseException) -> None:
    """Free the memory of a model that could not be loaded: the tracebacks of the error hold it.

    Args:
        error: Exception of ``load_model``, already logged.
    """
    errors, freed = [error], set[int]()
    while errors:
        cause = errors.pop()
        if id(cause) not in freed:
            freed.add(id(cause))
            traceback.clear_frames(cause.__traceback__)
            errors += [other for other in (cause.__cause__, cause.__context__) if other is not None]
    gc.collect()
    cuda = getattr(sys.modules.get("torch"), "cuda", None)  # None after half an import, too
    if cuda is not None and cuda.is_initialized():
        cuda.empty_cache()


def load_in_new_process(
    checkpoint: Checkpoint, *, device: str, dtype: str, attention: str, is_cancelled: Callable[[], bool]
) -> LoadResult:
    """Load a checkpoint in a new process. Takes seconds to minutes.

    Args:
        checkpoint: The checkpoint, on this machine.
        device: Device as for ``load_model``.
        dtype: Dtype as for ``load_model``.
        attention: Attention as for ``load_model``.
        is_cancelled: Called again and again; the process is killed when it returns true.
    """
    command = python_command(f"{__name__}:serve", str(checkpoint.path), device, dtype, attention)
    try:
        process = subprocess.Popen(  # noqa: S603  this module, with a folder and checked options
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
    except (OSError, MemoryError):
        return LoadResult.SHORTAGE
    deadline = time.monotonic() + _TIMEOUT_SEC
    while process.poll() is None:
        if is_cancelled() or time.monotonic() > deadline:
            process.kill()
        time.sleep(_POLL_PERIOD_SEC)
    return _result(process.returncode)


def _result(code: int) -> LoadResult:
    if code < 0:  # a signal
        return LoadResult.FAILS
    known = {0: LoadResult.LOADS, _FAILS: LoadResult.FAILS, _SHORTAGE: LoadResult.SHORTAGE}
    return known.get(code, LoadResult.NOT_STARTED)


def serve(path: str, device: str, dtype: str, attention: str) -> None:
    """Load a checkpoint and end the process; run in the new process.

    Args:
        path: Folder of the checkpoint.
        device: Device as for ``load_model``.
        dtype: Dtype as for ``load_model``.
        attention: Attention as for ``load_model``.
    """
    os._exit(_exit_code(path, device, dtype, attention))  # with torch loaded, the interpreter takes seconds to finalise


def _exit_code(path: str, device: str, dtype: str, attention: str) -> int:
    try:
        load_model(resolve_checkpoint(path), device=device, dtype=dtype, attention=attention)
    except BaseException as error:  # noqa: BLE001  a library's panic included
        return _SHORTAGE if isinstance(error, DeviceMemoryError) or is_shortage(error) else _FAILS
    return 0
