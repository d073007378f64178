"""Key-frame files: round trips, damage and invalid headers."""

import gzip
import hashlib
import io
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from star_memories import content_of, keep_source, star_memory

from delayed_vlm_ros.errors import MemoryFileError
from delayed_vlm_ros.ingest.geometry import FrameGeometry
from delayed_vlm_ros.memory.grid import Grid
from delayed_vlm_ros.storage.file_format import (
    MAGIC,
    StoredMemory,
    byte_count,
    describe_memory,
    read_memory,
    write_memory,
)

FILE_OF_0_1_0 = Path(__file__).with_name("camera_0_1_0.star.gz")


def written(memory):
    file = io.BytesIO()
    write_memory(file, memory, describe_memory(memory, keep_source), interrupted=lambda: False)
    return file.getvalue()


def read(content, revive=keep_source):
    return read_memory(io.BytesIO(content), len(content), revive)


def sealed(header, pixels=b""):
    """Return a file with this header and a correct checksum."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    body = struct.pack("<8sIQ", MAGIC, 1, len(text)) + text + pixels
    return body + hashlib.sha256(body).digest()


@pytest.mark.parametrize("pairs", [0, 1, 3])
@pytest.mark.parametrize("only_size", [None, Grid(112, 140)])
def test_written_memory_is_read_back_unchanged(pairs, only_size):
    memory = StoredMemory("front", FrameGeometry(28, 3136, 200_704, only_size), star_memory(5, pairs=pairs).pairs)
    content = written(memory)
    assert content_of(read(content)) == content_of(memory)
    assert len(content) == byte_count(memory, describe_memory(memory, keep_source))
    assert all(not kept.pair.first.image.flags.writeable for kept in read(content).pairs)


def test_header_keys_match_files_of_earlier_versions():
    (pair, *_) = GOOD["pairs"]
    assert set(GOOD) == {"camera", "geometry", "height", "width", "pairs"}
    assert set(GOOD["geometry"]) == {"factor", "min_pixels", "max_pixels", "only_size"}
    assert set(pair) == {"id", "content_key", "marked", "label", "late_score", "late_reason", "frames"}
    assert set(pair["frames"][0]) == {"stamp", "number", "importance", "reason", "source"}


def test_file_that_version_0_1_0_wrote_is_read():
    # when
    memory = read(gzip.decompress(FILE_OF_0_1_0.read_bytes()))
    # then
    assert (memory.camera, memory.geometry.only_size) == ("camera", Grid(112, 140))
    assert [(kept.id, kept.reason, kept.marked, kept.label) for kept in memory.pairs] == [
        (1, "first frame", True, "my bag"),
        (3, "scene change", False, ""),
        (5, "scene change", False, ""),
    ]
    assert [kept.stamps for kept in memory.pairs] == [(1.7e9 + at, 1.7e9 + at + 0.5) for at in (0.0, 2.0, 4.0)]
    assert {frame.source["frame_id"] for kept in memory.pairs for frame in kept.pair.present_frames} == {"lens"}


def test_stamps_are_read_back_bit_for_bit():
    memory = star_memory(1)
    stamp = read(written(memory)).pairs[0].stamps[1]
    assert stamp == memory.pairs[0].stamps[1]
    assert stamp.hex() == (1000.0 + 0.1 + 1 / 3).hex()


def test_change_of_any_byte_is_detected():
    content = written(star_memory(2, pairs=2, height=1, width=2))
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        # then
        with pytest.raises(MemoryFileError):
            read(bytes(damaged))


def test_shorter_or_longer_file_is_rejected():
    content = written(star_memory(2, pairs=2, height=1, width=2))
    for length in range(len(content)):
        with pytest.raises(MemoryFileError):
            read(content[:length])
    with pytest.raises(MemoryFileError, match=str(len(content) + 1)):
        read(content + b"\0")


def test_unsupported_version_is_rejected():
    content = bytearray(written(star_memory()))
    content[8] = 2
    with pytest.raises(MemoryFileError, match="version 2"):
        read(bytes(content))


@pytest.mark.parametrize("content", [b"", b"DVLM", b"PK\x03\x04" + bytes(100), b"\x80\x04cos\nsystem\n" * 9])
def test_foreign_file_is_rejected(content):
    with pytest.raises(MemoryFileError):
        read(content)


GOOD = json.loads(describe_memory(star_memory(1, pairs=2, height=1, width=2), keep_source))
PIXELS = b"".join(
    frame.image.tobytes()
    for kept in star_memory(1, pairs=2, height=1, width=2).pairs
    for frame in kept.pair.present_frames
)


def changed(path, value):
    header = json.loads(json.dumps(GOOD))
    parent = header
    for step in path[:-1]:
        parent = parent[step]
    parent[path[-1]] = value
    return header


def test_unchanged_header_is_valid():
    assert len(read(sealed(GOOD, PIXELS)).pairs) == 2


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("camera",), 5),
        (("camera",), "../other"[:3] + "\n"),
        (("geometry",), None),
        (("geometry", "factor"), "28"),
        (("geometry", "only_size"), 7),
        (("height",), -1),
        (("height",), True),
        (("height",), 2**70),
        (("height",), 2),
        (("width",), 1.0),
        (("pairs",), {}),
        (("pairs", 0), []),
        (("pairs", 0, "id"), 0),
        (("pairs", 0, "id"), 12),
        (("pairs", 1, "id"), 2**63),
        (("pairs", 0, "content_key"), ""),
        (("pairs", 0, "label"), "two\nlines"),
        (("pairs", 0, "label"), "x" * 65),
        (("pairs", 0, "marked"), 1),
        (("pairs", 0, "marked"), False),
        (("pairs", 0, "frames"), []),
        (("pairs", 0, "frames"), [{}, {}, {}]),
        (("pairs", 0, "frames", 0, "stamp"), float("nan")),
        (("pairs", 0, "frames", 0, "stamp"), 1e300),
        (("pairs", 0, "frames", 0, "stamp"), 5000.0),
        (("pairs", 0, "frames", 0, "number"), 3),
        (("pairs", 0, "frames", 0, "importance"), 1.5),
        (("pairs", 0, "frames", 0, "importance"), 0),
        (("pairs", 0, "frames", 0, "reason"), "x" * 201),
        (("pairs", 0, "frames", 0, "reason"), None),
    ],
)
def test_invalid_header_value_with_a_correct_checksum_is_rejected(path, value):
    with pytest.raises(MemoryFileError):
        read(sealed(changed(path, value), PIXELS))


@pytest.mark.parametrize("header", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"1" * 5000, b'{"pairs": [1]}'])
def test_header_that_is_not_a_json_object_is_rejected(header):
    with pytest.raises(MemoryFileError):
        read(sealed(header, PIXELS))


def test_impossible_image_size_is_rejected_before_allocation():
    with pytest.raises(MemoryFileError, match="expected"):
        read(sealed({**GOOD, "height": 2**31, "width": 2**31}, PIXELS))


def test_unreadable_source_is_reported():
    def refuse(_source):
        raise ValueError("without a time")

    with pytest.raises(MemoryFileError, match="without a time"):
        read(written(star_memory()), refuse)


def test_interrupted_writing_is_reported():
    memory = star_memory()
    with pytest.raises(MemoryFileError):
        write_memory(io.BytesIO(), memory, describe_memory(memory, keep_source), interrupted=lambda: True)


def test_header_differs_for_different_memories():
    headers = {
        describe_memory(memory, keep_source) for memory in (star_memory(1), star_memory(2), star_memory(1, pairs=2))
    }
    assert len(headers) == 3
    assert describe_memory(star_memory(1), keep_source) in headers
    assert np.array_equal(star_memory(1).pairs[0].frames[0], star_memory(1).pairs[0].frames[0])
