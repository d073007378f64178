"""The memory of one camera: Stream and Star memory, kept consistent."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from delayed_vlm_ros.errors import ConfigurationError, ImageError, MarksFullError, PairNotKeptError, StampOrderError
from delayed_vlm_ros.memory.activity import Activity, ActivityMonitor
from delayed_vlm_ros.memory.frame import (
    FRAMES_PER_PAIR,
    Frame,
    FramePair,
    KeptPair,
    PairIds,
    RgbArray,
    Snapshot,
    freeze,
)
from delayed_vlm_ros.memory.grid import as_rgb_array
from delayed_vlm_ros.memory.limits import (
    IMPORTANCE_THRESHOLD,
    MAX_STAMP_SEC,
    STAR_MEMORY_SIZE,
    STREAM_WINDOW_SIZE,
    check_eviction_chunk,
    max_marked_pairs,
)
from delayed_vlm_ros.memory.marks import Marks
from delayed_vlm_ros.memory.scoring.background import HALVING_LIMIT, downsample
from delayed_vlm_ros.memory.scoring.descriptor import describe
from delayed_vlm_ros.memory.scoring.event_detection import DeferredScore, EventDetector, FrameFeatures, PendingPair
from delayed_vlm_ros.memory.scoring.importance import ImportanceScorer
from delayed_vlm_ros.memory.scoring.resize import halved
from delayed_vlm_ros.memory.star import MIN_EVENT_VALUE, StarMemory
from delayed_vlm_ros.memory.statistics import MemoryStatistics, count_kept
from delayed_vlm_ros.memory.stream import StreamMemory


@dataclass(frozen=True, slots=True)
class AddedFrame:
    """The result of adding a frame; ``str`` returns a readable line.

    Attributes:
        number: Number of frames added so far, this one included; starts at 1.
        pair_id: Id of the frame's pair.
        in_star: Whether the pair is now in Star memory.
        importance: Score of the frame, 0..1.
        reason: Why the frame is notable; empty if it is not (it may be in Star memory because of its partner).
        star_frames: Number of frames in Star memory.
        stream_frames: Number of frames in Stream memory.
    """

    number: int
    pair_id: int
    in_star: bool
    importance: float
    reason: str
    star_frames: int
    stream_frames: int

    def __str__(self) -> str:
        star = " + Star Memory" + (f" ({self.reason})" if self.reason else "") if self.in_star else ""
        counts = f"Star: {self.star_frames}, Stream: {self.stream_frames}"
        return f"Frame #{self.number} added to Stream Memory{star} | {counts}"


class SmartFrameManager:
    """Keeps the newest frames (Stream memory) and key frames of the whole past (Star memory).

    Frames are paired in order of arrival (first with second, third with fourth), regardless of pauses. An odd last
    frame is a provisional pair until its partner arrives. Every pair passes through Stream memory. It also enters Star
    memory if a frame scores at least ``importance_threshold`` on arrival, if its deferred score shows an event or a new
    place, or if it is marked.

    Evicting a pair invalidates the cached computation of every later pair. ``eviction_chunk`` makes evictions rarer:
    when either memory has to evict a pair, each full memory evicts a whole chunk, so that both have space for the next
    pairs. The space that the new pair takes counts towards the chunk. A new pair that Star memory rejects as the least
    valuable evicts nothing.

    A marked pair stays in Star memory until it is unmarked; a chunk is smaller if marks leave fewer pairs to evict.
    Marks change which pairs are kept, never the content of a pair.

    Thread-safe: each call holds a lock for a few milliseconds.

    Args:
        star_memory_size: Maximum number of frames in Star memory; 0 disables it, otherwise at least 2.
        stream_window_size: Maximum number of frames in Stream memory, at least 2.
        importance_threshold: Score from which a frame enters Star memory on arrival, 0..1. Events and places found
            later, and marks, enter regardless.
        eviction_chunk: Number of frames that leave a full memory together; 0 or 2 evicts single pairs. After an
            eviction the memory holds its size minus the chunk plus a pair. Odd numbers are rounded down. Each memory
            that is not disabled must be larger by at least one pair.
        max_marked_frames: Maximum number of marked frames, at least one pair below ``star_memory_size``; odd numbers
            are rounded down. None is a quarter of ``star_memory_size``, rounded up to a whole pair.
        pair_ids: Source of pair ids, which may be shared by several memories; None is 1, 2, 3, …

    Raises:
        ConfigurationError: An argument is out of its range.
    """

    def __init__(
        self,
        star_memory_size: int = STAR_MEMORY_SIZE,
        stream_window_size: int = STREAM_WINDOW_SIZE,
        importance_threshold: float = IMPORTANCE_THRESHOLD,
        *,
        eviction_chunk: int = 0,
        max_marked_frames: int | None = None,
        pair_ids: PairIds | None = None,
    ) -> None:
        if not 0.0 <= importance_threshold <= 1.0:
            raise ConfigurationError(f"importance_threshold must be between 0 and 1, got {importance_threshold}")
        self._star_memory_size = star_memory_size
        self._stream_window_size = stream_window_size
        self._importance_threshold = importance_threshold
        self._lock = threading.Lock()
        self._pair_ids = PairIds() if pair_ids is None else pair_ids
        self._on_evicted: Callable[[KeptPair], None] | None = None
        self._max_marked_pairs = max_marked_pairs(max_marked_frames, star_memory_size)
        self._changes = 0
        self._extra_evictions = max(eviction_chunk // FRAMES_PER_PAIR - 1, 0)  # pairs
        self._clear()
        check_eviction_chunk(eviction_chunk, star_memory_size=star_memory_size, stream_window_size=stream_window_size)

    def _clear(self) -> None:
        self._star = StarMemory(self._star_memory_size)
        self._stream = StreamMemory(self._stream_window_size)
        self._marks = Marks(self._max_marked_pairs)
        self._scorer = ImportanceScorer()
        self._activity = ActivityMonitor()
        stream_pairs = self._stream_window_size // FRAMES_PER_PAIR - self._extra_evictions
        self._event_detector = EventDetector(stream_pairs)
        # Pairs that may still enter Star memory, although a small Stream memory has evicted them.
        self._awaiting_score: deque[FramePair] = deque(maxlen=self._event_detector.max_waiting_pairs)
        self._frames_added = 0
        self._newest_features: FrameFeatures | None = None
        self._seen_in_star: set[int] = set()  # ids of pairs, kept or awaiting a score, that are or were in Star memory
        self._may_return: dict[int, KeptPair] = {}  # those of them that are not kept, as they were kept last

    @property
    def capacity(self) -> int:
        """Maximum number of frames in both memories together."""
        return self._star_memory_size + self._stream_window_size

    @property
    def star_capacity(self) -> int:
        """Maximum number of frames in Star memory."""
        return self._star_memory_size

    @property
    def stream_capacity(self) -> int:
        """Maximum number of frames in Stream memory."""
        return self._stream_window_size

    @property
    def changes(self) -> int:
        """Number of changes to kept frames and marks since the start."""
        return self._changes

    def set_eviction_listener(self, listener: Callable[[KeptPair], None] | None) -> None:
        """Set the function to call with each pair that was in Star memory and is no longer kept; set it at the start.

        A pair is reported once it has left both memories and can no longer return with a deferred score, at most ten
        pairs later. A reset reports nothing, nor does the end of the process. Called in the thread that changes the
        memory, after the change. Must neither block nor raise.

        Args:
            listener: Called with the pair as it was kept last; None: nothing is called.
        """
        with self._lock:
            self._on_evicted = listener

    def add(self, image: RgbArray, stamp: float, source: Any = None) -> AddedFrame:
        """Add a frame. An error leaves the memory unchanged.

        Args:
            image: RGB image, shape (H, W, 3), uint8; all frames until ``reset`` must have the same shape. It is copied
                unless it is read-only and owns its pixels.
            stamp: Acquisition time, in seconds; must be newer than the stamp of the newest frame.
            source: Object kept with the frame; the memory does not use it.

        Raises:
            ImageError: The image is not such an array or has another shape, or the stamp is not a number within
                ``±MAX_STAMP_SEC``.
            StampOrderError: The stamp is not newer than that of the newest frame.
        """
        image = as_rgb_array(image)
        if not abs(stamp) <= MAX_STAMP_SEC:
            raise ImageError(
                f"image stamp must be a time within ±{MAX_STAMP_SEC:g} s, got {stamp}: check the camera's clock"
            )
        image = freeze(image)
        small = halved(image, HALVING_LIMIT)
        features = FrameFeatures(describe(small), downsample(small))
        with self._lock:
            self._check_fits(image, stamp)
            importance = self._scorer.assess(features.descriptor, self._star.novelty(features.descriptor))
            is_notable = importance.score >= self._importance_threshold
            frame = Frame(
                image=image,
                stamp=float(stamp),
                number=self._frames_added + 1,
                importance=importance.score,
                reason=importance.reason if is_notable else "",
                source=source,
            )
            before = self._watched()
            star_before = {kept.id for kept in self._star.pairs}
            # Nothing above changes the memory, and nothing below can fail.
            pair = self._keep(frame, features, is_notable=is_notable)
            if pair.is_complete and self._newest_features is not None and self._star_memory_size:
                self._awaiting_score.append(pair)
                self._add_deferred_score(PendingPair(pair.id, (self._newest_features, features)))
            self._scorer.remember(features.descriptor, importance)
            has_entered_star = any(kept.id not in star_before for kept in self._star.pairs)
            self._activity.add(features.descriptor, frame.stamp, has_entered_star=has_entered_star)
            self._newest_features = features
            self._frames_added = frame.number
            self._changes += 1
            evicted = self._evicted(before)
            added = AddedFrame(
                number=frame.number,
                pair_id=pair.id,
                in_star=self._star.contains(pair.id),
                importance=frame.importance,
                reason=frame.reason,
                star_frames=self._star.frame_count,
                stream_frames=self._stream.frame_count,
            )
        self._report_evicted(evicted)
        return added

    def _watched(self) -> Snapshot:
        """Return the pairs kept before a change; none if nobody listens."""
        return self._snapshot() if self._on_evicted is not None else ()

    def _evicted(self, before: Snapshot) -> Snapshot:
        """Return the pairs that were in Star memory at some time, have left both memories and cannot return.

        Args:
            before: Pairs kept before the change.
        """
        in_star = {pair.id for pair in self._star.pairs}
        kept_ids = in_star | {pair.id for pair in self._stream.pairs}
        awaiting_ids = {pair.id for pair in self._awaiting_score}
        seen = self._seen_in_star
        self._seen_in_star = (seen | in_star) & (kept_ids | awaiting_ids)
        known = self._may_return | {kept.id: kept for kept in before if kept.id in seen}
        gone = {pair_id: known[pair_id] for pair_id in sorted(known.keys() - kept_ids)}
        self._may_return = {pair_id: kept for pair_id, kept in gone.items() if pair_id in awaiting_ids}
        return tuple(kept for pair_id, kept in gone.items() if pair_id not in awaiting_ids)

    def _report_evicted(self, evicted: Snapshot) -> None:
        if self._on_evicted is not None:
            for kept in evicted:
                self._on_evicted(kept)

    def _check_fits(self, image: RgbArray, stamp: float) -> None:
        newest = self._newest_frame()
        if newest is None:
            return
        if image.shape != newest.image.shape:
            raise ImageError(
                f"image must have shape {newest.image.shape} like the kept frames, got {image.shape}: letterbox it, or "
                "reset the memory"
            )
        if stamp <= newest.stamp:
            raise StampOrderError(
                f"image stamp {stamp:.6f} s must be newer than the newest frame, {newest.stamp:.6f} s, but is "
                f"{newest.stamp - stamp:.6f} s older: drop the image if images arrive out of order; reset the memory "
                "if the clock was set back or a recording was restarted"
            )

    def _newest_frame(self) -> Frame | None:
        # Every frame passes through Stream memory; only restored pairs are in Star memory alone.
        pairs = self._stream.pairs or self._star.pairs
        return pairs[-1].last if pairs else None

    def _keep(self, frame: Frame, features: FrameFeatures, *, is_notable: bool) -> FramePair:
        """Add a frame to the memories, as a new pair or as the second frame of the newest one."""
        pairs = self._stream.pairs
        if not pairs or pairs[-1].is_complete or self._newest_features is None:
            pair = FramePair(next(self._pair_ids), frame, None)
            descriptors = [features.descriptor]
            has_evicted = self._stream.add(pair)
        else:
            pair = pairs[-1].completed_with(frame)
            descriptors = [self._newest_features.descriptor, features.descriptor]
            has_evicted = self._stream.replace_newest(pair)
        if self._star.contains(pair.id):
            self._star.update(pair, descriptors)
        elif is_notable:
            has_evicted |= self._star.add(pair, descriptors)
        if has_evicted:
            self._complete_eviction(pair)
        return pair

    def _add_deferred_score(self, pending: PendingPair) -> None:
        """Compute the deferred score that is due, and add its pairs to Star memory if it is high enough."""
        score = self._event_detector.add(pending)
        if score is None:
            return
        pair_ids = {score.pair.pair_id, *(track.pair_id for track in score.tracks)}
        candidates = {pair.id: pair for pair in (*self._awaiting_score, *self._stream.pairs)}
        for pair_id in sorted(pair_ids & candidates.keys()):
            self._apply_deferred_score(candidates[pair_id], score)
        self._star.drop_scores(before=min(candidates))

    def _apply_deferred_score(self, pair: FramePair, score: DeferredScore) -> None:
        is_due = pair.id == score.pair.pair_id
        tracks = [track for track in score.tracks if track.pair_id == pair.id]
        self._star.set_score(pair.id, tracks, is_view=is_due and score.is_view)
        if self._star.contains(pair.id):
            return
        if is_due:
            descriptors = [features.descriptor for features in score.pair.features]
        else:
            descriptors = [describe(frame.image) for frame in pair.present_frames]
        has_evicted = False
        if self._star.event_value(pair.id) >= MIN_EVENT_VALUE:
            has_evicted = self._star.add(pair, descriptors)
        elif is_due and score.is_view and self._star.is_new_place(descriptors[-1]):
            has_evicted = self._star.add_place(pair, descriptors)
        if has_evicted:
            self._complete_eviction(pair)

    def _complete_eviction(self, new_pair: FramePair) -> None:
        """Evict the rest of a chunk from each memory whose next pair would evict again."""
        if self._stream.is_full:
            self._stream.drop_oldest(self._extra_evictions)
        if self._star.is_full:
            self._star.evict_least_valuable(self._extra_evictions, keep=new_pair)

    def restore(self, pairs: Sequence[KeptPair]) -> None:
        """Load the key frames of an earlier run, with their ids and marks.

        They enter Star memory only. If they exceed its size, the least valuable ones are dropped; marks beyond the
        limit are lost. Later frames must be newer. Frame numbers and pair ids continue after the restored ones.

        Args:
            pairs: Pairs in time order, with increasing ids and of one shape.

        Raises:
            ValueError: The memory is not empty.
        """
        with self._lock:
            if self._newest_frame() is not None:
                raise ValueError("the memory is not empty: reset it first")
            for kept in pairs:
                if kept.marked:
                    with contextlib.suppress(MarksFullError):
                        self._marks.add(kept.id, kept.label)
                        self._star.protect(kept.id)
            for kept in pairs:
                self._star.restore(kept, [describe(frame.image) for frame in kept.pair.present_frames])
                self._frames_added = kept.pair.last.number
                self._pair_ids.continue_after(kept.id)
            self._changes += 1
            self._seen_in_star = {kept.id for kept in pairs}
            evicted = self._evicted(tuple(pairs))
        self._report_evicted(evicted)

    def mark(self, pair_id: int, label: str = "") -> KeptPair:
        """Keep a pair in Star memory until it is unmarked. Marking it again changes the label.

        If the pair is not in Star memory and Star memory is full, the least valuable unmarked pair is evicted. An error
        leaves the memory unchanged.

        Args:
            pair_id: Id of a kept pair.
            label: Label of at most ``MAX_LABEL_CHARACTERS`` printable characters; may be empty.

        Returns:
            The marked pair.

        Raises:
            MarkError: The label is invalid.
            PairNotKeptError: The pair is not in the memory.
            MarksFullError: The maximum number of pairs is already marked.
        """
        with self._lock:
            pair = self._kept(pair_id).pair
            before = self._watched()
            self._marks.add(pair_id, label)
            # Protect it first, so that adding it cannot evict it as the least valuable.
            self._star.protect(pair_id)
            if not self._star.contains(pair_id):
                self._star.add(pair, [describe(frame.image) for frame in pair.present_frames])
            self._changes += 1
            evicted = self._evicted(before)
            marked = self._kept(pair_id)
        self._report_evicted(evicted)
        return marked

    def unmark(self, pair_id: int) -> KeptPair:
        """Remove the mark of a pair. The pair stays in the memory until it is evicted like any other.

        Args:
            pair_id: Id of a marked pair.

        Returns:
            The pair without its mark.

        Raises:
            PairNotKeptError: The pair is not in the memory.
            MarkError: The pair is not marked.
        """
        with self._lock:
            self._kept(pair_id)
            self._marks.remove(pair_id)
            self._star.release(pair_id)
            self._changes += 1
            return self._kept(pair_id)

    def _kept(self, pair_id: int) -> KeptPair:
        for kept in self._snapshot():
            if kept.id == pair_id:
                return kept
        raise PairNotKeptError(f"pair {pair_id} is not kept (evicted or never added): use the id of a kept key frame")

    def snapshot(self) -> Snapshot:
        """Return all kept pairs of Star and Stream memory in time order, each pair once."""
        with self._lock:
            return self._snapshot()

    def _snapshot(self) -> Snapshot:
        star = {pair.id: pair for pair in self._star.pairs}
        stream = {pair.id: pair for pair in self._stream.pairs}
        # Ids increase with time; a pair in both memories is the same object.
        return tuple(
            KeptPair(
                pair,
                in_star=pair_id in star,
                in_stream=pair_id in stream,
                marked=pair_id in self._marks,
                label=self._marks.label_of(pair_id),
                deferred_score=self._star.event_value(pair_id),
                deferred_reason=self._star.deferred_reason(pair_id),
            )
            for pair_id, pair in sorted((star | stream).items())
        )

    @property
    def newest_stamp(self) -> float | None:
        """Stamp of the newest frame in seconds; None if the memory is empty."""
        with self._lock:
            newest = self._newest_frame()
            return None if newest is None else newest.stamp

    @property
    def oldest_stamp(self) -> float | None:
        """Stamp of the oldest kept frame in seconds; None if the memory is empty."""
        with self._lock:
            snapshot = self._snapshot()
            return snapshot[0].stamps[0] if snapshot else None

    @property
    def activity(self) -> Activity:
        """When something last happened in this memory. Restored pairs do not count."""
        return self._activity.activity

    def statistics(self) -> MemoryStatistics:
        """Return the current statistics."""
        with self._lock:
            return count_kept(self._snapshot(), self._frames_added)

    def get_statistics(self) -> dict[str, int | float]:
        """Return the current statistics as a dictionary with the field names of ``MemoryStatistics``."""
        return self.statistics().as_dict()

    def reset(self) -> None:
        """Drop all frames and marks and restart the frame count. Pair ids continue, so no id is reused."""
        with self._lock:
            self._clear()
            self._changes += 1
