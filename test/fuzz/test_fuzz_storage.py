"""Reading damaged and arbitrary key-frame files returns a usable memory or raises `MemoryFileError`."""

import hashlib
import io
import json
import struct

import numpy as np
import pytest
from fuzzing import check_message, flipped, fuzz
from hypothesis import strategies as st

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from delayed_vlm_ros.errors import MemoryFileError
from delayed_vlm_ros.ingest.geometry import FrameGeometry
from delayed_vlm_ros.memory import Frame, FramePair, KeptPair, SmartFrameManager
from delayed_vlm_ros.ros.input.frame_headers import FrameHeader, TimedPose, header_from_dict, header_to_dict
from delayed_vlm_ros.storage.file_format import (
    MAGIC,
    StoredMemory,
    describe_memory,
    read_memory,
    star_of,
    write_memory,
)


def _memory():
    pairs = []
    for number in range(3):
        frames = [
            Frame(
                np.full((2, 3, 3), number * 2 + half, np.uint8),
                10.0 + number + half / 2,
                1 + number * 2 + half,
                0.5,
                "scene change",
                FrameHeader(10**10 + half, "lens", TimedPose(5, bytes(80)) if number else None),
            )
            for half in (0, 1)
        ]
        pair = FramePair(number + 1, *frames)
        pairs.append(KeptPair(pair, True, False, marked=number == 1, label="keys" if number == 1 else ""))
    return StoredMemory("front", FrameGeometry(), tuple(pairs))


def _written(memory):
    file = io.BytesIO()
    write_memory(file, memory, describe_memory(memory, header_to_dict), interrupted=lambda: False)
    return file.getvalue()


MEMORY = _memory()
CONTENT = _written(MEMORY)
HEADER = json.loads(describe_memory(MEMORY, header_to_dict))
PIXELS = b"".join(frame.image.tobytes() for kept in MEMORY.pairs for frame in kept.pair.present_frames)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(st.characters(), max_size=12)
    | st.sampled_from(["x" * 2000, "AAAA", 2**31, 1e10, "keys"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def read(content):
    """Read a memory, restore it and write it again; return None if the file is rejected."""
    try:
        memory = read_memory(io.BytesIO(content), len(content), header_from_dict)
    except MemoryFileError as error:
        check_message(error)
        return None
    manager = SmartFrameManager(8, 4)
    manager.restore(memory.pairs)
    for kept in manager.snapshot():
        assert kept.pair.first.source.pose is None or kept.pair.first.source.pose.header is not None
    again = StoredMemory(memory.camera, memory.geometry, star_of(manager.snapshot()))
    return read_memory(io.BytesIO(_written(again)), len(_written(again)), header_from_dict)


def paths_in(value, path=()):
    """Yield the path of every value in parsed JSON."""
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from paths_in(child, (*path, key))


PATHS = [path for path in paths_in(HEADER) if path]


@fuzz(
    changes=st.lists(st.tuples(st.integers(0, len(CONTENT) - 1), st.integers(0, 255)), max_size=8),
    length=st.integers(-len(CONTENT), 0),
    more=st.binary(max_size=8),
)
def test_damaged_file_is_rejected(changes, length, more):
    damaged = flipped(CONTENT, changes, length) + more
    assert (read(damaged) is not None) == (damaged == CONTENT)


@fuzz(changes=st.lists(st.tuples(st.sampled_from(PATHS), JSON), min_size=1, max_size=3), missing=st.integers(0, 3))
def test_changed_header_with_a_correct_checksum_is_read_or_rejected(changes, missing):
    # given a header with changed values, and a correct checksum
    header = json.loads(json.dumps(HEADER))
    for path, value in changes:
        parent = header
        try:
            for step in path[:-1]:
                parent = parent[step]
            if missing == 1 and isinstance(parent, dict):
                parent.pop(path[-1], None)
            else:
                parent[path[-1]] = value
        except (TypeError, KeyError, IndexError):
            continue  # removed by an earlier change
    text = json.dumps(header).encode()
    body = struct.pack("<8sIQ", MAGIC, 1, len(text)) + text + PIXELS
    # then
    read(body + hashlib.sha256(body).digest())


@fuzz(
    content=st.binary(max_size=200) | st.binary(max_size=100).map(lambda rest: MAGIC + rest),
    version=st.sampled_from([None, 1]),
    length=st.integers(0, 2**64 - 1) | st.integers(0, 200),
)
def test_arbitrary_bytes_are_rejected(content, version, length):
    if version is not None:
        content = struct.pack("<8sIQ", MAGIC, version, length) + content
    assert read(content) is None


@fuzz(described=JSON | st.fixed_dictionaries({"stamp_ns": JSON, "frame_id": JSON, "pose": JSON}))
def test_arbitrary_source_is_converted_or_rejected(described):
    try:
        header = header_from_dict(described)
    except ValueError:
        return
    assert header_from_dict(json.loads(json.dumps(header_to_dict(header)))) == header
    assert header.pose is None or header.pose.header is not None
