"""The format of a key-frame file: the Star memory of one camera. docs/reliability.md describes it for users.

    magic, version, length of the header      20 bytes, little-endian
    header                                    JSON: camera, grid rules, each pair and its frames
    images                                    RGB bytes of each frame, in the order of the header, all of one shape
    checksum                                  SHA-256 of everything before it

Reading executes nothing from the file. It trusts no length before it has compared it with the size of the file.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from io import BufferedIOBase
from typing import TYPE_CHECKING, Any

import numpy as np

from delayed_vlm_ros.errors import MarkError, MemoryFileError
from delayed_vlm_ros.ingest.geometry import FrameGeometry
from delayed_vlm_ros.memory.frame import FRAMES_PER_PAIR, Frame, FramePair, KeptPair, RgbArray, Snapshot
from delayed_vlm_ros.memory.grid import Grid
from delayed_vlm_ros.memory.limits import MAX_STAMP_SEC
from delayed_vlm_ros.memory.marks import check_label

if TYPE_CHECKING:
    from hashlib import _Hash

MAGIC = b"DVLMSTAR"
VERSION = 1

_PREFIX = struct.Struct("<8sIQ")
_DIGEST_BYTES = hashlib.sha256().digest_size
_CHANNELS = 3
_MAX_HEADER_BYTES = 64_000_000
_MAX_CAMERA_CHARACTERS = 64
_MAX_TEXT_CHARACTERS = 200
_MAX_INTEGER = 2**62  # frames that follow are counted on from it, and messages hold 64 bits
_BLOCK_BYTES = 2**20
_NO_TIME = "no time left to write the key frames: the previous file is unchanged"


@dataclass(frozen=True)
class StoredMemory:
    """The Star memory of one camera, as written and read.

    Attributes:
        camera: Name of the camera.
        geometry: Image sizes that the model accepted when the frames were resized.
        pairs: Key frames in time order, all of one shape, with their marks.
    """

    camera: str
    geometry: FrameGeometry
    pairs: Snapshot


def star_of(snapshot: Snapshot) -> Snapshot:
    """Return the part of a snapshot that is stored: the pairs in Star memory, as they are restored."""
    return tuple(replace(kept, in_stream=False) for kept in snapshot if kept.in_star)


def describe_memory(memory: StoredMemory, describe_source: Callable[[Any], Any]) -> bytes:
    """Return the header of the file.

    It contains the hashes of the images, so equal headers mean equal files.

    Args:
        memory: Memory to write.
        describe_source: Converts the ``source`` of a frame to a JSON value.
    """
    shape = memory.pairs[0].pair.first.image.shape if memory.pairs else (0, 0, _CHANNELS)
    header = {
        "camera": memory.camera,
        "geometry": asdict(memory.geometry),
        "height": shape[0],
        "width": shape[1],
        "pairs": [
            {
                "id": kept.id,
                "content_key": kept.content_key.hex(),
                "marked": kept.marked,
                "label": kept.label,
                "late_score": float(kept.deferred_score),
                "late_reason": kept.deferred_reason,
                "frames": [_describe_frame(frame, describe_source) for frame in kept.pair.present_frames],
            }
            for kept in memory.pairs
        ],
    }
    return json.dumps(header, allow_nan=False, sort_keys=True).encode()


def _describe_frame(frame: Frame, describe_source: Callable[[Any], Any]) -> dict[str, Any]:
    return {
        "stamp": float(frame.stamp),
        "number": frame.number,
        "importance": float(frame.importance),
        "reason": frame.reason,
        "source": describe_source(frame.source),
    }


def byte_count(memory: StoredMemory, header: bytes) -> int:
    """Return the size of the file in bytes."""
    return _PREFIX.size + len(header) + sum(kept.pair.pixel_bytes for kept in memory.pairs) + _DIGEST_BYTES


def check_header(
    header: bytes,
    memory: StoredMemory,
    describe_source: Callable[[Any], Any],
    revive_source: Callable[[Any], Any],
) -> None:
    """Check that ``read_memory`` accepts a header and returns the memory that it describes. Reads no file.

    Args:
        header: Return value of ``describe_memory`` for this memory.
        memory: The memory.
        describe_source: As for ``describe_memory``.
        revive_source: As for ``read_memory``.

    Raises:
        MemoryFileError: A file with this header would be refused, or differ from the memory.
    """
    if len(header) > _MAX_HEADER_BYTES:
        raise MemoryFileError(f"header too long: {len(header)} bytes, at most {_MAX_HEADER_BYTES}")
    images = (frame.image for kept in memory.pairs for frame in kept.pair.present_frames)
    read_back = _HeaderReader(_parse_json(header), revive_source).memory(lambda _: next(images))
    if describe_memory(read_back, describe_source) != header:
        raise MemoryFileError("a value changes when it is read")


def check_checksum(file: BufferedIOBase, length: int, *, interrupted: Callable[[], bool]) -> None:
    """Check that a file has its length and checksum, in blocks.

    Args:
        file: Binary file, at its beginning.
        length: Expected size of the file, in bytes.
        interrupted: Called before each block; returns whether to leave the rest unchecked.

    Raises:
        MemoryFileError: The file is damaged.
        OSError: The file cannot be read.
    """
    hasher = hashlib.sha256()
    left = length - _DIGEST_BYTES
    while left > 0:
        if interrupted():
            return
        left -= len(_read_exactly(file, min(left, _BLOCK_BYTES), hasher))
    if file.read() != hasher.digest():
        raise MemoryFileError("damaged: wrong checksum")


def write_memory(file: BufferedIOBase, memory: StoredMemory, header: bytes, *, interrupted: Callable[[], bool]) -> None:
    """Write a key-frame file.

    Args:
        file: Buffered binary file to write to.
        memory: Memory to write.
        header: Return value of ``describe_memory`` for this memory.
        interrupted: Called before each image; returns whether to stop.

    Raises:
        MemoryFileError: Writing was interrupted; the file is incomplete.
        OSError: The file cannot be written.
    """
    hasher = hashlib.sha256()
    for part in (_PREFIX.pack(MAGIC, VERSION, len(header)), header):
        hasher.update(part)
        file.write(part)
    for kept in memory.pairs:
        for frame in kept.pair.present_frames:
            if interrupted():
                raise MemoryFileError(_NO_TIME)
            hasher.update(frame.image.data)
            file.write(frame.image.data)
    file.write(hasher.digest())


def read_memory(file: BufferedIOBase, length: int, revive_source: Callable[[Any], Any]) -> StoredMemory:
    """Read a key-frame file and check every value in it.

    Args:
        file: Binary file, at its beginning.
        length: Size of the file, in bytes.
        revive_source: Converts a JSON value back to the ``source`` of a frame; raises ``ValueError`` if it cannot.

    Raises:
        MemoryFileError: Not a key-frame file, damaged, or an unsupported version. The message is the reason alone,
            without the file's name.
        OSError: The file cannot be read.
    """
    hasher = hashlib.sha256()
    prefix = _read_exactly(file, min(_PREFIX.size, length), hasher)
    if not prefix.startswith(MAGIC):
        raise MemoryFileError("not a key-frame file")
    if len(prefix) < _PREFIX.size:
        raise MemoryFileError("file is truncated")
    _, version, header_bytes = _PREFIX.unpack(prefix)
    if version != VERSION:
        raise MemoryFileError(f"unsupported version {version} of the file format, expected {VERSION}")
    if header_bytes > min(_MAX_HEADER_BYTES, length - _PREFIX.size - _DIGEST_BYTES):
        raise MemoryFileError("file is truncated or damaged: header too long")
    reader = _HeaderReader(_parse_json(_read_exactly(file, header_bytes, hasher)), revive_source)
    expected = _PREFIX.size + header_bytes + reader.pixel_bytes + _DIGEST_BYTES
    if expected != length:
        raise MemoryFileError(f"file is truncated or damaged: expected {expected} bytes, got {length}")
    memory = reader.memory(lambda shape: _read_image(file, shape, hasher))
    # Only the checksum detects a flipped bit in a stamp or an image.
    if file.read(_DIGEST_BYTES) != hasher.digest():
        raise MemoryFileError("damaged: wrong checksum")
    return memory


def _read_exactly(file: BufferedIOBase, count: int, hasher: _Hash) -> bytes:
    content = file.read(count)
    if len(content) != count:
        raise MemoryFileError("file is truncated")
    hasher.update(content)
    return content


def _read_image(file: BufferedIOBase, shape: tuple[int, int, int], hasher: _Hash) -> RgbArray:
    image = np.empty(shape, np.uint8)
    view = image.reshape(-1).data
    done = 0
    while done < len(view):
        count = file.readinto(view[done:])
        if not count:
            raise MemoryFileError("file is truncated")
        done += count
    hasher.update(view)
    image.setflags(write=False)
    return image


def _parse_json(header: bytes) -> Any:
    try:
        return json.loads(header)
    except (ValueError, RecursionError) as error:
        raise MemoryFileError(f"damaged: header is not JSON ({type(error).__name__})") from error


class _HeaderReader:
    """Converts a parsed header to a memory; checks every value before use.

    Args:
        header: Any JSON value.
        revive_source: As for ``read_memory``.

    Raises:
        MemoryFileError: A value is missing or invalid.
    """

    def __init__(self, header: Any, revive_source: Callable[[Any], Any]) -> None:
        self._header = _check_object(header, "header")
        self._revive_source = revive_source
        self._pairs = [_check_object(pair, "pair") for pair in _get_list(self._header, "pairs")]
        self._frames = [[_check_object(frame, "frame") for frame in _get_list(pair, "frames")] for pair in self._pairs]
        if any(not 1 <= len(frames) <= FRAMES_PER_PAIR for frames in self._frames):
            raise MemoryFileError("damaged: a pair must have one or two frames")
        min_side = 1 if self._pairs else 0
        self._shape = (
            _get_int(self._header, "height", min_side, _MAX_INTEGER),
            _get_int(self._header, "width", min_side, _MAX_INTEGER),
            _CHANNELS,
        )

    @property
    def pixel_bytes(self) -> int:
        """Bytes of all images."""
        return sum(map(len, self._frames)) * math.prod(self._shape)

    def memory(self, read_image: Callable[[tuple[int, int, int]], RgbArray]) -> StoredMemory:
        """Return the memory; call ``read_image`` once per frame, in order."""
        camera = _get_text(self._header, "camera", _MAX_CAMERA_CHARACTERS)
        geometry = _geometry(_check_object(self._header.get("geometry"), "geometry"))
        pairs = []
        newest_id, newest_stamp, newest_number = 0, -math.inf, 0
        for pair, described_frames in zip(self._pairs, self._frames, strict=True):
            newest_id = _get_int(pair, "id", newest_id + 1, _MAX_INTEGER)
            frames = []
            for described in described_frames:
                frame = self._frame(described, read_image(self._shape))
                if not (frame.stamp > newest_stamp and frame.number > newest_number):
                    raise MemoryFileError("damaged: frames are not in time order")
                newest_stamp, newest_number = frame.stamp, frame.number
                frames.append(frame)
            pairs.append(_kept_pair(pair, FramePair(newest_id, frames[0], frames[1] if len(frames) > 1 else None)))
        return StoredMemory(camera, geometry, tuple(pairs))

    def _frame(self, described: Mapping[str, Any], image: RgbArray) -> Frame:
        try:
            source = self._revive_source(described.get("source"))
        except ValueError as error:
            raise MemoryFileError(f"damaged: source of a frame: {error}") from error
        return Frame(
            image=image,
            stamp=_get_float(described, "stamp", -MAX_STAMP_SEC, MAX_STAMP_SEC),
            number=_get_int(described, "number", 1, _MAX_INTEGER),
            importance=_get_float(described, "importance", 0.0, 1.0),
            reason=_get_text(described, "reason", _MAX_TEXT_CHARACTERS),
            source=source,
        )


def _kept_pair(described: Mapping[str, Any], pair: FramePair) -> KeptPair:
    label, marked = _get_text(described, "label", _MAX_TEXT_CHARACTERS), described.get("marked")
    try:
        check_label(label)
    except MarkError as error:
        raise MemoryFileError(f"damaged: {error}") from error
    if not isinstance(marked, bool) or (label and not marked):
        raise MemoryFileError("damaged: invalid mark of a pair")
    if described.get("content_key") != pair.content_key.hex():
        raise MemoryFileError("damaged: images of a pair do not match its content_key")
    return KeptPair(
        pair,
        in_star=True,
        in_stream=False,
        marked=marked,
        label=label,
        deferred_score=_get_float(described, "late_score", 0.0, 1.0),
        deferred_reason=_get_text(described, "late_reason", _MAX_TEXT_CHARACTERS),
    )


def _geometry(described: Mapping[str, Any]) -> FrameGeometry:
    only_size = described.get("only_size")
    if only_size is not None:
        sides = _check_object(only_size, "only_size")
        only_size = Grid(_get_int(sides, "height", 1, _MAX_INTEGER), _get_int(sides, "width", 1, _MAX_INTEGER))
    factor, min_pixels, max_pixels = (
        _get_int(described, name, 0, _MAX_INTEGER) for name in ("factor", "min_pixels", "max_pixels")
    )
    return FrameGeometry(factor, min_pixels, max_pixels, only_size)


def _check_object(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise MemoryFileError(f"damaged: {name} must be an object")
    return value


def _get_list(described: Mapping[str, Any], name: str) -> list[Any]:
    value = described.get(name)
    if not isinstance(value, list):
        raise MemoryFileError(f"damaged: {name} must be a list")
    return value


def _get_text(described: Mapping[str, Any], name: str, max_characters: int) -> str:
    value = described.get(name)
    if not isinstance(value, str) or len(value) > max_characters or not value.isprintable():
        raise MemoryFileError(f"damaged: {name} must be printable text of at most {max_characters} characters")
    return value


def _get_int(described: Mapping[str, Any], name: str, low: int, high: int) -> int:
    value = described.get(name)
    if type(value) is not int or not low <= value <= high:
        raise MemoryFileError(f"damaged: {name} must be an integer from {low} to {high}")
    return value


def _get_float(described: Mapping[str, Any], name: str, low: float, high: float) -> float:
    value = described.get(name)
    if type(value) is not float or not math.isfinite(value) or not low <= value <= high:
        raise MemoryFileError(f"damaged: {name} must be a number from {low:g} to {high:g}")
    return value
