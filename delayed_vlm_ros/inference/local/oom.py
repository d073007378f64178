"""Shortages of memory: which errors they are.

This module imports no torch: it also recognises an import of torch that fails.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator

from delayed_vlm_ros.errors import DeviceMemoryError

# Text of a RuntimeError: torch has no class for these.
_MEMORY_TEXTS = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
_ONEDNN_TEXT = "could not create a primitive"  # alone: with more words, oneDNN does not support an operation
# Text of any error while a library is imported or starts threads.
_SHORTAGE_TEXTS = (
    "Cannot allocate memory",
    "Resource temporarily unavailable",
    "Too many open files",
    "can't start new thread",
    "failed to map segment from shared object",
)
_SHORTAGE_NUMBERS = frozenset({errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM})


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of a computation is a shortage of memory, of the device or of the process.

    Args:
        error: Exception of torch, NumPy or Python.
    """
    if isinstance(error, MemoryError) or any(cls.__name__ == "OutOfMemoryError" for cls in type(error).__mro__):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (text == _ONEDNN_TEXT or any(part in text for part in _MEMORY_TEXTS))


def is_shortage(error: BaseException) -> bool:
    """Return whether an error, or one that caused it, is a shortage of memory, threads or file descriptors.

    Args:
        error: Exception of the import of a library, or of loading a model.
    """
    return any(
        is_out_of_memory(cause)
        or (isinstance(cause, OSError) and cause.errno in _SHORTAGE_NUMBERS)
        or any(part in str(cause) for part in _SHORTAGE_TEXTS)
        for cause in _causes(error)
    )


def shortage_error(what: str, error: BaseException) -> DeviceMemoryError:
    """Return the error for a shortage that is not one of the device's memory alone.

    Args:
        what: What cannot be done.
        error: Exception for which ``is_shortage`` is true.
    """
    return DeviceMemoryError(
        f"{what}: memory, threads or file descriptors are short ({type(error).__name__}: {error}): end other programs "
        "or raise the limits"
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the error and all that led to it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
