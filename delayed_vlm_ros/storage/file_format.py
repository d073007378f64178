"""What a file of one camera's Star memory holds, byte by byte. docs/reliability.md describes it for people.

    magic, version, length of the header      20 bytes, little-endian
    header                                    JSON: the camera, the grid's rules, each pair and its frames
    images                                  RGB bytes of each frame, in the header's order, all of one shape
    checksum                                  SHA-256 of all before it

Nothing in it is executed, and no length in it is believed before the file's own length agrees with it.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from io import BufferedIOBase
from typing import Any

import numpy as np

from delayed_vlm_ros.errors import MarkError, MemoryFileError
from delayed_vlm_ros.ingest.geometry import FrameGeometry
from delayed_vlm_ros.memory.frame import FRAMES_PER_PAIR, Frame, FramePair, KeptPair, RgbArray, Snapshot
from delayed_vlm_ros.memory.grid import Grid
from delayed_vlm_ros.memory.marks import check_label

MAGIC = b"DVLMSTAR"
VERSION = 1

_PREFIX = struct.Struct("<8sIQ")
_DIGEST_BYTES = hashlib.sha256().digest_size
_CHANNELS = 3
_MOST_HEADER_BYTES = 64_000_000
_MOST_REASON_CHARACTERS = 200
_MOST_NUMBER = 2**63 - 1
_MOST_SECONDS = 1e11  # from 1970 on; times in ROS end at 4.3e9, and a memory's own may be somewhat ahead of them


@dataclass(frozen=True)
class StoredMemory:
    """One camera's Star memory as it is written and read.

    Attributes:
        camera: The camera's name.
        geometry: The rules by which the size of its frames was chosen.
        pairs: Its key frames in time order, all of one shape, marks included.
    """

    camera: str
    geometry: FrameGeometry
    pairs: Snapshot


def star_of(snapshot: Snapshot) -> Snapshot:
    """The part of a snapshot that is written: Star's pairs, as they will come back."""
    return tuple(replace(kept, in_stream=False) for kept in snapshot if kept.in_star)


