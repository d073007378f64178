"""Decode JPEG data and detect damage.

JPEG has no checksum. Two checks find most damage: the decoder's own warnings, and block means that no encoder writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import cast

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from delayed_vlm_ros.errors import ImageError

_SIGNATURE = b"\xff\xd8"
_END = b"\xff\xd9"
# The marker of a segment, as the decoder finds it: FF may be repeated; FF 00, FF 01 and FF D0 to FF D7 have no segment.
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd7\xff])")
_MAX_SEGMENTS = 2000  # a large colour profile takes 255 segments
_MAX_SCANS = 32  # a progressive file has about ten, and each one takes time in proportion to the image's size
_MAX_TABLE_BYTES = 100_000  # a file needs a few hundred bytes a scan
_MAX_EXTRA_BYTES = 16  # many webcams leave a few bytes before a marker; the image is intact
_EXTRA_BYTES = re.compile(r"(\d+) extraneous bytes")
_EXTRA_AT_END = re.compile(r"(\d+) extraneous bytes before marker 0xd9")
# Warnings of libjpeg about data that is not needed to decode the image.
_HARMLESS = re.compile("unknown JFIF revision|bad ICC marker|Unknown Adobe color transform|Invalid SOS parameters")
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SEQUENTIAL_MARKERS = (0xC0, 0xC1)
_TABLES_MARKER, _CODES_MARKER, _SCAN_MARKER = 0xDB, 0xC4, 0xDA
_ADOBE_MARKER = 0xEE
_METADATA_MARKERS = frozenset((*range(0xE0, 0xF0), 0xFE)) - {_ADOBE_MARKER}  # application segments and comments
_ADOBE_TRANSFORM = 15  # index of the colour transform in an Adobe segment, which has 16 bytes; 2 is the largest one
_SEQUENTIAL_PARAMETERS = b"\x00\x3f\x00"  # all coefficients, full precision
_BLOCK_SIDE = 8
_MID_GREY, _WHITE = 128, 255
_LUMA_COLOURS = ("Gray", "YCbCr")


def is_jpeg(data: bytes) -> bool:
    """Return whether data starts as a JPEG file does."""
    return data.startswith(_SIGNATURE)


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Return (height, width) as the decoder reads them; None if it cannot read the header."""
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data, strict=False)
    except (KeyError, ValueError):  # KeyError: simplejpeg knows no name for the colours
        return None
    return height, width


def decode_jpeg(data: bytes, name: str = "the image") -> NDArray[np.uint8]:
    """Decode a JPEG file.

    A missing end marker, padding after it, missing Huffman tables (Motion JPEG), up to 16 surplus bytes before a
    marker, and unusual metadata are accepted, because intact images of many cameras have them.

    Args:
        data: The file. Validate its size first.
        name: Name of the file, for error messages.

    Returns:
        uint8 of shape (height, width), or (height, width, 3) with RGB for a colour file.

    Raises:
        ImageError: The data is truncated, damaged, or of an unsupported kind, or would take very long to decode.
    """
    complete = _with_end(data)
    try:
        _check_segments(complete)
        colours = simplejpeg.decode_jpeg_header(complete, strict=False)[2]
        image, complete = _decode(complete, "GRAY" if colours == "Gray" else "RGB")
        is_damaged = colours in _LUMA_COLOURS and _has_impossible_block(complete)
    except KeyError as error:  # simplejpeg knows no name for the colours
        raise _error(name, data, "the header ends before the image") from error
    except ValueError as error:
        raise _error(name, data, str(error)) from error
    if is_damaged:
        raise _error(name, data, "blocks darker than black or brighter than white")
    return image[..., 0] if colours == "Gray" else image


def _check_segments(data: bytes) -> None:
    """Raise ``ValueError`` for a file whose segments alone keep the decoder busy for seconds."""
    scans = table_bytes = 0
    for number, (kind, start, end) in enumerate(_segments(data), start=1):
        scans += kind == _SCAN_MARKER
        table_bytes += end - start if kind in (_TABLES_MARKER, _CODES_MARKER) else 0
        if scans > _MAX_SCANS or number > _MAX_SEGMENTS or table_bytes > _MAX_TABLE_BYTES:
            raise ValueError(
                f"more than {_MAX_SCANS} scans, {_MAX_SEGMENTS} segments or {_MAX_TABLE_BYTES} bytes of tables"
            )


def _segments(data: bytes | bytearray) -> Iterator[tuple[int, int, int]]:
    """Yield marker, start and end of each segment before the end marker, as the decoder finds them."""
    position = len(_SIGNATURE)
    while (found := _MARKER.search(data, position)) and found[0] != _END:
        position = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
        yield found[1][0], found.start(), position


def _error(name: str, data: bytes, fault: str) -> ImageError:
    if fault.startswith("Unsupported") and "marker" not in fault:
        remedy = "configure the driver to publish 8-bit grey or YCbCr JPEG"
    else:
        remedy = "the JPEG is truncated or damaged; check the camera's cable and the network"
    return ImageError(f"cannot decode {name}, {len(data)} bytes ({fault}): {remedy}")


