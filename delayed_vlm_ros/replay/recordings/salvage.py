"""What can still be read of a bag's files when their index is lost: one message after the other, up to the damage."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from mcap.records import Channel, Schema
from mcap.records import Message as McapMessage
from mcap.stream_reader import StreamReader

from delayed_vlm_ros.errors import RecordingError
from delayed_vlm_ros.replay.recordings.recording import BAG_SUFFIXES


@dataclass(frozen=True)
class Message:
    """A recorded message.

    Attributes:
        topic: Its topic.
        type_name: Its type, such as ``sensor_msgs/msg/Image``.
        recorded_ns: When it was recorded, nanoseconds.
        data: The message in CDR.
    """

    topic: str
    type_name: str
    recorded_ns: int
    data: bytes


def storage_files(path: Path) -> list[Path]:
    """The files of a bag that hold messages, in order; a file is its own."""
    if path.is_file():
        return [path]
    # As rosbag2 numbers them: name_0.mcap, name_1.mcap, …, name_10.mcap.
    return sorted(
        (file for file in path.iterdir() if file.suffix in BAG_SUFFIXES), key=lambda file: (len(file.name), file)
    )


def has_log(file: Path) -> bool:
    """Whether SQLite's log lies beside a file: its recorder was killed, and the newest messages are in that."""
    log = file.with_name(f"{file.name}-wal")
    return log.is_file() and log.stat().st_size > 0


def salvage(files: Sequence[Path]) -> Iterator[Message]:
    """Go through the messages from the beginning, in the order in which they stand in the files.

    Raises:
        RecordingError: A file is compressed as a whole.
        Exception: At the damage, whatever the library below makes of it.
    """
    for file in files:
        if file.suffix == ".zstd":
            raise RecordingError(f"{file} is compressed as a whole: decompress it with 'zstd -d', then name its folder")
        yield from _of_mcap(file) if file.suffix == ".mcap" else _of_sqlite(file)


def _of_mcap(file: Path) -> Iterator[Message]:
    schemas: dict[int, str] = {}
    channels: dict[int, Channel] = {}
    with file.open("rb") as stream:
        for record in StreamReader(stream).records:
            if isinstance(record, Schema):
                schemas[record.id] = record.name
            elif isinstance(record, Channel):
                channels[record.id] = record
            elif isinstance(record, McapMessage):
                channel = channels[record.channel_id]
                yield Message(channel.topic, schemas.get(channel.schema_id, ""), record.log_time, record.data)


def _of_sqlite(file: Path) -> Iterator[Message]:
    # A file that nobody writes may lie on a disk where nothing can be written; a log beside it must be read, too.
    options = "mode=ro" if has_log(file) else "mode=ro&immutable=1"
    with closing(sqlite3.connect(f"{file.resolve().as_uri()}?{options}", uri=True)) as database:
        database.execute("PRAGMA writable_schema = ON")  # else SQLite reads nothing of a file that lacks its end
        topics = {number: (name, kind) for number, name, kind in database.execute("SELECT id, name, type FROM topics")}
        # By row and not by time: an index on time is one more thing that can be damaged.
        for topic, recorded_ns, data in database.execute("SELECT topic_id, timestamp, data FROM messages"):
            yield Message(*topics[topic], recorded_ns, data)