def describe_memory(memory: StoredMemory, describe_source: Callable[[Any], Any]) -> bytes:
    """The file's header. It is the same for the same memory: images stand in it by their hashes.

    Args:
        memory: What is to be written.
        describe_source: Makes something for JSON of a frame's ``source``.
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
                "deferred_score": float(kept.deferred_score),
                "late_reason": kept.late_reason,
                "frames": [_described_frame(frame, describe_source) for frame in kept.pair.present_frames],
            }
            for kept in memory.pairs
        ],
    }
    return json.dumps(header, allow_nan=False, sort_keys=True).encode()


def _described_frame(frame: Frame, describe_source: Callable[[Any], Any]) -> dict[str, Any]:
    return {
        "stamp": float(frame.stamp),
        "number": frame.number,
        "importance": float(frame.importance),
        "reason": frame.reason,
        "source": describe_source(frame.source),
    }


def byte_count(memory: StoredMemory, header: bytes) -> int:
    """Length of the whole file."""
    return _PREFIX.size + len(header) + sum(kept.pair.pixel_bytes for kept in memory.pairs) + _DIGEST_BYTES


def write_memory(file: BufferedIOBase, memory: StoredMemory, header: bytes, *, interrupted: Callable[[], bool]) -> None:
    """Write the whole file.

    Args:
        file: Where to; it must take all bytes it is given, as a buffered file does.
        memory: What to write.
        header: As ``describe_memory`` gave it for this memory.
        interrupted: Looked at before each image.

    Raises:
        MemoryFileError: It was interrupted; what is written is of no use.
        OSError: It cannot be written.
    """
    hasher = hashlib.sha256()
    for part in (_PREFIX.pack(MAGIC, VERSION, len(header)), header):
        hasher.update(part)
        file.write(part)
    for kept in memory.pairs:
        for frame in kept.pair.present_frames:
            if interrupted():
                raise MemoryFileError("no time was left to write the key frames: what was written before stays")
            hasher.update(frame.image.data)
            file.write(frame.image.data)
    file.write(hasher.digest())


def read_memory(file: BufferedIOBase, length: int, revive_source: Callable[[Any], Any]) -> StoredMemory:
    """Read a whole file and believe nothing of it unchecked.

    Args:
        file: It, at its beginning.
        length: Its bytes.
        revive_source: Makes a frame's ``source`` of what stands in the header; raises ``ValueError`` where it cannot.

    Raises:
        MemoryFileError: It is none, damaged, or of another version; the message says what is wrong, for behind the
            file's name.
        OSError: It cannot be read.
    """
    hasher = hashlib.sha256()
    prefix = _read_exactly(file, min(_PREFIX.size, length), hasher)
    if not prefix.startswith(MAGIC):
        raise MemoryFileError("is no file of key frames")
    if len(prefix) < _PREFIX.size:
        raise MemoryFileError("is cut short")
    _, version, header_bytes = _PREFIX.unpack(prefix)
    if version != VERSION:
        raise MemoryFileError(f"has version {version} of the format, and this program reads version {VERSION}")
    if header_bytes > min(_MOST_HEADER_BYTES, length - _PREFIX.size - _DIGEST_BYTES):
        raise MemoryFileError("is cut short, or damaged: its header does not fit into it")
    reader = _HeaderReader(_parsed(_read_exactly(file, header_bytes, hasher)), revive_source)
    expected = _PREFIX.size + header_bytes + reader.pixel_bytes + _DIGEST_BYTES
    if expected != length:
        raise MemoryFileError(f"is cut short, or damaged: it has {length} bytes, and by its header {expected}")
    memory = reader.memory(lambda shape: _read_image(file, shape, hasher))
    # A last look: nothing above can tell a flipped bit of a stamp, or of an image, from what was meant.
    if file.read(_DIGEST_BYTES) != hasher.digest():
        raise MemoryFileError("is damaged: its checksum is another")
    return memory


def _read_exactly(file: BufferedIOBase, count: int, hasher: Any) -> bytes:
    found = file.read(count)
    if len(found) != count:
        raise MemoryFileError("is cut short")
    hasher.update(found)
    return found


def _read_image(file: BufferedIOBase, shape: tuple[int, int, int], hasher: Any) -> RgbArray:
    image = np.empty(shape, np.uint8)
    view = image.reshape(-1).data
    done = 0
    while done < len(view):
        count = file.readinto(view[done:])
        if not count:
            raise MemoryFileError("is cut short")
        done += count
    hasher.update(view)
    image.setflags(write=False)
    return image


def _parsed(header: bytes) -> Any:
    try:
        return json.loads(header)
    except (ValueError, RecursionError) as error:
        raise MemoryFileError(f"is damaged: its header is no JSON ({type(error).__name__})") from error


class _HeaderReader:
    """Takes a parsed header apart; every value is checked before it is used.

    Args:
        header: Whatever JSON gave.
        revive_source: As for ``read_memory``.

    Raises:
        MemoryFileError: A value is missing or makes no sense.
    """

    def __init__(self, header: Any, revive_source: Callable[[Any], Any]) -> None:
        self._header = _an_object(header, "header")
        self._revive_source = revive_source
        self._pairs = [_an_object(pair, "pair") for pair in _a_list(self._header, "pairs")]
        self._frames = [[_an_object(frame, "frame") for frame in _a_list(pair, "frames")] for pair in self._pairs]
        if any(not 1 <= len(frames) <= FRAMES_PER_PAIR for frames in self._frames):
            raise MemoryFileError("is damaged: a pair has neither one frame nor two")
        least = 1 if self._pairs else 0
        self._shape = (
            _an_int(self._header, "height", least, _MOST_NUMBER),
            _an_int(self._header, "width", least, _MOST_NUMBER),
            _CHANNELS,
        )

    @property
    def pixel_bytes(self) -> int:
        """Bytes of all images together."""
        return sum(map(len, self._frames)) * math.prod(self._shape)

    def memory(self, read_image: Callable[[tuple[int, int, int]], RgbArray]) -> StoredMemory:
        """Make the memory, with images that are read one after the other."""
        camera = _a_word(self._header, "camera", 64)
        geometry = _geometry(_an_object(self._header.get("geometry"), "geometry"))
        pairs = []
        newest_id, newest_stamp, newest_number = 0, -math.inf, 0
        for pair, described_frames in zip(self._pairs, self._frames, strict=True):
            newest_id = _an_int(pair, "id", newest_id + 1, _MOST_NUMBER)
            frames = []
            for described in described_frames:
                frame = self._frame(described, read_image(self._shape))
                if not (frame.stamp > newest_stamp and frame.number > newest_number):
                    raise MemoryFileError("is damaged: its frames do not stand in time order")
                newest_stamp, newest_number = frame.stamp, frame.number
                frames.append(frame)
            pairs.append(_kept(pair, FramePair(newest_id, frames[0], frames[1] if len(frames) > 1 else None)))
        return StoredMemory(camera, geometry, tuple(pairs))

    def _frame(self, described: Mapping[str, Any], image: RgbArray) -> Frame:
        try:
            source = self._revive_source(described.get("source"))
        except ValueError as error:
            raise MemoryFileError(f"is damaged: a frame's source is {error}") from error
        return Frame(
            image=image,
            stamp=_a_float(described, "stamp", -_MOST_SECONDS, _MOST_SECONDS),
            number=_an_int(described, "number", 1, _MOST_NUMBER),
            importance=_a_float(described, "importance", 0.0, 1.0),
            reason=_a_word(described, "reason", _MOST_REASON_CHARACTERS),
            source=source,
        )


def _kept(described: Mapping[str, Any], pair: FramePair) -> KeptPair:
    label, marked = _a_word(described, "label", _MOST_REASON_CHARACTERS), described.get("marked")
    try:
        check_label(label)
    except MarkError as error:
        raise MemoryFileError(f"is damaged: {error}") from error
    if not isinstance(marked, bool) or (label and not marked):
        raise MemoryFileError("is damaged: the mark of a pair makes no sense")
    if described.get("content_key") != pair.content_key.hex():
        raise MemoryFileError("is damaged: the images of a pair are others than its header says")
    return KeptPair(
        pair,
        in_star=True,
        in_stream=False,
        marked=marked,
        label=label,
        deferred_score=_a_float(described, "deferred_score", 0.0, 1.0),
        late_reason=_a_word(described, "late_reason", _MOST_REASON_CHARACTERS),
    )


def _geometry(described: Mapping[str, Any]) -> FrameGeometry:
    only_size = described.get("only_size")
    if only_size is not None:
        sides = _an_object(only_size, "only_size")
        only_size = Grid(_an_int(sides, "height", 1, _MOST_NUMBER), _an_int(sides, "width", 1, _MOST_NUMBER))
    factor, least, most = (_an_int(described, name, 0, _MOST_NUMBER) for name in ("factor", "min_pixels", "max_pixels"))
    return FrameGeometry(factor, least, most, only_size)


def _an_object(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise MemoryFileError(f"is damaged: a {name} of its header is no object")
    return value


def _a_list(described: Mapping[str, Any], name: str) -> list[Any]:
    value = described.get(name)
    if not isinstance(value, list):
        raise MemoryFileError(f"is damaged: {name} is no list")
    return value


def _a_word(described: Mapping[str, Any], name: str, most: int) -> str:
    value = described.get(name)
    if not isinstance(value, str) or len(value) > most or not value.isprintable():
        raise MemoryFileError(f"is damaged: {name} is no word")
    return value


def _an_int(described: Mapping[str, Any], name: str, least: int, most: int) -> int:
    value = described.get(name)
    if type(value) is not int or not least <= value <= most:
        raise MemoryFileError(f"is damaged: {name} is no number from {least} to {most}")
    return value


def _a_float(described: Mapping[str, Any], name: str, least: float, most: float) -> float:
    value = described.get(name)
    if type(value) is not float or not math.isfinite(value) or not least <= value <= most:
        raise MemoryFileError(f"is damaged: {name} is no number from {least:g} to {most:g}")
    return value