def _with_end(data: bytes) -> bytes:
    """Return the data with an end marker, which some cameras omit or pad with zeros."""
    if data.find(_END, len(data) // 2) >= 0:
        return data
    content = data.rstrip(b"\0")
    if content.endswith(b"\xff"):  # the zero after it belongs to the image
        content += b"\0"
    return content + _END


def _decode(data: bytes, colours: str) -> tuple[NDArray[np.uint8], bytes]:
    """Return the image and the data that it was decoded from; a harmless warning is a reason to simplify the header."""
    try:
        return _decode_strictly(data, colours), data
    except ValueError as error:
        if not (_has_few_extra_bytes(error) or _HARMLESS.search(str(error))):
            raise
    plain = _with_plain_header(data)
    try:
        return _decode_strictly(plain, colours), plain
    except ValueError as error:
        if not _has_few_extra_bytes(error):
            raise
        if extra := _EXTRA_AT_END.search(str(error)):  # without them, the decoder finds missing data before them
            end = plain.index(_END, max(end for _, _, end in _segments(plain)))
            plain = plain[: end - int(extra[1])] + plain[end:]
            return _decode_strictly(plain, colours), plain
    # The bytes are before a marker inside the image's data.
    return cast("NDArray[np.uint8]", simplejpeg.decode_jpeg(plain, colours, strict=False)), plain


def _decode_strictly(data: bytes, colours: str) -> NDArray[np.uint8]:
    return cast("NDArray[np.uint8]", simplejpeg.decode_jpeg(data, colours, strict=True))


def _has_few_extra_bytes(error: ValueError) -> bool:
    extra = _EXTRA_BYTES.search(str(error))
    return extra is not None and int(extra[1]) <= _MAX_EXTRA_BYTES


def _with_plain_header(data: bytes) -> bytes:
    """Return the file without metadata and without surplus bytes between the segments of its header.

    The decoder stops at its first warning. Without the cause of a harmless one, it finds damage after it.
    """
    kept, is_sequential = [data[:2]], False
    for kind, start, end in _segments(data):
        segment = data[start:end]
        if kind == _SCAN_MARKER:
            scan = segment[:-3] + _SEQUENTIAL_PARAMETERS if is_sequential else segment
            return _same_size(data, b"".join((*kept, scan, data[end:])))
        is_sequential |= kind in _SEQUENTIAL_MARKERS
        if kind not in _METADATA_MARKERS and not _has_unknown_transform(segment):
            kept.append(segment)
    return data


def _same_size(data: bytes, changed: bytes) -> bytes:
    """Return changed data; raise ``ValueError`` if the decoder reads another size in it."""
    if jpeg_size(changed) != jpeg_size(data):
        raise ValueError("the header has contradictory segments")
    return changed


def _has_unknown_transform(segment: bytes) -> bool:
    """Return whether this is an Adobe segment with a colour transform that the decoder does not know."""
    return segment[1] == _ADOBE_MARKER and segment[_ADOBE_TRANSFORM : _ADOBE_TRANSFORM + 1] > b"\x02"


def _has_impossible_block(data: bytes) -> bool:
    """Return whether the mean brightness of a block is outside 0..255, which no encoder writes.

    Lost or changed bytes shift the brightness of all later blocks. Decoding clips it. With the smallest step of
    quantisation in the file's header, the same data decodes to means around mid-grey, without clipping.
    """
    unclipped = bytearray(data)
    step = _replace_mean_step(unclipped)
    # The minimum sizes make min_factor effective.
    thumbnail = simplejpeg.decode_jpeg(
        _same_size(data, bytes(unclipped)), "GRAY", min_height=1, min_width=1, min_factor=_BLOCK_SIDE, strict=False
    )
    tolerance = step + 1  # rounding by the encoder and by the thumbnail
    darkest, brightest = (_MID_GREY + (int(mean) - _MID_GREY) * step for mean in (thumbnail.min(), thumbnail.max()))
    return darkest < -tolerance or brightest > _WHITE + tolerance


def _replace_mean_step(data: bytearray) -> int:
    """Set the quantisation step of the blocks' mean brightness to 1; return the former one."""
    tables: dict[int, tuple[int, int]] = {}
    luma_table = 0
    for kind, start, end in _segments(data):
        if kind == _SCAN_MARKER:
            break
        if kind in _FRAME_MARKERS:
            luma_table = data[start + 12]
        elif kind == _TABLES_MARKER:
            tables |= _mean_steps(data, start + 4, end)
    first, last = tables.get(luma_table, (0, 0))
    if not last:
        return 1
    step = int.from_bytes(data[first:last], "big")
    data[first:last] = (1).to_bytes(last - first, "big")
    return step


def _mean_steps(data: bytearray, position: int, end: int) -> dict[int, tuple[int, int]]:
    """Return where the first step of each quantisation table in a segment is stored, by the table's number."""
    places = {}
    while position < end:
        is_wide, number = divmod(data[position], 16)
        size = 2 if is_wide else 1
        places[number] = (position + 1, position + 1 + size)
        position += 1 + 64 * size
    return places
