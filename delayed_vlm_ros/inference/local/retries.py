"""A question after a shortage of device memory: once more without caches, then with half of the frames."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import TypeVar

import torch

from delayed_vlm_ros.errors import DeviceMemoryError
from delayed_vlm_ros.inference.local.oom import is_out_of_memory
from delayed_vlm_ros.memory import Snapshot

CACHES_DROPPED = "device memory was short: the caches of earlier questions were dropped"

_Result = TypeVar("_Result")


def run_with_less_when_short(
    requested: Snapshot, run: Callable[[Snapshot, tuple[str, ...]], _Result], release: Callable[[], None]
) -> _Result:
    """Return the result of work on frames. A shortage of device memory repeats it with less.

    Args:
        requested: At least one pair, in time order.
        run: The work, called with the pairs to use and the warnings for its result.
        release: Called after each shortage; drops what the work may not need.

    Raises:
        DeviceMemoryError: The memory is too short for half of the pairs, too.
    """
    snapshot = requested
    warnings: tuple[str, ...] = ()
    while True:
        try:
            return run(snapshot, warnings)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            release()
            # The frames' tensors would live as long as the caller, or the next attempt, holds the error.
            traceback.clear_frames(error.__traceback__)
            if snapshot is not requested or (warnings and len(snapshot) < 2):  # noqa: PLR2004  one pair has no half
                raise device_memory_error(len(requested), error) from error
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if warnings:
            snapshot = select_half(snapshot)
            warnings = (CACHES_DROPPED, pairs_dropped(len(snapshot), len(requested)))
        else:
            warnings = (CACHES_DROPPED,)


def device_memory_error(pairs: int, error: Exception) -> DeviceMemoryError:
    """Return the error for work on so many pairs that ran out of memory.

    Args:
        pairs: Number of pairs requested.
        error: Exception for which ``is_out_of_memory`` is true.
    """
    cause = str(error) or type(error).__name__
    return DeviceMemoryError(
        f"the device ran out of memory for {pairs} pairs ({cause}), also with fewer of them: lower max_pixels or the "
        "memory sizes, limit the question in time, or use a smaller model. The memory keeps its frames"
    )


def select_half(snapshot: Snapshot) -> Snapshot:
    """Return half of the pairs: one half of these are the newest pairs, the others have the highest importance.

    Args:
        snapshot: At least two pairs, in time order.

    Returns:
        Half of the pairs, rounded down, in time order.
    """
    count = len(snapshot) // 2
    newest = (count + 1) // 2
    older = sorted(snapshot[: len(snapshot) - newest], key=lambda kept: kept.importance, reverse=True)
    chosen = {kept.id for kept in (*older[: count - newest], *snapshot[len(snapshot) - newest :])}
    return tuple(kept for kept in snapshot if kept.id in chosen)


def pairs_dropped(used: int, requested: int) -> str:
    """Return the warning for an answer from fewer pairs than requested."""
    return f"device memory was short: answered from {used} of {requested} kept pairs, the newest and most important"
