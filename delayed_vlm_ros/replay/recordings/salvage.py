"""Reads the messages of a bag without its index, one after the other, up to the first damage."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import zstandard
from mcap.records import Channel, Schema
from mcap.records import Message as McapMessage
from mcap.stream_reader import StreamReader

from delayed_vlm_ros.errors import RecordingError
from delayed_vlm_ros.replay.recordings.recording import BAG_SUFFIXES, ZSTD_SUFFIX


@dataclass(frozen=True)
class Message:
    """A recorded message.

    Attributes:
        topic: Topic name.
        type_name: Message type, such as ``sensor_msgs/msg/Image``.
        recorded_ns: Recording time in nanoseconds.
        data: The message in CDR.
    """

    topic: str
    type_name: str
    recorded_ns: int
    data: bytes


def storage_files(path: Path) -> list[Path]:
    """Return the files of a bag that hold messages, in recorded order; a single file is returned as it is."""
    if path.is_file():
        return [path]
    # rosbag2 numbers files without padding: name_0.mcap, name_1.mcap, …, name_10.mcap.
    return sorted(
        (file for file in path.iterdir() if file.suffix in BAG_SUFFIXES), key=lambda file: (len(file.name), file)
    )


def has_write_ahead_log(file: Path) -> bool:
    """Return whether a SQLite file has a write-ahead log with the newest messages of a killed recorder."""
    log = file.with_name(f"{file.name}-wal")
    return log.is_file() and log.stat().st_size > 0


def decompress_files(files: Sequence[Path], folder: Path) -> list[Path]:
    """Decompress the files that the recorder has compressed as a whole.

    Args:
        files: Files of a bag.
        folder: Folder for the decompressed files.

    Returns:
        The files, with the decompressed ones in place of the compressed ones.

    Raises:
        RecordingError: A file cannot be decompressed, or the folder has too little space.
    """
    return [_decompressed(file, folder) if file.suffix == ZSTD_SUFFIX else file for file in files]


def _decompressed(file: Path, folder: Path) -> Path:
    plain = folder / file.stem
    try:
        with file.open("rb") as source, plain.open("wb") as target:
            zstandard.ZstdDecompressor().copy_stream(source, target)
    except zstandard.ZstdError as error:
        raise RecordingError(f"cannot decompress {file} ({error}): the file is damaged; copy it again") from error
    except OSError as error:
        raise RecordingError(
            f"cannot decompress {file} to {folder} ({error.strerror}): free disk space or set TMPDIR, or decompress it "
            "with 'zstd -d'"
        ) from error
    return plain


def salvage(files: Sequence[Path]) -> Iterator[Message]:
    """Yield the messages in the order in which they are stored.

    Raises:
        Exception: The file is damaged; the class depends on the library that reads it.
    """
    for file in files:
        yield from _mcap_messages(file) if file.suffix == ".mcap" else _sqlite_messages(file)


def _mcap_messages(file: Path) -> Iterator[Message]:
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


def _sqlite_messages(file: Path) -> Iterator[Message]:
    # Immutable mode also reads from read-only disks, but ignores a write-ahead log.
    options = "mode=ro" if has_write_ahead_log(file) else "mode=ro&immutable=1"
    with closing(sqlite3.connect(f"{file.resolve().as_uri()}?{options}", uri=True)) as database:
        database.execute("PRAGMA writable_schema = ON")  # otherwise SQLite rejects a truncated file as a whole
        topics = {number: (name, kind) for number, name, kind in database.execute("SELECT id, name, type FROM topics")}
        # Read in row order: the index on time may be damaged as well.
        for topic, recorded_ns, data in database.execute("SELECT topic_id, timestamp, data FROM messages"):
            yield Message(*topics[topic], recorded_ns, data)
