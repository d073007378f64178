"""What can be wrong with an image message, found out before anything is converted."""

from __future__ import annotations

import struct

from delayed_vlm_ros.errors import ImageError
from delayed_vlm_ros.images.messages import CompressedMessage, RawMessage

MAX_IMAGE_PIXELS = 100_000_000
"""Largest height × width that is taken for an image and not for a broken or hostile message."""

PIXEL_BYTES = {
    "rgb8": 3,
    "bgr8": 3,
    "rgba8": 4,
    "bgra8": 4,
    "mono8": 1,
    "rgb16": 6,
    "bgr16": 6,
    "rgba16": 8,
    "bgra16": 8,
    "mono16": 2,
    "bayer_rggb8": 1,
    "bayer_bggr8": 1,
    "bayer_gbrg8": 1,
    "bayer_grbg8": 1,
    "bayer_rggb16": 2,
    "bayer_bggr16": 2,
    "bayer_gbrg16": 2,
    "bayer_grbg16": 2,
    "yuv422": 2,
    "yuv422_yuy2": 2,
    "nv12": 1,
    "nv21": 1,
    "nv24": 1,
}
"""Encodings that are understood, with the bytes of one pixel in its row."""

OTHER_NAMES = {"8UC1": "mono8", "uyvy": "yuv422", "yuyv": "yuv422_yuy2"}
"""Further names of encodings in ``PIXEL_BYTES``."""

_DEPTH_ENCODINGS = ("16UC1", "32FC1", "64FC1")
_HALVED_ENCODINGS = ("nv12", "nv21")  # behind the rows of brightness, one of colours for every two of them
_DOUBLED_ENCODINGS = ("nv24",)  # behind the rows of brightness, as many of colours, each twice as long
_PAIRWISE_ENCODINGS = ("yuv422", "yuv422_yuy2", *_HALVED_ENCODINGS)  # neighbouring pixels share their colour
_MOSAIC_PREFIX = "bayer_"

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_SIZE = struct.Struct(">II")
_PNG_SIZE_OFFSET = 16
_JPEG_SIGNATURE = b"\xff\xd8"
# Markers of a JPEG's "start of frame" segments, which hold its size; C4, C8 and CC mean other things.
_JPEG_FRAMES = frozenset(bytes([marker]) for marker in range(0xC0, 0xD0) if marker not in (0xC4, 0xC8, 0xCC))
_JPEG_MARKER = b"\xff"
_JPEG_MOST_MARKERS = 2000  # a large colour profile takes 255 segments; more are no header but an attack
_JPEG_FRAME_BYTES = 9  # marker, length, precision, height, width


def validate_image(message: RawMessage, max_pixels: int | None = None) -> str:
    """Refuse a raw image that cannot be an image.

    Args:
        message: It.
        max_pixels: Largest height × width; None: ``MAX_IMAGE_PIXELS``.

    Returns:
        Its encoding, by the name in ``PIXEL_BYTES``.

    Raises:
        ImageError: What is wrong with it, and what to do.
    """
    _check_size(message.height, message.width, max_pixels)
    encoding = OTHER_NAMES.get(message.encoding, message.encoding)
    pixel_bytes = PIXEL_BYTES.get(encoding)
    if pixel_bytes is None:
        raise ImageError(_about_encoding(message.encoding))
    if encoding in _PAIRWISE_ENCODINGS and message.width % 2:
        raise ImageError(f"an image in {message.encoding} must have an even width, and this one's is {message.width}")
    if encoding in _HALVED_ENCODINGS and message.height % 2:
        raise ImageError(f"an image in {message.encoding} must have an even height, and this one's is {message.height}")
    row_bytes = message.width * pixel_bytes
    if message.step < row_bytes:
        raise ImageError(
            f"step is {message.step}, but a row of {message.width} {message.encoding} pixels has {row_bytes} bytes: "
            "correct step, width or encoding in the camera driver"
        )
    needed = data_bytes(encoding, message.height, message.width, message.step)
    if len(message.data) < needed:
        rows = row_count(encoding, message.height)
        raise ImageError(
            f"data has {len(message.data)} bytes, but {rows} rows with a step of {message.step} need "
            f"{needed}: the image is cut short; check the camera driver"
        )
    return encoding


