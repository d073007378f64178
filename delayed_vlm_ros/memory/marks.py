"""Marks: moments that people want kept, whatever comes after them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from delayed_vlm_ros.errors import MarkError, MarksFullError
from delayed_vlm_ros.memory.frame import FRAMES_PER_PAIR

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_LABEL_CHARACTERS = 64
"""Longest label of a mark."""


def check_label(label: str) -> None:
    """Check a mark's label.

    Raises:
        MarkError: It is too long, or has characters that cannot be shown, such as line breaks.
    """
    if len(label) > MAX_LABEL_CHARACTERS:
        raise MarkError(f"the label has {len(label)} characters: give at most {MAX_LABEL_CHARACTERS}")
    if not label.isprintable():
        raise MarkError(f"the label {label!r} has characters that cannot be shown: give letters, digits and signs only")


def nearest_span(spans: Sequence[tuple[float, float]], moment: float, *, within_sec: float) -> int | None:
    """The number of the span of time nearest to a moment.

    Args:
        spans: The first and the last second of each, such as the stamps of a pair's frames.
        moment: In seconds. Within a span it is at no distance.
        within_sec: How far it may be, in seconds.

    Returns:
        Of the nearest, of two equally near ones the older; None when all are farther.
    """
    apart = [max(first - moment, moment - last, 0.0) for first, last in spans]
    nearest = min(range(len(spans)), key=apart.__getitem__, default=None)
    return nearest if nearest is not None and apart[nearest] <= within_sec else None


class Marks:
    """Which pairs are marked, with their labels; never more than a number.

    It does not know whether they are kept.

    Args:
        max_pairs: Most pairs marked at once; 0: none may be.
    """

    def __init__(self, max_pairs: int) -> None:
        self._max_pairs = max_pairs
        self._labels: dict[int, str] = {}

    def __contains__(self, pair_id: int) -> bool:
        return pair_id in self._labels

    def label_of(self, pair_id: int) -> str:
        """The label that a pair was marked with; empty when there is none."""
        return self._labels.get(pair_id, "")

    def put(self, pair_id: int, label: str) -> None:
        """Mark a pair; a marked one gets the new label.

        Raises:
            MarkError: The label cannot be used.
            MarksFullError: As many are marked as may be.
        """
        check_label(label)
        if pair_id not in self._labels and len(self._labels) >= self._max_pairs:
            raise MarksFullError(self._why_full())
        self._labels[pair_id] = label

    def take(self, pair_id: int) -> None:
        """Take a pair's mark off.

        Raises:
            MarkError: It is not marked.
        """
        if pair_id not in self._labels:
            raise MarkError(f"pair {pair_id} is not marked: {self._names() or 'no pair is'}")
        del self._labels[pair_id]

    def _why_full(self) -> str:
        if not self._max_pairs:
            return "no pair may be marked, since max_marked_frames is 0: raise it, in a Star memory with room"
        frames = self._max_pairs * FRAMES_PER_PAIR
        return (
            f"{self._names()} marked already, and no more than {frames} frames may be: unmark one, or raise "
            "max_marked_frames"
        )

    def _names(self) -> str:
        ids = ", ".join(str(pair_id) for pair_id in sorted(self._labels))
        return "" if not ids else f"pair {ids} is" if len(self._labels) == 1 else f"pairs {ids} are"
