"""Small files that decode to large images or take very long to decode."""

import struct
import zlib

import cv2
import numpy as np

NO_LENGTH = {"tem": b"\xff\x01", "rst": b"\xff\xd0", "rst7": b"\xff\xd7", "zero": b"\xff\x00"}
"""Bytes in a JPEG's header that look like a marker and are not followed by a length."""

_FRAMES = (0xC0, 0xC1, 0xC2)
_SMALL_FRAME = b"\xff\xc0" + struct.pack(">HBHH", 17, 8, 48, 64) + b"\x03\x01\x11\x00\x02\x11\x00\x03\x11\x00"


def jpeg_claiming(height, width, *, grey=False, progressive=False):
    """Return a JPEG of 16 × 16 pixels that states another size."""
    image = np.full((16, 16) if grey else (16, 16, 3), 128, np.uint8)
    options = [cv2.IMWRITE_JPEG_QUALITY, 50, cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive)]
    file = bytearray(cv2.imencode(".jpg", image, options)[1].tobytes())
    position = 2
    while file[position + 1] not in _FRAMES:
        position += 2 + int.from_bytes(file[position + 2 : position + 4], "big")
    file[position + 5 : position + 9] = struct.pack(">HH", height, width)
    return bytes(file)


def jpeg_with_two_sizes(height, width, trick, *, padded, **kind):
    """Return a JPEG of a size that a parser which expects a length after every marker reads as 64 × 48.

    Args:
        height: Real height.
        width: Real width.
        trick: Key of ``NO_LENGTH``.
        padded: Whether the "length" after the marker is part of the next segment, so that the file has no surplus
            bytes. The decoder does not warn of such a file.
        kind: As for ``jpeg_claiming``.
    """
    body = jpeg_claiming(height, width, **kind)[2:]
    start = b"\xff\xd8" + NO_LENGTH[trick]
    if not padded:
        return start + struct.pack(">H", 2 + len(body)) + body + _SMALL_FRAME
    file = start + body
    return file.ljust(len(start) + int.from_bytes(body[:2], "big"), b"\0") + _SMALL_FRAME


def jpeg_with_scans(height, width, scans):
    """Return a valid progressive grey JPEG whose scans add nothing to its first one."""
    blocks = -(-height // 8) * -(-width // 8)
    tables = _segment(0xC4, b"\x00\x01" + bytes(16)) + _segment(0xC4, b"\x10\x01" + bytes(15) + b"\xe0")
    frame = struct.pack(">BHHB", 8, height, width, 1) + b"\x01\x11\0"
    file = b"\xff\xd8" + _segment(0xDB, b"\0" + b"\1" * 64) + _segment(0xC2, frame) + tables
    file += _segment(0xDA, b"\x01\x01" + bytes(4)) + bytes(-(-blocks // 8))
    runs = _bits(
        "".join("0" + format(min(max(left, 16384), 32767) - 16384, "014b") for left in range(blocks, 0, -32767))
    )
    steps = [(band, low) for band in range(1, 64) for low in range(13, -1, -1)][: scans - 1]
    for band, low in steps:
        precision = (0 if low == 13 else low + 1) << 4 | low
        file += _segment(0xDA, b"\x01\x01\0" + bytes((band, band, precision))) + runs
    return file + b"\xff\xd9"


def _segment(marker, content):
    return bytes((0xFF, marker)) + struct.pack(">H", 2 + len(content)) + content


def _bits(text):
    text += "1" * (-len(text) % 8)
    return bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8)).replace(b"\xff", b"\xff\0")


def png(height, width, *before, pixels=None, after=()):
    """Return a black RGB PNG.

    Args:
        height: Stated height.
        width: Stated width.
        before: Further chunks before the pixels.
        pixels: Compressed pixel data instead of that of the stated size.
        after: Further chunks after the pixels.
    """
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    data = zlib.compress(bytes(height * (1 + 3 * width))) if pixels is None else pixels
    end = chunk(b"IEND", b"")
    return b"".join((b"\x89PNG\r\n\x1a\n", header, *before, chunk(b"IDAT", data), *after, end))


def chunk(kind, content):
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def tiff(height, width, *, tags):
    """Return a grey TIFF whose pixels are all 0, compressed by deflate.

    Args:
        height: Height.
        width: Width.
        tags: Further tags and their values, such as the size of tiles; ``"offset"`` and ``"length"`` are those of
            the pixel data.
    """
    known = {256: width, 257: height, 258: 8, 259: 8, 262: 1, 277: 1, **tags}
    rows, columns = tags.get(323, tags.get(278, height)), tags.get(322, width)
    pixels = zlib.compress(bytes(min(rows * columns, 10_000_000)))
    values = {"offset": 14 + 12 * len(known), "length": len(pixels)}
    entries = b"".join(
        struct.pack("<HHII", tag, 4, 1, values.get(value, value)) for tag, value in sorted(known.items())
    )
    return struct.pack("<2sHIH", b"II", 42, 8, len(known)) + entries + bytes(4) + pixels


def animated_webp(height, width):
    """Return an animated WebP whose only frame of 64 × 48 pixels is on a larger canvas."""
    frame = cv2.imencode(".webp", np.zeros((48, 64, 3), np.uint8))[1].tobytes()[12:]
    canvas = bytes((2, 0, 0, 0)) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    shown = bytes(6) + (63).to_bytes(3, "little") + (47).to_bytes(3, "little") + bytes(4) + frame
    parts = b"".join(
        name + struct.pack("<I", len(content)) + content
        for name, content in ((b"VP8X", canvas), (b"ANIM", bytes(6)), (b"ANMF", shown))
    )
    return b"RIFF" + struct.pack("<I", 4 + len(parts)) + b"WEBP" + parts


def interlaced_png(height, width):
    """Return a black grey PNG in seven passes."""
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    sizes = [(len(range(top, height, down)), len(range(left, width, right))) for top, left, down, right in passes]
    pixels = zlib.compress(b"".join(bytes(rows * (1 + columns)) for rows, columns in sizes if rows and columns))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 1))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
