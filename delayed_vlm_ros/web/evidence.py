"""Strip of the frames that an answer is based on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from delayed_vlm_ros.web.backend import KeptFrame
from delayed_vlm_ros.web.components import FrameCard, block, text
from delayed_vlm_ros.web.formatting import clock, quantity

_MAX_CARDS = 5
"""Number of frames that fit side by side."""


class EvidenceStrip:
    """A few frames of an answer, spread over the time they cover, oldest first.

    Args:
        frames: All pairs that the answer is based on.
        on_open: Callback for a click on a frame, called with the frame and all pairs of the answer, oldest first.
    """

    def __init__(self, frames: Sequence[KeptFrame], on_open: Callable[[KeptFrame, Sequence[KeptFrame]], None]) -> None:
        ordered = sorted(frames, key=lambda frame: frame.stamp_ns)
        shown = spread_over_time(ordered, _MAX_CARDS)
        text("p", _summary(len(ordered), len(shown)), "quiet small")
        with block("div", "used").props('data-grid role=group aria-label="Frames of this answer"'):
            for frame in shown:
                FrameCard(frame, clock(frame.stamp_ns), lambda chosen: on_open(chosen, ordered))


def spread_over_time(frames: Sequence[KeptFrame], count: int) -> list[KeptFrame]:
    """Return up to ``count`` pairs: the first, the last, and those nearest to even steps of time between them.

    Args:
        frames: Pairs, oldest first.
        count: Maximum number of pairs, at least 2.
    """
    if len(frames) <= count:
        return list(frames)
    first, last = frames[0], frames[-1]
    between = list(frames[1:-1])
    chosen = [first]
    for step in range(1, count - 1):
        wanted_ns = first.stamp_ns + (last.stamp_ns - first.stamp_ns) * step // (count - 1)
        nearest = min(between, key=lambda frame: abs(frame.stamp_ns - wanted_ns))
        between.remove(nearest)
        chosen.append(nearest)
    return sorted([*chosen, last], key=lambda frame: frame.stamp_ns)


def _summary(total: int, shown: int) -> str:
    if shown == total:
        return f"Based on {quantity(total, 'pair')} of frames"
    return f"{shown} of the {total} pairs used, spread over time"
