"""An export as one MCAP file of ROS 2 messages at their stamps, for Foxglove and rosbags."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, fields
from typing import IO, Any

import numpy as np
from mcap.writer import Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from delayed_vlm_ros.export.contents import (
    Evidence,
    ExportCounts,
    ExportedAlert,
    ExportedAnswer,
    ExportedPair,
    JournalLine,
    LeftPair,
    PairImages,
    Pose,
    Records,
)
from delayed_vlm_ros.export.targets import FolderTarget
from delayed_vlm_ros.export.writer import SESSION_FILE, write_export
from delayed_vlm_ros.time import NANOSECONDS_PER_SECOND

METADATA = "delayed_vlm_ros"
"""Name of the metadata record with source, time, limits, counts, ids of missing pairs and warnings."""

TOPIC = "/scene_memory"
"""Prefix of all topics."""

_IMAGE, _POSE = "sensor_msgs/msg/CompressedImage", "geometry_msgs/msg/PoseStamped"
_NOT_IN_TOPICS = re.compile(r"\W+", re.ASCII)
_RECORD_TYPES = {
    ExportedPair: "delayed_vlm_export/msg/Pair",
    ExportedAnswer: "delayed_vlm_export/msg/Answer",
    Evidence: "delayed_vlm_export/msg/Evidence",
    ExportedAlert: "delayed_vlm_export/msg/Alert",
    JournalLine: "delayed_vlm_export/msg/JournalLine",
}
# The fields of the classes in contents.py, with stamps as Time. An unknown relevance is NaN.
_DEFINITIONS = {
    ExportedPair: """
        builtin_interfaces/Time stamp
        builtin_interfaces/Time end_stamp
        uint64 id
        string camera
        float64 importance
        string reason
        bool in_star
        bool in_stream
        bool marked
        string label""",
    Evidence: """
        uint64 pair_id
        builtin_interfaces/Time stamp
        float64 relevance""",
    ExportedAnswer: """
        builtin_interfaces/Time stamp
        string camera
        string question
        string answer
        string error
        uint64[] pair_ids
        delayed_vlm_export/Evidence[] evidence
        string[] warnings""",
    ExportedAlert: """
        builtin_interfaces/Time stamp
        string camera
        string watch
        string question
        bool is_rising
        float64 p_yes
        uint64[] pair_ids""",
    JournalLine: """
        builtin_interfaces/Time stamp
        builtin_interfaces/Time end_stamp
        uint64 id
        string camera
        string caption
        string reason
        string label""",
}


def write_with_session_file(
    records: Records, pairs: Iterable[PairImages | LeftPair], target: FolderTarget
) -> ExportCounts:
    """Write an export as ``write_export`` does, and its MCAP file.

    Raises:
        ExportError: A file cannot be written.
    """
    with target.open(SESSION_FILE) as stream:
        session = SessionFile(stream)
        counts = write_export(records, session.recorded(pairs), target)
        session.finish(records, counts)
    return counts


class SessionFile:
    """Writes an export as an MCAP file. Call ``finish`` at the end; without it, the file has no index.

    Args:
        stream: Where the file goes; need not be seekable.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._types = get_typestore(Stores.ROS2_HUMBLE)
        for kind, definition in _DEFINITIONS.items():
            self._types.register(get_types_from_msg(definition, _RECORD_TYPES[kind]))
        self._writer = Writer(stream)
        self._writer.start(profile="ros2", library="delayed_vlm_ros")
        self._channels: dict[str, int] = {}
        self._schemas: dict[str, int] = {}
        self._left: list[int] = []

    def recorded(self, pairs: Iterable[PairImages | LeftPair]) -> Iterator[PairImages | LeftPair]:
        """Write pairs of frames, and yield each after it is written."""
        for one in pairs:
            if isinstance(one, LeftPair):
                self._left.append(one.id)
            else:
                self._add_pair(one)
            yield one

    def finish(self, records: Records, counts: ExportCounts) -> None:
        """Write answers, alerts and lines of the journal, the counts, and the end of the file."""
        for name, entries in (("answers", records.answers), ("alerts", records.alerts), ("journal", records.lines)):
            for entry in entries:
                self._add_record(f"{TOPIC}/{name}", entry)
        about = {
            "source": records.source,
            "created_ns": records.created_ns,
            "since_ns": records.since_ns,
            "until_ns": records.until_ns,
            "pairs_left_ids": self._left,
            "warnings": records.warnings,
            **asdict(counts),
        }
        self._writer.add_metadata(
            METADATA, {name: _valid(one if isinstance(one, str) else json.dumps(one)) for name, one in about.items()}
        )
        self._writer.finish()  # type: ignore[no-untyped-call]

    def _add_pair(self, one: PairImages) -> None:
        pair = one.pair
        topic = f"{TOPIC}/{_NOT_IN_TOPICS.sub('_', pair.camera)}"
        for stamp_ns, png in ((pair.stamp_ns, one.first), (pair.end_stamp_ns, one.second)):
            if png:
                image = self._new(
                    _IMAGE,
                    header=self._header(stamp_ns, pair.camera),
                    format="png",
                    data=np.frombuffer(png, np.uint8),
                )
                self._add(f"{topic}/kept_images", _IMAGE, stamp_ns, image)
        if pair.pose is not None:
            self._add(f"{topic}/pose", _POSE, pair.stamp_ns, self._pose(pair.stamp_ns, pair.pose))
        self._add_record(f"{TOPIC}/pairs", pair)

    def _add_record(self, topic: str, entry: ExportedPair | ExportedAnswer | ExportedAlert | JournalLine) -> None:
        self._add(topic, _RECORD_TYPES[type(entry)], entry.stamp_ns, self._record(entry))

    def _add(self, topic: str, kind: str, stamp_ns: int, message: Any) -> None:
        if topic not in self._channels:
            self._channels[topic] = self._writer.register_channel(topic, "cdr", self._schema(kind))
        self._writer.add_message(
            self._channels[topic], stamp_ns, bytes(self._types.serialize_cdr(message, kind)), stamp_ns
        )

    def _schema(self, kind: str) -> int:
        if kind not in self._schemas:
            definition, _ = self._types.generate_msgdef(kind, ros_version=2)
            self._schemas[kind] = self._writer.register_schema(kind, "ros2msg", definition.encode())
        return self._schemas[kind]

    def _new(self, kind: str, **values: Any) -> Any:
        return self._types.types[kind](**values)

    def _time(self, stamp_ns: int) -> Any:
        sec, nanosec = divmod(stamp_ns, NANOSECONDS_PER_SECOND)
        return self._new("builtin_interfaces/msg/Time", sec=sec, nanosec=nanosec)

    def _header(self, stamp_ns: int, frame_id: str) -> Any:
        return self._new("std_msgs/msg/Header", stamp=self._time(stamp_ns), frame_id=_valid(frame_id))

    def _pose(self, stamp_ns: int, pose: Pose) -> Any:
        position = dict(zip("xyz", pose.position, strict=True))
        orientation = dict(zip("xyzw", pose.orientation, strict=True))
        return self._new(
            _POSE,
            header=self._header(stamp_ns, pose.frame_id),
            pose=self._new(
                "geometry_msgs/msg/Pose",
                position=self._new("geometry_msgs/msg/Point", **position),
                orientation=self._new("geometry_msgs/msg/Quaternion", **orientation),
            ),
        )

    def _record(self, entry: Any) -> Any:
        """Return the message of an entry: the same fields, without its pose."""
        names = (field.name for field in fields(entry) if field.name != "pose")
        values = {name.removesuffix("_ns"): self._value(name, getattr(entry, name)) for name in names}
        return self._new(_RECORD_TYPES[type(entry)], **values)

    def _value(self, name: str, value: Any) -> Any:
        if name.endswith("_ns"):
            return self._time(value)
        if name == "pair_ids":
            return np.array(value, np.uint64)
        if name == "evidence":
            return [self._record(one) for one in value]
        if name == "warnings":
            return [_valid(one) for one in value]
        if name == "relevance" and value is None:
            return float("nan")
        return _valid(value) if isinstance(value, str) else value


def _valid(text: str) -> str:
    """Return a text as valid Unicode."""
    return text.encode("utf-8", "replace").decode()
