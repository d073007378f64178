"""Kept frames and a question as the content of a chat message.

Frames come first, oldest first, and the question last, so that a server can keep what it has computed for the frames.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from delayed_vlm_ros.images.encoding import encode_jpeg
from delayed_vlm_ros.inference.remote.settings import Encoding
from delayed_vlm_ros.memory import Snapshot
from delayed_vlm_ros.memory.frame import Frame

_VIDEO_FPS = 10  # a frame's time is its index divided by this
_DATA_URL = "data:{type};base64,{data}"

_TIMED_IMAGES = (
    "remote engine: one frame of each pair was sent as a JPEG image with its time, so fast motion within a pair is not "
    "visible"
)
_VIDEO = "remote engine: the frames were sent as JPEG images of one video"
_IMAGES = (
    "remote engine: one frame of each pair was sent as a JPEG image with its time in words; the model does not see a "
    "video"
)


@dataclass(frozen=True, slots=True)
class Content:
    """Frames of a message, without the question.

    Attributes:
        parts: Parts of the message, in the form of the API.
        extra: Further fields of the request.
        names: Names of the images, or of the video; empty: they have none.
        items_sent: Number of images, or frames of the video, that are sent with their pixels.
        items: Number of all images, or frames of the video.
        visual_tokens: Tokens of the images or the video if the server does not resize them.
        warning: Limitation of answers about them, one sentence.
        is_video: Whether they are one video.
    """

    parts: tuple[Mapping[str, Any], ...]
    extra: Mapping[str, Any]
    names: tuple[str, ...]
    items_sent: int
    items: int
    visual_tokens: int
    warning: str
    is_video: bool = False


@dataclass(slots=True)
class JpegCache:
    """Compressed frames by content, so that each frame is compressed once.

    Attributes:
        quality: JPEG quality, 1 to 100.
    """

    quality: int
    _data: dict[bytes, str] = field(default_factory=dict)

    def base64_of(self, frame: Frame) -> str:
        """Return the frame as JPEG in base64."""
        data = self._data.get(frame.content_key)
        if data is None:
            data = base64.b64encode(encode_jpeg(frame.image, self.quality)).decode("ascii")
            self._data[frame.content_key] = data
        return data

    def keep(self, snapshot: Snapshot) -> None:
        """Drop all frames that are not in the snapshot."""
        kept = {frame.content_key for one in snapshot for frame in one.pair.present_frames}
        self._data = {key: data for key, data in self._data.items() if key in kept}

    def clear(self) -> None:
        """Drop all frames."""
        self._data = {}

    @property
    def size_bytes(self) -> int:
        """Bytes of all compressed frames."""
        return sum(map(len, self._data.values()))


def encode(
    snapshot: Snapshot, encoding: Encoding, jpegs: JpegCache, *, frame_multiple: int, held: Collection[str] | None
) -> Content:
    """Return the content of a message about frames.

    Args:
        snapshot: The frames, oldest first.
        encoding: How they are sent; not ``AUTO``.
        jpegs: Compressed frames.
        frame_multiple: Divisor of both sides of a frame, in pixels.
        held: Names of the items that the server holds, which are sent without pixels; None: it does not know names.
    """
    if encoding is Encoding.VIDEO:
        return _video(snapshot, jpegs, frame_multiple, held)
    time_text = _time_tag if encoding is Encoding.TIMED_IMAGES else _time_in_words
    warning = _TIMED_IMAGES if encoding is Encoding.TIMED_IMAGES else _IMAGES
    return _images(snapshot, jpegs, frame_multiple, time_text, held, warning)


def has_even_times(snapshot: Snapshot) -> bool:
    """Return whether all frames follow one another at equal intervals, up to a tenth of an interval."""
    stamps = [frame.stamp for kept in snapshot for frame in kept.pair.present_frames]
    steps = [later - earlier for earlier, later in pairwise(stamps)]
    return not steps or max(steps) - min(steps) <= max(steps) / 10


def _name(frame: Frame, jpegs: JpegCache) -> str:
    """Return the name of an image, which depends on its content alone: a server may trust it."""
    return f"{frame.content_key.hex()}-q{jpegs.quality}"


def _images(
    snapshot: Snapshot,
    jpegs: JpegCache,
    frame_multiple: int,
    time_text: Callable[[float], str],
    held: Collection[str] | None,
    warning: str,
) -> Content:
    frames = [kept.pair.important_frame for kept in snapshot]
    names = [_name(frame, jpegs) for frame in frames]
    origin = snapshot[0].stamps[0]
    known = {*(held or ())}
    parts: list[Mapping[str, Any]] = []
    items_sent = 0
    for frame, name in zip(frames, names, strict=True):
        parts.append({"type": "text", "text": time_text(frame.stamp - origin)})
        if held is not None and name in known:
            parts.append({"type": "image_url", "image_url": None, "uuid": name})
            continue
        image = {"url": image_url(jpegs, frame)}
        parts.append({"type": "image_url", "image_url": image, **({} if held is None else {"uuid": name})})
        known.add(name)
        items_sent += 1
    return Content(
        tuple(parts),
        {},
        () if held is None else tuple(names),
        items_sent,
        len(frames),
        sum(_tokens(frame, frame_multiple) for frame in frames),
        warning,
    )


def _video(snapshot: Snapshot, jpegs: JpegCache, frame_multiple: int, held: Collection[str] | None) -> Content:
    frames = [frame for kept in snapshot for frame in (kept.pair.first, kept.pair.last)]  # a provisional pair: twice
    origin = frames[0].stamp
    indices = [round((frame.stamp - origin) * _VIDEO_FPS) for frame in frames]
    # A video of n frames lasts n intervals. Models with one interval for all frames derive it from the duration.
    total = max(indices[-1] + 1, round(indices[-1] * len(frames) / (len(frames) - 1)))
    times = {
        "fps": _VIDEO_FPS,
        "frames_indices": indices,
        "total_num_frames": total,
        "duration": total / _VIDEO_FPS,
        "do_sample_frames": False,
        "num_frames": -1,
    }
    name = _video_name(frames, times, jpegs)
    is_held = held is not None and name in held
    part: dict[str, Any] = {"type": "video_url", "video_url": None}
    if not is_held:
        data = ",".join(jpegs.base64_of(frame) for frame in frames)
        part["video_url"] = {"url": _DATA_URL.format(type="video/jpeg", data=data)}
    if held is not None:
        part["uuid"] = name
    return Content(
        (part,),
        {"media_io_kwargs": {"video": times}},
        () if held is None else (name,),
        0 if is_held else len(frames),
        len(frames),
        sum(_tokens(kept.pair.first, frame_multiple) for kept in snapshot),
        _VIDEO,
        is_video=True,
    )


def _video_name(frames: Sequence[Frame], times: Mapping[str, Any], jpegs: JpegCache) -> str:
    parts = [*(_name(frame, jpegs) for frame in frames), repr(times)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def image_url(jpegs: JpegCache, frame: Frame) -> str:
    """Return a frame as the address of an image, which contains it as JPEG."""
    return _DATA_URL.format(type="image/jpeg", data=jpegs.base64_of(frame))


def _tokens(frame: Frame, frame_multiple: int) -> int:
    """Return the merged visual tokens of an image, or of a pair of frames in a video."""
    height, width = frame.image.shape[:2]
    return int(height // frame_multiple) * int(width // frame_multiple)


def _time_tag(seconds: float) -> str:
    """Return the time as models that are trained with times as text have it in a video."""
    return f"<{seconds:.1f} seconds>"


def _time_in_words(seconds: float) -> str:
    return f"Image at {seconds:.1f} s:"
