"""The memory of one camera: which of its frames to keep."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from delayed_vlm_ros.errors import ConfigurationError, ImageError, MarksFullError, PairNotKeptError, StampOrderError
from delayed_vlm_ros.memory.frame import FRAMES_PER_PAIR, Frame, FramePair, KeptPair, RgbArray, Snapshot, freeze
from delayed_vlm_ros.memory.grid import as_rgb_array
from delayed_vlm_ros.memory.limits import (
    IMPORTANCE_THRESHOLD,
    STAR_MEMORY_SIZE,
    STREAM_WINDOW_SIZE,
    check_eviction_chunk,
    max_marked_pairs,
)
from delayed_vlm_ros.memory.marks import Marks
from delayed_vlm_ros.memory.pair_ids import PairIds
from delayed_vlm_ros.memory.scoring.background import HALVED_DOWN_TO, downsample
from delayed_vlm_ros.memory.scoring.descriptor import describe
from delayed_vlm_ros.memory.scoring.event_detection import DeferredScore, EventDetector, FrameFeatures, PendingPair
from delayed_vlm_ros.memory.scoring.importance import ImportanceScorer
from delayed_vlm_ros.memory.scoring.resize import halved
from delayed_vlm_ros.memory.star import MIN_EVENT_VALUE, StarMemory
from delayed_vlm_ros.memory.statistics import MemoryStatistics, count_kept
from delayed_vlm_ros.memory.stream import StreamMemory


@dataclass(frozen=True, slots=True)
class AddedFrame:
    """What became of a frame that was added; as text, a line for people.

    Attributes:
        number: Count of frames added up to and with this one, from 1.
        pair_id: The pair it belongs to.
        in_star: Whether that pair is in Star memory now.
        importance: The frame's score, 0..1.
        reason: Why the frame is notable; empty when it is not (it may be in Star as the partner of one that is).
        star_frames: Frames in Star memory now.
        stream_frames: Frames in Stream memory now.
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

    Frames are paired in order of arrival, first with second, third with fourth, however long the camera paused in
    between; an odd last frame is a provisional pair until its partner comes. Every pair passes through Stream; it also
    enters Star when one of its frames scores `importance_threshold` or more.

    An eviction spoils whatever was computed for the frames kept behind the evicted ones. With an `eviction_chunk` they
    are rarer: when a pair has to leave either memory, each memory that is full then makes room for the rest of a chunk
    of pairs, the newcomer's place counted, so that the next ones find room in both. A newcomer that Star turns away as
    the least missed evicts nothing.

    A marked pair stays in Star until its mark is taken off, whatever else comes; a chunk is smaller where marks leave
    it no more. Marks change which pairs are kept, never what is kept of a pair.

    Safe to use from several threads: adding and looking exclude each other for a few milliseconds.

    Args:
        star_memory_size: Most frames in Star memory; 0 switches it off, else at least 2.
        stream_window_size: Most frames in Stream memory, at least 2.
        importance_threshold: Score from which a frame enters Star memory, 0..1.
        eviction_chunk: Frames that leave a memory at once; after that it holds its size less the chunk plus a pair. At
            0 or 2 one pair leaves when one comes. An odd number is used down to whole pairs. Each memory that is not
            switched off must be larger by a pair or more.
        max_marked_frames: Frames that may be marked at once, a pair or more below `star_memory_size`; an odd number is
            used down to whole pairs. None: a quarter of `star_memory_size`, up to a whole pair.
        pair_ids: Where the ids of pairs come from, growing; several memories may share one. None: 1, 2, 3, …

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
            raise ConfigurationError(f"importance_threshold must lie in 0..1, got {importance_threshold}")
        self._star_memory_size = star_memory_size
        self._stream_window_size = stream_window_size
        self._importance_threshold = importance_threshold
        self._lock = threading.Lock()
        self._pair_ids = PairIds() if pair_ids is None else pair_ids
        self._max_marked_pairs = max_marked_pairs(max_marked_frames, star_memory_size)
        self._changes = 0
        self._extra_evictions = max(eviction_chunk // FRAMES_PER_PAIR - 1, 0)  # pairs
        self._forget()
        check_eviction_chunk(eviction_chunk, star_memory_size=star_memory_size, stream_window_size=stream_window_size)

    def _forget(self) -> None:
        self._star = StarMemory(self._star_memory_size)
        self._stream = StreamMemory(self._stream_window_size)
        self._marks = Marks(self._max_marked_pairs)
        self._scorer = ImportanceScorer()
        stream_pairs = self._stream_window_size // FRAMES_PER_PAIR - self._extra_evictions
        self._moments = EventDetector(stream_pairs if self._star_memory_size else 0)
        self._frames_added = 0
        self._newest_look: FrameFeatures | None = None

    @property
    def capacity(self) -> int:
        """Most frames in both memories together."""
        return self._star_memory_size + self._stream_window_size

    @property
    def star_capacity(self) -> int:
        """Most frames in Star memory."""
        return self._star_memory_size

    @property
    def stream_capacity(self) -> int:
        """Most frames in Stream memory."""
        return self._stream_window_size

    @property
    def changes(self) -> int:
        """How often what is kept, or what is marked, has changed since the start."""
        return self._changes

    def add(self, image: RgbArray, stamp: float, source: Any = None) -> AddedFrame:
        """Take in a frame. After an error the memory is as it was.

        Args:
            image: RGB image on the memory's grid: shape (H, W, 3), uint8, the same shape for all frames until
                `reset`. It is copied unless it is read-only and owns its pixels.
            stamp: When the camera took it, seconds; newer than that of the newest frame.
            source: Kept with the frame, see `Frame`.

        Returns:
            What became of it.

        Raises:
            ImageError: The image is no such array or of another shape, or the stamp is not finite.
            StampOrderError: The stamp is not newer than the newest frame's.
        """
        image = as_rgb_array(image)
        if not math.isfinite(stamp):
            raise ImageError(f"the image's stamp is {stamp}, not a time in seconds: check the camera's clock")
        image = freeze(image)
        small = halved(image, HALVED_DOWN_TO)
        look = FrameFeatures(describe(small), downsample(small))
        with self._lock:
            self._check_fits(image, stamp)
            importance = self._scorer.assess(look.descriptor, self._star.novelty(look.descriptor))
            is_notable = importance.score >= self._importance_threshold
            frame = Frame(
                image=image,
                stamp=float(stamp),
                number=self._frames_added + 1,
                importance=importance.score,
                reason=importance.reason if is_notable else "",
                source=source,
            )
            # Nothing above has changed the memory, and nothing below can fail.
            pair = self._keep(frame, look, is_notable=is_notable)
            if pair.is_complete and self._newest_look is not None:
                self._judge_late(PendingPair(pair.id, (self._newest_look, look)))
            self._scorer.remember(look.descriptor, importance)
            self._newest_look = look
            self._frames_added = frame.number
            self._changes += 1
            return AddedFrame(
                number=frame.number,
                pair_id=pair.id,
                in_star=self._star.contains(pair.id),
                importance=frame.importance,
                reason=frame.reason,
                star_frames=self._star.frame_count,
                stream_frames=self._stream.frame_count,
            )

    def _check_fits(self, image: RgbArray, stamp: float) -> None:
        newest = self._newest_frame()
        if newest is None:
            return
        if image.shape != newest.image.shape:
            raise ImageError(
                f"expected an image of shape {newest.image.shape} like the frames kept, got {image.shape}: "
                "letterbox it to their size, or reset the memory"
            )
        if stamp <= newest.stamp:
            raise StampOrderError(
                f"the image's stamp {stamp:.6f} s is not newer than the newest frame's, {newest.stamp:.6f} s (by "
                f"{newest.stamp - stamp:.6f} s): drop it if images arrive out of order; reset the memory if the "
                "clock was set back or a recording starts again"
            )

    def _newest_frame(self) -> Frame | None:
        # Every frame passes through Stream; only what was restored is in Star alone.
        pairs = self._stream.pairs or self._star.pairs
        return pairs[-1].last if pairs else None

    def _keep(self, frame: Frame, look: FrameFeatures, *, is_notable: bool) -> FramePair:
        """Put a frame into the memories, as a new pair or as the partner that the newest pair waits for."""
        pairs = self._stream.pairs
        if not pairs or pairs[-1].is_complete or self._newest_look is None:
            pair = FramePair(next(self._pair_ids), frame, None)
            descriptors = [look.descriptor]
            has_evicted = self._stream.add(pair)
        else:
            pair = pairs[-1].completed_with(frame)
            descriptors = [self._newest_look.descriptor, look.descriptor]
            has_evicted = self._stream.replace_newest(pair)
        if self._star.contains(pair.id):
            self._star.update(pair, descriptors)
        elif is_notable:
            has_evicted |= self._star.add(pair, descriptors)
        if has_evicted:
            self._complete_eviction(pair)
        return pair

    def _judge_late(self, seen: PendingPair) -> None:
        """Judge the pair that is due, and keep it in Star if that makes it worth a place."""
        judgement = self._moments.add(seen)
        if judgement is None:
            return
        pair_ids = {judgement.pair.pair_id, *(track.pair_id for track in judgement.tracks)}
        for pair in self._stream.pairs:
            if pair.id in pair_ids:
                self._consider(pair, judgement)
        self._star.forget_judgements(self._stream.pairs[0].id)

    def _consider(self, pair: FramePair, judgement: DeferredScore) -> None:
        is_due = pair.id == judgement.pair.pair_id
        tracks = [track for track in judgement.tracks if track.pair_id == pair.id]
        self._star.judge(pair.id, tracks, is_view=is_due and judgement.is_view)
        if self._star.contains(pair.id):
            return
        if is_due:
            looks = [look.descriptor for look in judgement.pair.looks]
        else:
            looks = [describe(frame.image) for frame in pair.present_frames]
        has_evicted = False
        if self._star.moment_value(pair.id) >= MIN_EVENT_VALUE:
            has_evicted = self._star.add(pair, looks)
        elif is_due and judgement.is_view and self._star.is_new_place(looks[-1]):
            has_evicted = self._star.add_place(pair, looks)
        if has_evicted:
            self._complete_eviction(pair)

    def _complete_eviction(self, newcomer: FramePair) -> None:
        """Let the rest of a chunk leave from each memory whose next pair would evict again."""
        if self._stream.is_full:
            self._stream.drop_oldest(self._extra_evictions)
        if self._star.is_full:
            self._star.evict_least_valuable(self._extra_evictions, keep=newcomer)

    def restore(self, pairs: Sequence[KeptPair]) -> None:
        """Take in the key frames of an earlier memory, with their ids and marks, as the past of this one.

        They enter Star only, which is as large as it is: where there are more, the least missed leave, and marks beyond
        those that may be put are lost. Frames to come must be newer; numbers of frames and ids of pairs go on behind
        those restored.

        Args:
            pairs: In time order, of one shape; ids grow, too.

        Raises:
            ValueError: The memory is not empty.
        """
        with self._lock:
            if self._newest_frame() is not None:
                raise ValueError("the memory is not empty: reset it first")
            for kept in pairs:
                if kept.marked:
                    with contextlib.suppress(MarksFullError):
                        self._marks.put(kept.id, kept.label)
                        self._star.protect(kept.id)
            for kept in pairs:
                self._star.restore(kept, [describe(frame.image) for frame in kept.pair.present_frames])
                self._frames_added = kept.pair.last.number
                self._pair_ids.continue_after(kept.id)
            self._changes += 1

    def mark(self, pair_id: int, label: str = "") -> KeptPair:
        """Keep a pair in Star memory until its mark is taken off. Marking it again changes the label.

        If Star is full and does not hold it yet, the least missed pair that is not marked leaves.

        Args:
            pair_id: A kept pair.
            label: A name for people, at most `MAX_LABEL_CHARACTERS` printable characters; may be empty.

        Returns:
            The marked pair.

        Raises:
            MarkError: The label cannot be used.
            PairNotKeptError: The pair is not kept, or no longer.
            MarksFullError: As many pairs are marked as may be. The memory is as it was, after any of these.
        """
        with self._lock:
            pair = self._kept(pair_id).pair
            self._marks.put(pair_id, label)
            # First, lest it be the least missed itself.
            self._star.protect(pair_id)
            if not self._star.contains(pair_id):
                self._star.add(pair, [describe(frame.image) for frame in pair.present_frames])
            self._changes += 1
            return self._kept(pair_id)

    def unmark(self, pair_id: int) -> KeptPair:
        """Take the mark off a pair. It stays where it is, and may leave like any other from now on.

        Args:
            pair_id: A marked pair.

        Returns:
            The pair, without its mark.

        Raises:
            PairNotKeptError: The pair is not kept, or no longer.
            MarkError: It is not marked.
        """
        with self._lock:
            self._kept(pair_id)
            self._marks.take(pair_id)
            self._star.release(pair_id)
            self._changes += 1
            return self._kept(pair_id)

    def _kept(self, pair_id: int) -> KeptPair:
        for kept in self._snapshot():
            if kept.id == pair_id:
                return kept
        raise PairNotKeptError(
            f"pair {pair_id} is not kept: it has left the memory, or never was there; take the id of a key frame that "
            "is kept now"
        )

    def snapshot(self) -> Snapshot:
        """Give the kept pairs of this moment: Star and Stream together, each pair once, in time order."""
        with self._lock:
            return self._snapshot()

    def _snapshot(self) -> Snapshot:
        star = {pair.id: pair for pair in self._star.pairs}
        stream = {pair.id: pair for pair in self._stream.pairs}
        # Ids grow with time, and where a pair is in both memories it is the same object.
        return tuple(
            KeptPair(
                pair,
                in_star=pair_id in star,
                in_stream=pair_id in stream,
                marked=pair_id in self._marks,
                label=self._marks.label_of(pair_id),
                deferred_score=self._star.moment_value(pair_id),
                late_reason=self._star.late_reason(pair_id),
            )
            for pair_id, pair in sorted((star | stream).items())
        )

    @property
    def newest_stamp(self) -> float | None:
        """Stamp of the newest frame, seconds; None when empty."""
        with self._lock:
            newest = self._newest_frame()
            return None if newest is None else newest.stamp

    @property
    def oldest_stamp(self) -> float | None:
        """Stamp of the oldest frame kept, seconds; None when empty."""
        with self._lock:
            snapshot = self._snapshot()
            return snapshot[0].stamps[0] if snapshot else None

    def statistics(self) -> MemoryStatistics:
        """Count what is kept now."""
        with self._lock:
            return count_kept(self._snapshot(), self._frames_added)

    def get_statistics(self) -> dict[str, int | float]:
        """Count what is kept now, by the names of `MemoryStatistics`."""
        return self.statistics().as_dict()

    def reset(self) -> None:
        """Forget all frames and marks and count anew; pair ids go on, so that no old id comes to mean a new pair."""
        with self._lock:
            self._forget()
            self._changes += 1
