"""The images of one topic of a ROS 2 bag, read with ``rosbags``, without ROS."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray
from rosbags.interfaces import Connection
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore

from delayed_vlm_ros.errors import ImageError, RecordingError
from delayed_vlm_ros.images.conversion import ImageConverter, make_converter
from delayed_vlm_ros.replay.recordings.metadata import METADATA_FILE, read_metadata
from delayed_vlm_ros.replay.recordings.recording import COMPRESSED_TYPE, RAW_TYPE, Recording
from delayed_vlm_ros.replay.recordings.salvage import Message, has_log, salvage, storage_files
from delayed_vlm_ros.time import NANOSECONDS_PER_SECOND, read_stamp

IMAGE_TYPES = (RAW_TYPE, COMPRESSED_TYPE)
_MOST_FILES_NAMED = 5  # in a message
_ZSTD_MAGIC = bytes.fromhex("28b52ffd")  # a message in CDR begins with 00


class BagImage:
    """One image message, still serialised; see ``RecordedImage``."""

    def __init__(self, message: Message, types: Any, converter: ImageConverter) -> None:
        self._message = message
        self._data = _decompressed(message.data)
        self._types = types
        self._converter = converter

    @property
    def serialised(self) -> bytes:
        """The message in CDR."""
        return self._data

    @property
    def stamp_ns(self) -> int:
        """As its header says."""
        return read_stamp(self._data)

    @property
    def arrival_ns(self) -> int:
        """When the recorder got it."""
        return self._message.recorded_ns

    def decode(self) -> NDArray[np.uint8]:
        """As the node would."""
        try:
            message = self._types.deserialize_cdr(self._data, self._message.type_name)
        except Exception as error:  # the library has no common class for what a damaged message can cause
            raise ImageError(
                f"an image message of {len(self._data)} bytes cannot be read "
                f"({type(error).__name__}: {error}): the recording is damaged there, or its publisher was"
            ) from error
        return self._converter.convert(message)


class BagRecording(Recording):
    """See ``Recording``; opened on construction.

    A bag that was cut short, or has lost its ``metadata.yaml``, is read from the beginning of its files to where they
    make no sense any more.

    All messages of the topic are read, whatever QoS ``metadata.yaml`` and the files state for it. At the end, their
    number is compared with what ``metadata.yaml`` and the files' indexes list; ``damage`` reports a difference.

    Args:
        path: The bag's folder, or one of its ``.mcap`` or ``.db3`` files.
        topic: Which images; empty: those of the only topic that has images.

    Raises:
        RecordingError: It is no bag, or has no such images; the topics that have some are named.
    """

    kind = "bag"

    def __init__(self, path: Path, topic: str = "") -> None:
        self.name = path.stem if path.is_file() else path.resolve().name
        self.damage = ""
        self._types = get_typestore(Stores.LATEST)
        self._converter = make_converter()
        self._path = path
        self._files = storage_files(path)
        self._metadata = read_metadata(path)
        self._has_log = any(map(has_log, self._files))
        self._reader: Reader | None = None
        self._trouble = ""
        unnamed = [] if self._metadata is None else self._metadata.unnamed(self._files)
        try:
            # The library leaves out a log, and files that metadata.yaml does not name.
            if not self._has_log and (not self._files or len(unnamed) < len(self._files)):
                self._reader = _open(path)
        except RecordingError:
            raise
        except Exception as error:  # noqa: BLE001  the libraries below have no common class either
            self._trouble = f"{type(error).__name__}: {error}".rstrip(".")
        if self._reader is not None and unnamed:
            self.damage = _about_unnamed(path, unnamed)
        try:
            topics = self._topics()
            self.topic = _chosen(topic, topics, path)
            self.type_name = topics[self.topic]
            self._listed = self._listed_counts()
        except BaseException:
            self.close()
            raise
        self.image_count: int | None = max(self._listed.values(), default=None)

    def images(self) -> Iterator[BagImage]:
        """Go through the topic's images in the order in which they were recorded."""
        first = last = None
        count = 0
        try:
            for message in self._messages():
                first = message.recorded_ns if first is None else first
                last = message.recorded_ns
                count += 1
                yield BagImage(message, self._types, self._converter)
        except Exception as error:  # noqa: BLE001  a damaged file can cause anything, wherever it is damaged
            seconds = 0.0 if first is None or last is None else (last - first) / NANOSECONDS_PER_SECOND
            reason = self._trouble or f"{type(error).__name__}: {error}".rstrip(".")
            self.damage = (
                f"{self._path} is damaged: read up to image {count}, {seconds:.1f} s after the first one; "
                f"what comes behind it is lost ({reason})"
            )
        else:
            self.damage = "; ".join(filter(None, (self.damage, self._difference(count))))

    def close(self) -> None:
        """Let go of its files; it may be called twice."""
        reader, self._reader = self._reader, None
        if reader is not None and reader.is_open:
            reader.close()

    def _topics(self) -> dict[str, str]:
        """Return the types of all topics by name; a file's own entry goes before that of ``metadata.yaml``."""
        found: dict[str, str] = {}
        if self._reader is not None:
            for one in (*_stored_connections(self._reader), *self._reader.connections):
                found.setdefault(one.topic, one.msgtype)
            return found
        refusal: RecordingError | None = None
        try:
            for message in salvage(self._files):
                found.setdefault(message.topic, message.type_name)
        except RecordingError as error:
            refusal = error
        except Exception:  # noqa: BLE001, S110  the damage is reported when the images are read
            pass
        if not found:
            raise refusal or RecordingError(
                f"{self._path} cannot be read as a ROS 2 bag ({self._trouble}), and nothing in it can be saved: name "
                "the folder that holds metadata.yaml, or a .mcap or .db3 file"
            )
        return found

    def _listed_counts(self) -> dict[str, int]:
        """Return how many messages of the topic there should be, by the place that says so."""
        listed: dict[str, int] = {}
        if self._metadata is not None:
            listed[METADATA_FILE] = self._metadata.message_counts.get(self.topic, 0)
        if self._reader is not None:
            indexed = sum(one.msgcount for one in _stored_connections(self._reader) if one.topic == self.topic)
            if indexed:  # an MCAP file need not count its messages by topic
                listed["the index of its files"] = indexed
        return listed

    def _difference(self, count: int) -> str:
        """Describe how the number of messages read differs from those listed; empty where it does not."""
        # A recorder that was killed has written more to the log than it has listed.
        wrong = {
            source: listed
            for source, listed in self._listed.items()
            if count < listed or (count > listed and not self._has_log)
        }
        if not wrong:
            return ""
        listed = " and ".join(f"{source} lists {number}" for source, number in wrong.items())
        reason = f" ({self._trouble})" if self._trouble else ""
        return (
            f"{self._path}: {count} messages of {self.topic} read, but {listed}{reason}: messages are missing, or the "
            "list is out of date; check the files, then rebuild metadata.yaml with 'ros2 bag reindex'"
        )

    def _messages(self) -> Iterator[Message]:
        if self._reader is None:
            for message in salvage(self._files):
                if (message.topic, message.type_name) == (self.topic, self.type_name):
                    yield message
            return
        # The library joins metadata.yaml with the files by topic, type and QoS: asking for the files' own connections
        # makes every one of them match. An empty list would mean all topics.
        connections = [
            one for one in _stored_connections(self._reader) if (one.topic, one.msgtype) == (self.topic, self.type_name)
        ]
        if not connections:
            return
        for connection, recorded_ns, data in self._reader.messages(connections=connections):
            yield Message(connection.topic, connection.msgtype, recorded_ns, bytes(data))


