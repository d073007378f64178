"""Check PNG data before it is decoded, and leave out what the image does not need."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence

from delayed_vlm_ros.errors import ImageError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# The format fixes the place and the length of the first chunk.
_HEADER = struct.Struct(">8s8sIIBB")
_HEADER_CHUNK = b"\0\0\0\rIHDR"
_CHUNK = struct.Struct(">I4s")
_CHECKSUM_BYTES = 4
_NEEDED = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"))
_SINGLE = (b"PLTE", b"tRNS")  # the decoder prints a line for each further one
_MAX_CHUNKS = 100_000  # 100 megapixels of 16 bits in blocks of 8 KiB
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
_MAX_RATIO = 1032  # of deflate
_PIECE_BYTES = 65_536  # compressed; limits the memory of a check


def is_png(data: bytes) -> bool:
    """Return whether data starts as a PNG file does."""
    return data.startswith(_SIGNATURE)


def png_size(data: bytes) -> tuple[int, int] | None:
    """Return (height, width) from a PNG's header; None if the header is truncated or damaged."""
    if len(data) < _HEADER.size:
        return None
    _, chunk, width, height, _, _ = _HEADER.unpack_from(data)
    return (height, width) if chunk == _HEADER_CHUNK else None


def needed_chunks(data: bytes, name: str) -> bytes:
    """Return the file without the chunks that its image does not need, such as text and colour profiles.

    A decoder decompresses them, too: a text of a few kilobytes can take a second. The same applies to pixel data
    after the last row.

    Args:
        data: The file. Validate its size first.
        name: Name of the file, for error messages.

    Raises:
        ImageError: The file is truncated or damaged, has too many chunks, more pixel data than its size needs, or data
            after its pixels.
    """
    needed: list[tuple[bytes, memoryview]] = []  # the others are not kept: many objects slow garbage collection
    is_complete = True
    try:
        for kind, chunk in _chunks(data):
            if kind in _NEEDED:
                needed.append((kind, chunk))
            else:
                is_complete = False
        _check_kinds([kind for kind, _ in needed])
        _check_pixel_data(data, [chunk[8:-_CHECKSUM_BYTES] for kind, chunk in needed if kind == b"IDAT"])
    except (ValueError, struct.error, zlib.error) as error:
        raise ImageError(
            f"cannot decode {name}, {len(data)} bytes ({error}): the PNG is truncated or damaged; check the camera "
            "driver and the network"
        ) from error
    return data if is_complete else b"".join((_SIGNATURE, *(chunk for _, chunk in needed)))


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Yield type and content of each chunk up to the last one, with its length, type and checksum."""
    view, position = memoryview(data), len(_SIGNATURE)
    for _ in range(_MAX_CHUNKS):
        length, kind = _CHUNK.unpack_from(data, position)
        end = position + _CHUNK.size + length + _CHECKSUM_BYTES
        if end > len(data):
            raise ValueError("its last chunk is incomplete")
        yield kind, view[position:end]
        if kind == b"IEND":
            return
        position = end
    raise ValueError(f"it has more than {_MAX_CHUNKS} chunks")


def _check_kinds(kinds: Sequence[bytes]) -> None:
    if any(kinds.count(kind) > 1 for kind in _SINGLE):
        raise ValueError("it has more than one PLTE or tRNS chunk")


def _check_pixel_data(data: bytes, parts: Sequence[memoryview]) -> None:
    """Decompress pixel data without keeping it; raise ``ValueError`` if there is more than the image needs."""
    remaining = _max_pixel_bytes(data)
    if _MAX_RATIO * sum(map(len, parts)) <= remaining:
        return
    stream = zlib.decompressobj()
    for part in parts:
        for start in range(0, len(part), _PIECE_BYTES):
            remaining -= len(stream.decompress(part[start : start + _PIECE_BYTES], remaining + 1))
            if remaining < 0:
                raise ValueError("it has more pixel data than its size needs")
            if stream.unused_data:  # each further piece would copy all of it
                raise ValueError("it has data after its pixels")


def _max_pixel_bytes(data: bytes) -> int:
    """Return an upper bound of the decompressed pixel data: rows with their filter bytes, in seven passes at most."""
    width, height, depth, colour = map(int, _HEADER.unpack_from(data)[2:])
    row_bytes = 1 + (width * depth * _CHANNELS.get(colour, 1) + 7) // 8
    return 2 * (row_bytes + 8) * (height + 8)
