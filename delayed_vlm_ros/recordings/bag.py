"""The pictures of one topic of a ROS 2 bag, read with ``rosbags``, without ROS."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore

from delayed_vlm_ros.errors import PictureError, RecordingError
from delayed_vlm_ros.pictures.conversion import PictureConverter, make_converter
from delayed_vlm_ros.recordings.recording import COMPRESSED_TYPE, RAW_TYPE, Recording
from delayed_vlm_ros.recordings.salvage import Message, has_log, salvage, storage_files
from delayed_vlm_ros.stamps import NANOSECONDS_PER_SECOND, read_stamp

IMAGE_TYPES = (RAW_TYPE, COMPRESSED_TYPE)


class BagPicture:
    """One image message, still serialised; see ``RecordedPicture``."""

    def __init__(self, message: Message, types: Any, converter: PictureConverter) -> None:
        self._message = message
        self._types = types
        self._converter = converter

    @property
    def serialised(self) -> bytes:
        """The message in CDR."""
        return self._message.data

    @property
    def stamp_ns(self) -> int:
        """As its header says."""
        return read_stamp(self._message.data)

    @property
    def arrival_ns(self) -> int:
        """When the recorder got it."""
        return self._message.recorded_ns

    def decode(self) -> NDArray[np.uint8]:
        """As the node would."""
        try:
            message = self._types.deserialize_cdr(self._message.data, self._message.type_name)
        except Exception as error:  # the library has no common class for what a damaged message can cause
            raise PictureError(
                f"an image message of {len(self._message.data)} bytes cannot be read "
                f"({type(error).__name__}: {error}): the recording is damaged there, or its publisher was"
            ) from error
        return self._converter.convert(message)


class BagRecording(Recording):
    """See ``Recording``; opened on construction.

    A bag that was cut short, or has lost its ``metadata.yaml``, is read from the beginning of its files to where they
    make no sense any more.

    Args:
        path: The bag's folder, or one of its ``.mcap`` or ``.db3`` files.
        topic: Which pictures; empty: those of the only topic that has pictures.

    Raises:
        RecordingError: It is no bag, or has no such pictures; the topics that have some are named.
    """

    kind = "bag"

    def __init__(self, path: Path, topic: str = "") -> None:
        self.name = path.stem if path.is_file() else path.resolve().name
        self.damage = ""
        self.picture_count: int | None = None
        self._types = get_typestore(Stores.LATEST)
        self._converter = make_converter()
        self._path = path
        self._reader: Reader | None = None
        self._trouble = ""
        try:
            if not any(map(has_log, storage_files(path))):  # which the library would leave out
                self._reader = _open(path)
        except RecordingError:
            raise
        except Exception as error:  # noqa: BLE001  the libraries below have no common class either
            self._trouble = f"{type(error).__name__}: {error}".rstrip(".")
        try:
            topics = self._topics()
            self.topic = _chosen(topic, topics, path)
            if self._reader is not None:
                self.picture_count = self._reader.topics[self.topic].msgcount
        except BaseException:
            self.close()
            raise
        self.type_name = topics[self.topic]

    def pictures(self) -> Iterator[BagPicture]:
        """Go through the topic's pictures in the order in which they were recorded."""
        first = last = None
        count = 0
        try:
            for message in self._messages():
                first = message.recorded_ns if first is None else first
                last = message.recorded_ns
                count += 1
                yield BagPicture(message, self._types, self._converter)
        except Exception as error:  # noqa: BLE001  a damaged file can cause anything, wherever it is damaged
            seconds = 0.0 if first is None or last is None else (last - first) / NANOSECONDS_PER_SECOND
            reason = self._trouble or f"{type(error).__name__}: {error}".rstrip(".")
            self.damage = (
                f"{self._path} is damaged: read up to picture {count}, {seconds:.1f} s after the first one; "
                f"what comes behind it is lost ({reason})"
            )

    def close(self) -> None:
        """Let go of its files; it may be called twice."""
        reader, self._reader = self._reader, None
        if reader is not None and reader.is_open:
            reader.close()

    def _topics(self) -> dict[str, str]:
        """Types of the topics with pictures, by name."""
        if self._reader is not None:
            return {one.topic: one.msgtype for one in self._reader.connections if one.msgtype in IMAGE_TYPES}
        found: dict[str, str] = {}
        with suppress(Exception):  # the damage is told when the pictures are read
            for message in salvage(storage_files(self._path)):
                found.setdefault(message.topic, message.type_name)
        if not found:
            raise RecordingError(
                f"{self._path} cannot be read as a ROS 2 bag ({self._trouble}), and nothing in it can be saved: name "
                "the folder that holds metadata.yaml, or a .mcap or .db3 file"
            )
        return {topic: kind for topic, kind in found.items() if kind in IMAGE_TYPES}

    def _messages(self) -> Iterator[Message]:
        if self._reader is None:
            for message in salvage(storage_files(self._path)):
                if message.topic == self.topic:
                    yield message
            return
        connections = [one for one in self._reader.connections if one.topic == self.topic]
        for connection, recorded_ns, data in self._reader.messages(connections=connections):
            yield Message(connection.topic, connection.msgtype, recorded_ns, bytes(data))


def _open(path: Path) -> Reader:
    if path.is_dir() and not storage_files(path):
        raise RecordingError(f"{path} is a folder without .mcap or .db3 files: name a bag's folder")
    reader = Reader(path)
    reader.open()
    return reader


def _chosen(wanted: str, topics: dict[str, str], path: Path) -> str:
    if wanted in topics:
        return wanted
    listed = ", ".join(f"{topic} ({kind.rpartition('/')[2]})" for topic, kind in sorted(topics.items()))
    if not topics:
        raise RecordingError(f"{path} has no topic with pictures ({' or '.join(IMAGE_TYPES)}): record the camera, too")
    if wanted:
        raise RecordingError(f"{path} has no pictures on topic {wanted}; those with pictures are: {listed}")
    if len(topics) > 1:
        raise RecordingError(f"{path} has several topics with pictures: name one as the topic: {listed}")
    return next(iter(topics))
