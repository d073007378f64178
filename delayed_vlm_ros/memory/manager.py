"""The memory of one camera: which of its frames to keep."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from delayed_vlm_ros.errors import ConfigurationError, PictureError, StampOrderError
from delayed_vlm_ros.memory.descriptor import Descriptor, describe
from delayed_vlm_ros.memory.frame import FRAMES_PER_PAIR, Frame, FramePair, KeptPair, RgbArray, Snapshot, freeze
from delayed_vlm_ros.memory.grid import as_rgb_array
from delayed_vlm_ros.memory.importance import ImportanceScorer
from delayed_vlm_ros.memory.star import StarMemory
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


@dataclass(frozen=True, slots=True)
class MemoryStatistics:
    """Counts of one moment, in frames: a complete pair counts two, a provisional one counts one.

    Attributes:
        total_frames_added: Frames added since the start or the last reset.
        star_memory_size: Frames in Star memory now.
        stream_memory_size: Frames in Stream memory now.
        unique_frames: Frames kept now, each once.
        overlap: Frames in both memories.
        compression_ratio: Frames added over unique frames kept; 0.0 when empty.
        pixel_bytes: Bytes of pixels of the unique frames.
    """

    total_frames_added: int
    star_memory_size: int
    stream_memory_size: int
    unique_frames: int
    overlap: int
    compression_ratio: float
    pixel_bytes: int

    def as_dict(self) -> dict[str, int | float]:
        """Give the same by name."""
        return asdict(self)


class SmartFrameManager:
    """Keeps the newest frames (Stream memory) and key frames of the whole past (Star memory).

    Frames are paired in order of arrival, first with second, third with fourth, however long the camera paused in
    between; an odd last frame is a provisional pair until its partner comes. Every pair passes through Stream; it also
    enters Star when one of its frames scores `importance_threshold` or more.

    An eviction spoils whatever was computed for the frames kept behind the evicted ones. With an `eviction_chunk` they
    are rarer: when a pair has to leave either memory, each memory that is full then makes room for the rest of a chunk
    of pairs, the newcomer's place counted, so that the next ones find room in both. A newcomer that Star turns away as
    the least missed evicts nothing.

    Safe to use from several threads: adding and looking exclude each other for a few milliseconds.

    Args:
        star_memory_size: Most frames in Star memory; 0 switches it off, else at least 2.
        stream_window_size: Most frames in Stream memory, at least 2.
        importance_threshold: Score from which a frame enters Star memory, 0..1.
        eviction_chunk: Frames that leave a memory at once; after that it holds its size less the chunk plus a pair. At
            0 or 2 one pair leaves when one comes. An odd number is used down to whole pairs. Each memory that is not
            switched off must be larger by a pair or more.
        pair_ids: Where the ids of pairs come from, growing; several memories may share one. None: 1, 2, 3, …

    Raises:
        ConfigurationError: An argument is out of its range.
    """

    def __init__(
        self,
        star_memory_size: int = 20,
        stream_window_size: int = 20,
        importance_threshold: float = 0.6,
        *,
        eviction_chunk: int = 0,
        pair_ids: Iterator[int] | None = None,
    ) -> None:
        if not 0.0 <= importance_threshold <= 1.0:
            raise ConfigurationError(f"importance_threshold must lie in 0..1, got {importance_threshold}")
        self._star_memory_size = star_memory_size
        self._stream_window_size = stream_window_size
        self._importance_threshold = importance_threshold
        self._lock = threading.Lock()
        self._pair_ids = itertools.count(1) if pair_ids is None else pair_ids
        self._forget()
        _check_eviction_chunk(eviction_chunk, star_memory_size=star_memory_size, stream_window_size=stream_window_size)
        self._extra_evictions = max(eviction_chunk // FRAMES_PER_PAIR - 1, 0)  # pairs

    def _forget(self) -> None:
        self._star = StarMemory(self._star_memory_size)
        self._stream = StreamMemory(self._stream_window_size)
        self._scorer = ImportanceScorer()
        self._frames_added = 0
        self._newest_descriptor: Descriptor | None = None

    @property
    def capacity(self) -> int:
        """Most frames in both memories together."""
        return self._star_memory_size + self._stream_window_size

    def add(self, image: RgbArray, stamp: float) -> AddedFrame:
        """Take in a frame. After an error the memory is as it was.

        Args:
            image: RGB picture on the memory's grid: shape (H, W, 3), uint8, the same shape for all frames until
                `clear`. It is copied unless it is read-only and owns its pixels.
            stamp: When the camera took it, seconds; newer than that of the newest frame.

        Returns:
            What became of it.

        Raises:
            PictureError: The image is no such array or of another shape, or the stamp is not finite.
            StampOrderError: The stamp is not newer than the newest frame's.
        """
        image = as_rgb_array(image)
        if not math.isfinite(stamp):
            raise PictureError(f"the picture's stamp is {stamp}, not a time in seconds: check the camera's clock")
        image = freeze(image)
        descriptor = describe(image)
        with self._lock:
            self._check_fits(image, stamp)
            importance = self._scorer.assess(descriptor, self._star.novelty(descriptor))
            is_notable = importance.score >= self._importance_threshold
            frame = Frame(
                image=image,
                stamp=float(stamp),
                number=self._frames_added + 1,
                importance=importance.score,
                reason=importance.reason if is_notable else "",
            )
            # Nothing above has changed the memory, and nothing below can fail.
            pair = self._keep(frame, descriptor, is_notable=is_notable)
            self._scorer.remember(descriptor, importance)
            self._newest_descriptor = descriptor
            self._frames_added = frame.number
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
            raise PictureError(
                f"expected a picture of shape {newest.image.shape} like the frames kept, got {image.shape}: "
                "letterbox it to their size, or reset the memory"
            )
        if stamp <= newest.stamp:
            raise StampOrderError(
                f"the picture's stamp {stamp:.6f} s is not newer than the newest frame's, {newest.stamp:.6f} s (by "
                f"{newest.stamp - stamp:.6f} s): drop it if pictures arrive out of order; reset the memory if the "
                "clock was set back or a recording starts again"
            )

    def _newest_frame(self) -> Frame | None:
        pairs = self._stream.pairs
        return pairs[-1].present_frames[-1] if pairs else None

    def _keep(self, frame: Frame, descriptor: Descriptor, *, is_notable: bool) -> FramePair:
        """Put a frame into the memories, as a new pair or as the partner that the newest pair waits for."""
        pairs = self._stream.pairs
        if not pairs or pairs[-1].is_complete or self._newest_descriptor is None:
            pair = FramePair(next(self._pair_ids), frame, None)
            descriptors = [descriptor]
            has_evicted = self._stream.add(pair)
        else:
            pair = pairs[-1].completed_with(frame)
            descriptors = [self._newest_descriptor, descriptor]
            has_evicted = self._stream.replace_newest(pair)
        if self._star.contains(pair.id):
            self._star.update(pair, descriptors)
        elif is_notable:
            has_evicted |= self._star.add(pair, descriptors)
        if has_evicted:
            self._complete_eviction(pair)
        return pair

    def _complete_eviction(self, newcomer: FramePair) -> None:
        """Let the rest of a chunk leave from each memory whose next pair would evict again."""
        if self._stream.is_full:
            self._stream.drop_oldest(self._extra_evictions)
        if self._star.is_full:
            self._star.drop_least_missed(self._extra_evictions, besides=newcomer)

    def snapshot(self) -> Snapshot:
        """Give the kept pairs of this moment: Star and Stream together, each pair once, in time order."""
        with self._lock:
            return self._snapshot()

    def _snapshot(self) -> Snapshot:
        star = {pair.id: pair for pair in self._star.pairs}
        stream = {pair.id: pair for pair in self._stream.pairs}
        # Ids grow with time, and where a pair is in both memories it is the same object.
        return tuple(
            KeptPair(pair, in_star=pair_id in star, in_stream=pair_id in stream)
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
            snapshot = self._snapshot()
            frames_added = self._frames_added
        unique_frames = sum(kept.frame_count for kept in snapshot)
        return MemoryStatistics(
            total_frames_added=frames_added,
            star_memory_size=sum(kept.frame_count for kept in snapshot if kept.in_star),
            stream_memory_size=sum(kept.frame_count for kept in snapshot if kept.in_stream),
            unique_frames=unique_frames,
            overlap=sum(kept.frame_count for kept in snapshot if kept.in_star and kept.in_stream),
            compression_ratio=frames_added / unique_frames if unique_frames else 0.0,
            pixel_bytes=sum(kept.pair.pixel_bytes for kept in snapshot),
        )

    def get_statistics(self) -> dict[str, int | float]:
        """Count what is kept now, by the names of `MemoryStatistics`."""
        return self.statistics().as_dict()

    def clear(self) -> None:
        """Forget all frames and count anew; pair ids go on, so that no old id comes to mean a new pair."""
        with self._lock:
            self._forget()


def _check_eviction_chunk(eviction_chunk: int, **sizes: int) -> None:
    """Raise `ConfigurationError` unless the chunk (frames) leaves a pair in each memory of these sizes (frames)."""
    if eviction_chunk < 0 or eviction_chunk == 1:
        raise ConfigurationError(
            f"eviction_chunk is {eviction_chunk} frames, but frames leave in pairs: give 0 to let one pair go when one "
            "comes, else 2 or more"
        )
    chunk = eviction_chunk // FRAMES_PER_PAIR * FRAMES_PER_PAIR
    for name, size in sizes.items():
        largest = size // FRAMES_PER_PAIR * FRAMES_PER_PAIR - FRAMES_PER_PAIR
        if size and chunk > largest:
            raise ConfigurationError(
                f"eviction_chunk is {eviction_chunk} frames, but {name} is {size} frames and a pair must stay: give an "
                f"eviction_chunk of at most {largest}, or a {name} of {chunk + FRAMES_PER_PAIR} or more"
            )
