"""A video file as the frames that a memory would have sampled from it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from delayed_vlm_ros.errors import VideoSourceError
from delayed_vlm_ros.images.video import VideoFrame, VideoSource

USUAL_RATE = 2.0  # frames per second, as the memory node samples


def sampling_rate(video: VideoSource, wanted_frames: int) -> float:
    """Frames per second that give a short video at least ``wanted_frames``; a longer one has the usual rate.

    Raises:
        VideoSourceError: It is a device, which has no end.
    """
    if video.is_device:
        raise VideoSourceError(f"{video.name} is a camera device, which has no end: name a video file")
    duration = video.duration_sec
    if not duration:
        return USUAL_RATE
    fastest = video.frames_per_second or USUAL_RATE
    return min(max(USUAL_RATE, wanted_frames / duration), max(fastest, USUAL_RATE))


def all_but_last(frames: Iterable[VideoFrame], count: int, held: deque[VideoFrame]) -> Iterator[VideoFrame]:
    """Pass frames on as they come, but keep the last ``count``, which are in ``held`` once the video has ended."""
    for frame in frames:
        held.append(frame)
        if len(held) > count:
            yield held.popleft()
