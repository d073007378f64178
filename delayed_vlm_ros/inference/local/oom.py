"""What to do when the device's memory does not suffice for an ask: try with less, and say so."""

from __future__ import annotations

from delayed_vlm_ros.memory import Snapshot

CACHES_DROPPED = "device memory was short: what was kept of earlier asks has been dropped"


def half_of(snapshot: Snapshot) -> Snapshot:
    """Half of the pairs: of these, the newer half are the newest ones, the others those of highest importance.

    Args:
        snapshot: At least two pairs, in time order.

    Returns:
        As many as half of them, rounded down, in time order.
    """
    wanted = len(snapshot) // 2
    newest = (wanted + 1) // 2
    older = sorted(snapshot[: len(snapshot) - newest], key=lambda kept: kept.importance, reverse=True)
    chosen = {kept.id for kept in (*older[: wanted - newest], *snapshot[len(snapshot) - newest :])}
    return tuple(kept for kept in snapshot if kept.id in chosen)


def frames_dropped(left: int, asked: int) -> str:
    """The notice for an answer from fewer pairs than the memory holds."""
    return f"device memory was short: answered from {left} of {asked} kept pairs, the newest and most important"
