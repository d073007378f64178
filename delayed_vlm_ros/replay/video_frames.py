"""Sample the frames of a video file as a memory does."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from delayed_vlm_ros.errors import VideoSourceError
from delayed_vlm_ros.images.video import VideoFrame, VideoSource

DEFAULT_FPS = 2.0  # sampling rate of the memory node


def sampling_rate(video: VideoSource, min_frames: int) -> float:
    """Return the frames to sample per second: ``DEFAULT_FPS``, or more so that a short video has ``min_frames``.

    Raises:
        VideoSourceError: The source is a camera device.
    """
    if video.is_device:
        raise VideoSourceError(f"{video.name} is a camera device, which has no end: name a video file")
    duration = video.duration_sec
    if not duration:
        return DEFAULT_FPS
    fastest = video.frames_per_second or DEFAULT_FPS
    return min(max(DEFAULT_FPS, min_frames / duration), max(fastest, DEFAULT_FPS))


def all_but_last(frames: Iterable[VideoFrame], count: int, held: deque[VideoFrame]) -> Iterator[VideoFrame]:
    """Yield all frames but the last ``count``, which remain in ``held`` when the iteration ends."""
    for frame in frames:
        held.append(frame)
        if len(held) > count:
            yield held.popleft()