def row_count(encoding: str, height: int) -> int:
    """Rows of ``step`` bytes in the data of an image of this height; a row of twice as many counts as two."""
    if encoding in _DOUBLED_ENCODINGS:
        return height * 3
    return height * 3 // 2 if encoding in _HALVED_ENCODINGS else height


def data_bytes(encoding: str, height: int, width: int, step: int) -> int:
    """Bytes of the data up to the last pixel: cropped images may lack the padding behind it."""
    padding = step - width * PIXEL_BYTES[encoding]
    return row_count(encoding, height) * step - padding * (2 if encoding in _DOUBLED_ENCODINGS else 1)


def validate_compressed(message: CompressedMessage, max_pixels: int | None = None) -> None:
    """Refuse a compressed image that is no JPEG or PNG of a sensible size, before it is decoded.

    Args:
        message: It.
        max_pixels: Largest height × width; None: ``MAX_IMAGE_PIXELS``.

    Raises:
        ImageError: What is wrong with it, and what to do.
    """
    if "compresseddepth" in message.format.lower() or message.format.startswith(_DEPTH_ENCODINGS):
        raise ImageError(
            f"'{message.format}' is a depth image, and only colour or grey images can be described: "
            "remap image to the camera's colour topic"
        )
    data = bytes(message.data)
    if not data:
        raise ImageError("the compressed image has no data: check the camera driver")
    size = _encoded_size(data)
    if size is None:
        raise ImageError(
            f"the compressed image ('{message.format}', {len(data)} bytes) is neither a JPEG nor a PNG: have the "
            "driver publish one of these, or use image_transport raw"
        )
    _check_size(*size, max_pixels)


def compressed_mosaic(compressed_format: str) -> str:
    """The Bayer encoding of what was compressed, by the format that ``image_transport`` writes; empty if it is none.

    That is ``<encoding>; <codec> compressed <what it was made into before>``, where the last is empty for a mosaic
    that was compressed as it is, and ``mono8`` or ``bgr8`` for one that has been interpolated.
    """
    encoding, _, rest = compressed_format.partition(";")
    name = rest.partition("compressed")[2].strip() or encoding.strip()
    return name if name.startswith(_MOSAIC_PREFIX) and name in PIXEL_BYTES else ""


def _check_size(height: int, width: int, max_pixels: int | None) -> None:
    limit = MAX_IMAGE_PIXELS if max_pixels is None else max_pixels
    if height == 0 or width == 0:
        raise ImageError(f"the image is {width} × {height} pixels, so it shows nothing: check the camera driver")
    if height * width > limit:
        raise ImageError(
            f"the image claims to be {width} × {height} pixels; more than {limit} are not believed: check "
            "the camera driver"
        )


def _about_encoding(encoding: str) -> str:
    if encoding in _DEPTH_ENCODINGS:
        return (
            f"{encoding} is a depth image: its values are distances, and only colour or grey images can be "
            "described. Remap image to the camera's colour topic"
        )
    known = ", ".join(PIXEL_BYTES)
    if "FC" in encoding or "UC" in encoding or "SC" in encoding:
        return (
            f"the encoding '{encoding}' says how wide the numbers are, but not which colours they mean: have the "
            f"driver publish one of {known}"
        )
    return f"the encoding '{encoding}' is unknown: have the driver publish one of {known}"


def _encoded_size(data: bytes) -> tuple[int, int] | None:
    """Height and width as a PNG's or JPEG's own header says; None when it is neither, or ends before."""
    if data.startswith(_PNG_SIGNATURE):
        return _png_size(data)
    return _jpeg_size(data) if data.startswith(_JPEG_SIGNATURE) else None


def _png_size(data: bytes) -> tuple[int, int] | None:
    try:
        width, height = _PNG_SIZE.unpack_from(data, _PNG_SIZE_OFFSET)
    except struct.error:
        return None
    return height, width


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    position = len(_JPEG_SIGNATURE)
    for _ in range(_JPEG_MOST_MARKERS):
        marker = data[position + 1 : position + 2]
        if data[position : position + 1] != _JPEG_MARKER or position + _JPEG_FRAME_BYTES > len(data):
            break
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, position + 5)
            return height, width
        # A marker may be led in by further FF bytes; else it is followed by its segment's length.
        is_fill = marker == _JPEG_MARKER
        position += 1 if is_fill else 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return None
