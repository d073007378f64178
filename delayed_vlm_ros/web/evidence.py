"""Strip of the frames that an answer rests on, or, if these are not known, of those that it is based on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from delayed_vlm_ros.web.backend import AnsweredQuestion, EvidenceFrame, KeptFrame
from delayed_vlm_ros.web.components import FrameCard, block, text
from delayed_vlm_ros.web.formatting import clock, quantity

_MAX_CARDS = 5
"""Number of frames that fit side by side."""


class EvidenceStrip:
    """A few frames of an answer: those that it rests on, best first with their relevance.

    If these are not known, the frames are spread over the time of the answer, oldest first.

    Args:
        frames: All pairs that the answer is based on.
        on_open: Callback for a click on a frame, called with the frame and all pairs of the answer, oldest first.
        evidence: Pairs that the answer rests on most, best first; empty if they are not known.
    """

    def __init__(
        self,
        frames: Sequence[KeptFrame],
        on_open: Callable[[KeptFrame, Sequence[KeptFrame]], None],
        evidence: Sequence[EvidenceFrame] = (),
    ) -> None:
        ordered = sorted(frames, key=lambda frame: frame.stamp_ns)
        best: list[tuple[KeptFrame, float | None]] = [(one.frame, one.relevance) for one in evidence[:_MAX_CARDS]]
        shown = best or [(frame, None) for frame in spread_over_time(ordered, _MAX_CARDS)]
        text("p", _ranked_summary(len(ordered)) if best else _summary(len(ordered), len(shown)), "quiet small")
        with block("div", "used").props('data-grid role=group aria-label="Frames of this answer"'):
            for frame, relevance in shown:
                FrameCard(frame, clock(frame.stamp_ns), lambda chosen: on_open(chosen, ordered), relevance)


def kept_frames_of(answer: AnsweredQuestion, kept: Iterable[KeptFrame]) -> list[KeptFrame]:
    """Return the frames of an answer that are still kept, in the order of the answer.

    A restarted node may use the ids for other frames. These have other stamps than the answer's evidence, or are newer
    than the answer.

    Args:
        answer: The answer.
        kept: Kept frames of all cameras.
    """
    kept_by_id = {frame.id: frame for frame in kept if frame.stamp_ns <= answer.stamp_ns}
    evidence_keys = {one.frame.id: one.frame.key for one in answer.evidence}
    found = [kept_by_id[frame_id] for frame_id in answer.frame_ids if frame_id in kept_by_id]
    return [frame for frame in found if evidence_keys.get(frame.id, frame.key) == frame.key]


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


def _ranked_summary(total: int) -> str:
    return f"Rests most on these of the {quantity(total, 'pair')} used, with their relevance"


def _summary(total: int, shown: int) -> str:
    if shown == total:
        return f"Based on {quantity(total, 'pair')} of frames"
    return f"{shown} of the {total} pairs used, spread over time"