def _stored_connections(reader: Reader) -> list[Connection]:
    """Return the connections that the storage files themselves state; those of a folder are from ``metadata.yaml``."""
    storages = getattr(reader.storage, "storages", [reader.storage])
    return [connection for storage in storages for connection in storage.connections]


def _about_unnamed(path: Path, files: list[Path]) -> str:
    names = ", ".join(file.name for file in files[:_MOST_FILES_NAMED])
    more = f" and {len(files) - _MOST_FILES_NAMED} more" if len(files) > _MOST_FILES_NAMED else ""
    return (
        f"{path}: {METADATA_FILE} does not name {names}{more}, not read: rebuild {METADATA_FILE} with "
        "'ros2 bag reindex', or remove it to read all files"
    )


def _decompressed(data: bytes) -> bytes:
    """Return a message in CDR; without metadata, the library leaves compressed messages (zstd) as they are."""
    if not data.startswith(_ZSTD_MAGIC):
        return data
    try:
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    except zstandard.ZstdError:
        return data  # damaged: decoding it reports that


def _open(path: Path) -> Reader:
    if path.is_dir() and not storage_files(path):
        raise RecordingError(f"{path} is a folder without .mcap or .db3 files: name a bag's folder")
    reader = Reader(path)
    reader.open()
    return reader


def _chosen(wanted: str, topics: Mapping[str, str], path: Path) -> str:
    images = {topic: kind for topic, kind in topics.items() if kind in IMAGE_TYPES}
    if wanted in images:
        return wanted
    if wanted in topics:
        raise RecordingError(
            f"{path} has no images on topic {wanted}: the topic has type {topics[wanted]}{_remedy(topics[wanted])}"
        )
    if not images:
        listed = ", ".join(f"{topic} ({kind})" for topic, kind in sorted(topics.items())) or "no topics at all"
        raise RecordingError(
            f"{path} has no topic with images ({' or '.join(IMAGE_TYPES)}), but {listed}{_remedy(*topics.values())}"
        )
    listed = ", ".join(f"{topic} ({kind.rpartition('/')[2]})" for topic, kind in sorted(images.items()))
    if wanted:
        raise RecordingError(f"{path} has no images on topic {wanted}; those with images are: {listed}")
    if len(images) > 1:
        raise RecordingError(f"{path} has several topics with images: name one as the topic: {listed}")
    return next(iter(images))


def _remedy(*types: str) -> str:
    """Return the way to a usable bag, for topics of these types."""
    if "sensor_msgs/Image" in types or "sensor_msgs/CompressedImage" in types:  # the names that ROS 1 uses
        return ": messages of ROS 1; convert the original .bag with 'rosbags-convert --src FILE.bag --dst FOLDER'"
    return (
        f": record {' or '.join(IMAGE_TYPES)}; a video stream such as H.264 is first decoded by its "
        "image_transport plugin ('ros2 run image_transport republish')"
    )
