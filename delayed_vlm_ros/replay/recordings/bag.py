"""The images on one topic of a ROS 2 bag, read with ``rosbags``, without ROS."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray
from rosbags.interfaces import Connection
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore

from delayed_vlm_ros.errors import ImageError, RecordingError
from delayed_vlm_ros.images.conversion import ImageConverter, make_converter
from delayed_vlm_ros.images.messages import COMPRESSED_TYPE, RAW_TYPE
from delayed_vlm_ros.images.validation import MAX_IMAGE_PIXELS
from delayed_vlm_ros.replay.recordings.metadata import METADATA_FILE, read_metadata
from delayed_vlm_ros.replay.recordings.recording import ZSTD_SUFFIX, Recording
from delayed_vlm_ros.replay.recordings.salvage import (
    Message,
    decompress_files,
    has_write_ahead_log,
    salvage,
    storage_files,
)
from delayed_vlm_ros.time import NANOSECONDS_PER_SECOND, read_stamp

IMAGE_TYPES = (RAW_TYPE, COMPRESSED_TYPE)
_MAX_FILES_NAMED = 5  # in a message
# Packages with the image_transport plugin that decodes a type.
_VIDEO_PLUGINS = {
    "ffmpeg_image_transport_msgs/msg/FFMPEGPacket": "ffmpeg_image_transport",
    "foxglove_msgs/msg/CompressedVideo": "foxglove_compressed_video_transport",
    "theora_image_transport/msg/Packet": "theora_image_transport",
}
_ZSTD_MAGIC = bytes.fromhex("28b52ffd")  # a message in CDR starts with 00
_MAX_MESSAGE_BYTES = 8 * MAX_IMAGE_PIXELS + 1_000_000  # the largest image of 16 bits with alpha, and its header


@dataclass(frozen=True)
class Topic:
    """A topic of a bag.

    Attributes:
        type_name: Message type.
        count: Number of messages; 0 if the bag's index does not list it.
    """

    type_name: str
    count: int

    def __str__(self) -> str:
        return f"{self.type_name}, {self.count} messages" if self.count else self.type_name


class BagImage:
    """One image message, still serialised."""

    def __init__(self, message: Message, typestore: Typestore, converter: ImageConverter) -> None:
        self._message = message
        self._typestore = typestore
        self._converter = converter

    @cached_property
    def serialised(self) -> bytes:
        """The message in CDR.

        Raises:
            ImageError: The message decompresses to more than an image needs.
        """
        return _decompress(self._message.data)

    @property
    def stamp_ns(self) -> int:
        """Stamp in the message header, in nanoseconds."""
        return read_stamp(self.serialised)

    @property
    def arrival_ns(self) -> int:
        """Recording time in nanoseconds."""
        return self._message.recorded_ns

    def decode(self) -> NDArray[np.uint8]:
        """Return the pixels, converted as the node converts them: RGB, shape ``(height, width, 3)``.

        Raises:
            ImageError: The message is damaged or has an unsupported encoding.
        """
        data = self.serialised
        try:
            message: Any = self._typestore.deserialize_cdr(data, self._message.type_name)
        except Exception as error:  # rosbags has no common exception class for damaged messages
            raise ImageError(
                f"cannot read an image message of {len(data)} bytes "
                f"({type(error).__name__}: {error}): the recording or the published message is damaged"
            ) from error
        return self._converter.convert(message)


class BagRecording(Recording):
    """Images on one topic of a bag. The constructor opens the bag.

    A truncated bag, or one without ``metadata.yaml``, is read from the start of its files to the first damage.

    All messages of the topic are read, regardless of the QoS that ``metadata.yaml`` and the files state. At the end,
    their number is compared with the counts in ``metadata.yaml`` and in the files' indexes; a difference is added to
    ``warnings``.

    Args:
        path: The bag's folder, or one of its ``.mcap`` or ``.db3`` files.
        topic: Image topic; empty selects the only topic with images.

    Raises:
        RecordingError: The path is not a bag, or has no such images; the message lists the topics with images.
    """

    kind = "bag"

    def __init__(self, path: Path, topic: str = "") -> None:
        self.name = path.stem if path.is_file() else path.resolve().name
        self.warnings: list[str] = []
        self._typestore = get_typestore(Stores.LATEST)
        self._converter = make_converter()
        self._path = path
        self._files = storage_files(path)
        self._metadata = read_metadata(path)
        self._has_log = any(map(has_write_ahead_log, self._files))
        self._reader: Reader | None = None
        self._open_error = ""
        unnamed = [] if self._metadata is None else self._metadata.unnamed(self._files)
        try:
            # rosbags ignores a write-ahead log, and files that metadata.yaml does not name.
            if not self._has_log and (not self._files or len(unnamed) < len(self._files)):
                self._reader = _open(path)
        except RecordingError:
            raise
        except Exception as error:  # noqa: BLE001  rosbags has no common exception class
            self._open_error = _describe(error)
        if self._reader is not None and unnamed:
            self.warnings.append(_unnamed_warning(path, unnamed))
        self._decompressed: TemporaryDirectory[str] | None = None
        try:
            if self._reader is None and any(file.suffix == ZSTD_SUFFIX for file in self._files):
                self._decompressed = TemporaryDirectory(prefix="delayed_vlm_bag_")
                self._files = decompress_files(self._files, Path(self._decompressed.name))
            topics = self._topics()
            self.topic = _select_topic(topic, topics, path)
            self.type_name = topics[self.topic].type_name
            self._listed = self._listed_counts()
        except BaseException:
            self.close()
            raise
        self.image_count: int | None = max(self._listed.values(), default=None)

    def images(self) -> Iterator[BagImage]:
        """Yield the images in recorded order."""
        first_ns = last_ns = None
        count = 0
        try:
            for message in self._messages():
                first_ns = message.recorded_ns if first_ns is None else first_ns
                last_ns = message.recorded_ns
                count += 1
                yield BagImage(message, self._typestore, self._converter)
        except Exception as error:  # noqa: BLE001  a damaged file can raise any exception
            seconds = 0.0 if first_ns is None or last_ns is None else (last_ns - first_ns) / NANOSECONDS_PER_SECOND
            self.warnings.append(
                f"{self._path} is damaged: read up to image {count}, {seconds:.1f} s after the first one; later images "
                f"are lost ({self._open_error or _describe(error)})"
            )
        else:
            self.warnings += self._count_warnings(count)

    def close(self) -> None:
        """Close the files; further calls do nothing."""
        reader, self._reader = self._reader, None
        if reader is not None and reader.is_open:
            reader.close()
        if self._decompressed is not None:
            self._decompressed.cleanup()

    def _topics(self) -> dict[str, Topic]:
        """Return the topics by name; the types in the files take precedence over ``metadata.yaml``."""
        types: dict[str, str] = {}
        counts: Counter[str] = Counter()
        if self._reader is not None:
            stored = _stored_connections(self._reader)
            for connection in (*stored, *self._reader.connections):
                types.setdefault(connection.topic, connection.msgtype)
            counts.update(dict.fromkeys(types, 0))
            for connection in stored:
                counts[connection.topic] += connection.msgcount
        else:
            try:
                for message in salvage(self._files):
                    types.setdefault(message.topic, message.type_name)
                    counts[message.topic] += 1
            except Exception:  # noqa: BLE001, S110  images() reports the damage
                pass
        if not types and self._reader is None:
            raise RecordingError(
                f"cannot read {self._path} as a ROS 2 bag ({self._open_error}) and cannot recover any message: name "
                "the folder that contains metadata.yaml, or a .mcap or .db3 file"
            )
        return {topic: Topic(type_name, counts[topic]) for topic, type_name in types.items()}

    def _listed_counts(self) -> dict[str, int]:
        """Return the number of messages of the topic that each source lists."""
        listed: dict[str, int] = {}
        if self._metadata is not None:
            listed[METADATA_FILE] = self._metadata.message_counts.get(self.topic, 0)
        if self._reader is not None:
            indexed = sum(one.msgcount for one in _stored_connections(self._reader) if one.topic == self.topic)
            if indexed:  # an MCAP file may omit message counts by topic
                listed["the index of its files"] = indexed
        return listed

    def _count_warnings(self, count: int) -> list[str]:
        """Compare the number of messages read with the listed numbers."""
        # A killed recorder has written messages to the log that it has not listed.
        wrong = {
            source: listed
            for source, listed in self._listed.items()
            if count < listed or (count > listed and not self._has_log)
        }
        if not wrong:
            return []
        listed = " and ".join(f"{source} lists {number}" for source, number in wrong.items())
        reason = f" ({self._open_error})" if self._open_error else ""
        warning = (
            f"{self._path}: {count} messages of {self.topic} read, but {listed}{reason}: messages are missing or the "
            "list is out of date; check the files, then rebuild metadata.yaml with 'ros2 bag reindex'"
        )
        return [warning]

    def _messages(self) -> Iterator[Message]:
        if self._reader is None:
            for message in salvage(self._files):
                if (message.topic, message.type_name) == (self.topic, self.type_name):
                    yield message
            return
        # rosbags matches metadata.yaml with the files by topic, type and QoS. Passing the files' own connections
        # matches all of them. An empty list would select all topics.
        connections = [
            one for one in _stored_connections(self._reader) if (one.topic, one.msgtype) == (self.topic, self.type_name)
        ]
        if not connections:
            return
        for connection, recorded_ns, data in self._reader.messages(connections=connections):
            yield Message(connection.topic, connection.msgtype, recorded_ns, bytes(data))


def _stored_connections(reader: Reader) -> list[Connection]:
    """Return the connections that the storage files state. ``Reader.connections`` come from ``metadata.yaml``."""
    storages = getattr(reader.storage, "storages", [reader.storage])
    return [connection for storage in storages for connection in storage.connections]


def _unnamed_warning(path: Path, files: list[Path]) -> str:
    names = ", ".join(file.name for file in files[:_MAX_FILES_NAMED])
    more = f" and {len(files) - _MAX_FILES_NAMED} more" if len(files) > _MAX_FILES_NAMED else ""
    return (
        f"{path}: {METADATA_FILE} does not name {names}{more}, not read: rebuild {METADATA_FILE} with "
        "'ros2 bag reindex', or remove it to read all files"
    )


def _decompress(data: bytes) -> bytes:
    """Return a message in CDR. Without metadata, rosbags leaves messages compressed by zstd as they are."""
    if not data.startswith(_ZSTD_MAGIC):
        return data
    message = bytearray()
    try:
        for piece in zstandard.ZstdDecompressor().read_to_iter(data):
            message += piece
            if len(message) > _MAX_MESSAGE_BYTES:
                raise ImageError(
                    f"an image message of {len(data)} bytes decompresses to more than {_MAX_MESSAGE_BYTES} bytes, the "
                    "largest image and its header: the recording or the published message is damaged"
                )
    except zstandard.ZstdError:
        return data  # decode() reports the damage
    return bytes(message)


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(".")


def _open(path: Path) -> Reader:
    if path.is_dir() and not storage_files(path):
        raise RecordingError(f"{path} is a folder without .mcap or .db3 files: name a bag's folder")
    reader = Reader(path)
    reader.open()
    return reader


def _select_topic(wanted: str, topics: Mapping[str, Topic], path: Path) -> str:
    images = {name: topic for name, topic in topics.items() if topic.type_name in IMAGE_TYPES}
    if wanted in images:
        return wanted
    if wanted in topics:
        raise RecordingError(
            f"{path} has no images on topic {wanted}: its type is {topics[wanted].type_name}"
            f"{_remedy(topics[wanted].type_name)}"
        )
    if not images:
        listed = _listed(topics) or "no topics"
        types = {topic.type_name for topic in topics.values()}
        raise RecordingError(
            f"{path} has no topic with images ({' or '.join(IMAGE_TYPES)}), but {listed}{_remedy(*types)}"
        )
    if wanted:
        raise RecordingError(f"{path} has no images on topic {wanted}: choose one of {_listed(images)}")
    if len(images) > 1:
        raise RecordingError(f"{path} has several topics with images: choose one of {_listed(images)}")
    return next(iter(images))


def _listed(topics: Mapping[str, Topic]) -> str:
    return ", ".join(f"{name} ({topic})" for name, topic in sorted(topics.items()))


def _remedy(*types: str) -> str:
    """Return how to make a usable bag of topics with these types."""
    if "sensor_msgs/Image" in types or "sensor_msgs/CompressedImage" in types:  # type names of ROS 1
        return ": ROS 1 messages; convert the original .bag with 'rosbags-convert --src FILE.bag --dst FOLDER'"
    plugin = next((_VIDEO_PLUGINS[name] for name in types if name in _VIDEO_PLUGINS), "")
    if plugin:
        return (
            ": a video stream; play the bag, decode it with 'ros2 run image_transport republish' and the package "
            f"{plugin}, and record {RAW_TYPE}"
        )
    return f": record a topic of type {' or '.join(IMAGE_TYPES)}"
