"""Marks: pairs that users protect from eviction."""

from __future__ import annotations

from collections.abc import Sequence

from delayed_vlm_ros.errors import MarkError, MarksFullError
from delayed_vlm_ros.memory.frame import FRAMES_PER_PAIR

MAX_LABEL_CHARACTERS = 64
"""Maximum length of a label."""


def check_label(label: str) -> None:
    """Check the label of a mark.

    Raises:
        MarkError: The label is too long or contains unprintable characters, such as line breaks.
    """
    if len(label) > MAX_LABEL_CHARACTERS:
        raise MarkError(f"label must have at most {MAX_LABEL_CHARACTERS} characters, got {len(label)}")
    if not label.isprintable():
        raise MarkError(f"label must contain printable characters only, got {label!r}")


def nearest_span(spans: Sequence[tuple[float, float]], time: float, *, within_sec: float) -> int | None:
    """Return the index of the time span nearest to a time; of two equally near ones the older.

    Args:
        spans: First and last time of each span in seconds, such as the stamps of a pair.
        time: Time in seconds; its distance to a span that contains it is 0.
        within_sec: Maximum distance, in seconds.

    Returns:
        The index, or None if every span is farther away.
    """
    distances = [max(first - time, time - last, 0.0) for first, last in spans]
    nearest = min(range(len(spans)), key=distances.__getitem__, default=None)
    return nearest if nearest is not None and distances[nearest] <= within_sec else None


class Marks:
    """A bounded set of marked pair ids with labels. It does not know which pairs are kept.

    Args:
        max_pairs: Maximum number of marked pairs; 0 allows none.
    """

    def __init__(self, max_pairs: int) -> None:
        self._max_pairs = max_pairs
        self._labels: dict[int, str] = {}

    def __contains__(self, pair_id: int) -> bool:
        return pair_id in self._labels

    def label_of(self, pair_id: int) -> str:
        """Return the label of a pair; empty if the pair is unmarked or its mark has no label."""
        return self._labels.get(pair_id, "")

    def add(self, pair_id: int, label: str) -> None:
        """Mark a pair; if it is already marked, replace its label.

        Raises:
            MarkError: The label is invalid.
            MarksFullError: The maximum number of pairs is already marked.
        """
        check_label(label)
        if pair_id not in self._labels and len(self._labels) >= self._max_pairs:
            raise MarksFullError(self._full_message())
        self._labels[pair_id] = label

    def remove(self, pair_id: int) -> None:
        """Remove the mark of a pair.

        Raises:
            MarkError: The pair is not marked.
        """
        if pair_id not in self._labels:
            raise MarkError(f"pair {pair_id} is not marked: marked pairs are {self._marked_ids() or 'none'}")
        del self._labels[pair_id]

    def _full_message(self) -> str:
        if not self._max_pairs:
            return "marks are disabled: raise max_marked_frames and star_memory_size"
        return (
            f"maximum of {self._max_pairs * FRAMES_PER_PAIR} marked frames reached (pairs {self._marked_ids()}): "
            "unmark one, or raise max_marked_frames"
        )

    def _marked_ids(self) -> str:
        return ", ".join(str(pair_id) for pair_id in sorted(self._labels))
