"""A memory in bytes: what comes back is what was written, or a sentence."""

import hashlib
import io
import json
import struct

import numpy as np
import pytest
from star_memories import as_it_is, looks, star_memory

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


def written(memory):
    file = io.BytesIO()
    write_memory(file, memory, describe_memory(memory, as_it_is), interrupted=lambda: False)
    return file.getvalue()


def read(content, revive=as_it_is):
    return read_memory(io.BytesIO(content), len(content), revive)


def sealed(header, pixels=b""):
    """A file with a right checksum, whatever it says."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    body = struct.pack("<8sIQ", MAGIC, 1, len(text)) + text + pixels
    return body + hashlib.sha256(body).digest()


@pytest.mark.parametrize("pairs", [0, 1, 3])
@pytest.mark.parametrize("only_size", [None, Grid(112, 140)])
def test_what_is_read_is_what_was_written(pairs, only_size):
    memory = StoredMemory("front", FrameGeometry(28, 3136, 200_704, only_size), star_memory(5, pairs=pairs).pairs)
    content = written(memory)
    assert looks(read(content)) == looks(memory)
    assert len(content) == byte_count(memory, describe_memory(memory, as_it_is))
    assert all(not kept.pair.first.image.flags.writeable for kept in read(content).pairs)


def test_stamps_come_back_to_the_last_bit():
    memory = star_memory(1)
    stamp = read(written(memory)).pairs[0].stamps[1]
    assert stamp == memory.pairs[0].stamps[1]
    assert stamp.hex() == (1000.0 + 0.1 + 1 / 3).hex()


def test_every_byte_is_under_guard():
    # given each byte of a file, changed
    content = written(star_memory(2, pairs=2, height=1, width=2))
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        # then
        with pytest.raises(MemoryFileError):
            read(bytes(damaged))


def test_every_shorter_or_longer_file_is_refused():
    content = written(star_memory(2, pairs=2, height=1, width=2))
    for length in range(len(content)):
        with pytest.raises(MemoryFileError):
            read(content[:length])
    with pytest.raises(MemoryFileError, match="it has"):
        read(content + b"\0")


def test_another_version_is_told():
    content = bytearray(written(star_memory()))
    content[8] = 2
    with pytest.raises(MemoryFileError, match="version 2 of the format"):
        read(bytes(content))


@pytest.mark.parametrize("content", [b"", b"DVLM", b"PK\x03\x04" + bytes(100), b"\x80\x04cos\nsystem\n" * 9])
def test_a_foreign_file_is_no_memory(content):
    with pytest.raises(MemoryFileError, match="is no file of key frames"):
        read(content)


GOOD = json.loads(describe_memory(star_memory(1, pairs=2, height=1, width=2), as_it_is))
PIXELS = b"".join(
    frame.image.tobytes()
    for kept in star_memory(1, pairs=2, height=1, width=2).pairs
    for frame in kept.pair.present_frames
)


def changed(path, value):
    header = json.loads(json.dumps(GOOD))
    place = header
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return header


def test_the_header_that_the_next_test_changes_is_good():
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
def test_a_header_that_makes_no_sense_is_refused_even_with_a_right_checksum(path, value):
    with pytest.raises(MemoryFileError):
        read(sealed(changed(path, value), PIXELS))


@pytest.mark.parametrize("header", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"1" * 5000, b'{"pairs": [1]}'])
def test_no_header_at_all_is_refused(header):
    with pytest.raises(MemoryFileError):
        read(sealed(header, PIXELS))


def test_a_size_that_no_machine_has_is_refused_before_memory_is_asked_for():
    with pytest.raises(MemoryFileError, match="by its header"):
        read(sealed({**GOOD, "height": 2**31, "width": 2**31}, PIXELS))


def test_a_source_that_cannot_be_revived_is_told():
    def refuse(_source):
        raise ValueError("without a time")

    with pytest.raises(MemoryFileError, match="a frame's source is without a time"):
        read(written(star_memory()), refuse)


def test_writing_that_is_interrupted_says_so():
    memory = star_memory()
    with pytest.raises(MemoryFileError, match="no time was left"):
        write_memory(io.BytesIO(), memory, describe_memory(memory, as_it_is), interrupted=lambda: True)


def test_the_header_changes_with_all_that_people_see():
    headers = {
        describe_memory(memory, as_it_is) for memory in (star_memory(1), star_memory(2), star_memory(1, pairs=2))
    }
    assert len(headers) == 3
    assert describe_memory(star_memory(1), as_it_is) in headers
    assert np.array_equal(star_memory(1).pairs[0].frames[0], star_memory(1).pairs[0].frames[0])
