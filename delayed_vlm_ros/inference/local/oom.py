"""Retries of a question when the device runs out of memory: fewer pairs, and a warning in the answer."""

from __future__ import annotations

from delayed_vlm_ros.memory import Snapshot

CACHES_DROPPED = "device memory was short: the caches of earlier questions were dropped"


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
