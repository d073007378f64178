"""Checks of image messages and files before conversion: size, encoding, and length of the data."""

from __future__ import annotations

from delayed_vlm_ros.errors import ImageError
from delayed_vlm_ros.images.jpeg import is_jpeg, jpeg_size
from delayed_vlm_ros.images.messages import CompressedMessage, RawMessage
from delayed_vlm_ros.images.pillow_headers import header_sizes
from delayed_vlm_ros.images.png import is_png, png_size

MAX_IMAGE_PIXELS = 100_000_000
"""Default maximum of height × width; a message that claims more is rejected as broken or hostile."""

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
"""Supported encodings, with the bytes per pixel in a row."""

OTHER_NAMES = {"8UC1": "mono8", "uyvy": "yuv422", "yuyv": "yuv422_yuy2"}
"""Aliases of encodings in ``PIXEL_BYTES``."""

_DEPTH_ENCODINGS = ("16UC1", "32FC1", "64FC1")
_HALVED_ENCODINGS = ("nv12", "nv21")  # after the luma rows: one chroma row for every two of them
_DOUBLED_ENCODINGS = ("nv24",)  # after the luma rows: as many chroma rows, each twice as long
_PAIRWISE_ENCODINGS = ("yuv422", "yuv422_yuy2", *_HALVED_ENCODINGS)  # two neighbouring pixels share their chroma
_MOSAIC_PREFIX = "bayer_"


def validate_image(message: RawMessage, max_pixels: int | None = None) -> str:
    """Check a raw image message.

    Args:
        message: The raw image.
        max_pixels: Maximum height × width; None means ``MAX_IMAGE_PIXELS``.

    Returns:
        The encoding, by its name in ``PIXEL_BYTES``.

    Raises:
        ImageError: The message cannot be converted. The text states the reason and the remedy.
    """
    _check_size(message.height, message.width, max_pixels)
    encoding = OTHER_NAMES.get(message.encoding, message.encoding)
    pixel_bytes = PIXEL_BYTES.get(encoding)
    if pixel_bytes is None:
        raise ImageError(_unsupported_encoding(message.encoding))
    if encoding in _PAIRWISE_ENCODINGS and message.width % 2:
        raise ImageError(
            f"an image in {message.encoding} must have an even width, got {message.width}: check the camera driver"
        )
    if encoding in _HALVED_ENCODINGS and message.height % 2:
        raise ImageError(
            f"an image in {message.encoding} must have an even height, got {message.height}: check the camera driver"
        )
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
            f"{needed}: the image is truncated; check the camera driver"
        )
    return encoding


def row_count(encoding: str, height: int) -> int:
    """Return the rows of ``step`` bytes in the data of an image; a chroma row of double length counts as two."""
    if encoding in _DOUBLED_ENCODINGS:
        return height * 3
    return height * 3 // 2 if encoding in _HALVED_ENCODINGS else height


def data_bytes(encoding: str, height: int, width: int, step: int) -> int:
    """Return the bytes up to the last pixel. A cropped image may lack the padding after it."""
    padding = step - width * PIXEL_BYTES[encoding]
    return row_count(encoding, height) * step - padding * (2 if encoding in _DOUBLED_ENCODINGS else 1)


def validate_compressed(message: CompressedMessage, max_pixels: int | None = None) -> None:
    """Check a compressed image message without decoding it.

    Args:
        message: The compressed image.
        max_pixels: Maximum height × width; None means ``MAX_IMAGE_PIXELS``.

    Raises:
        ImageError: The data is not a JPEG or PNG of an accepted size. The text states the reason and the remedy.
    """
    validate_file(compressed_data(message), compressed_name(message), max_pixels)


def compressed_name(message: CompressedMessage) -> str:
    """Return the name of a compressed image in error messages."""
    return f"the compressed image ('{message.format}')"


def compressed_data(message: CompressedMessage) -> bytes:
    """Return the file in a compressed image message; its size is not checked.

    Raises:
        ImageError: The data is not a JPEG or PNG. The text states the reason and the remedy.
    """
    if "compresseddepth" in message.format.lower() or message.format.startswith(_DEPTH_ENCODINGS):
        raise ImageError(_depth_image(f"'{message.format}'"))
    data = bytes(message.data)
    if not data:
        raise ImageError("the compressed image has no data: check the camera driver")
    if not (is_jpeg(data) or is_png(data)):
        raise ImageError(
            f"the compressed image ('{message.format}', {len(data)} bytes) is neither a JPEG nor a PNG: configure the "
            "driver to publish JPEG or PNG, or set image_transport to raw"
        )
    return data


def validate_file(data: bytes, name: str, max_pixels: int | None = None) -> tuple[int, int]:
    """Check the size of an image file without decoding it.

    The size of a JPEG is read by its decoder, that of a PNG has a fixed place, and Pillow reads the others.

    Args:
        data: The file: JPEG, PNG, BMP, WebP, TIFF or PPM.
        name: Name of the file, for error messages.
        max_pixels: Maximum height × width; None means ``MAX_IMAGE_PIXELS``.

    Returns:
        Height and width, in pixels.

    Raises:
        ImageError: The file is of another format, its header is damaged, or it is empty or too large.
    """
    sizes = _file_sizes(data, name)
    if not sizes:
        raise ImageError(
            f"cannot read the size of {name}, {len(data)} bytes: its header is truncated, damaged or of an unsupported "
            "kind; check the camera driver and the network, or convert it to JPEG or PNG"
        )
    for height, width in sizes:
        _check_size(height, width, max_pixels, name)
    return sizes[0]


def compressed_mosaic(compressed_format: str) -> str:
    """Return the Bayer encoding of a compressed mosaic, from the field ``format``; empty for other images.

    ``image_transport`` writes ``<encoding>; <codec> compressed <encoding before compression>``. The last part is empty
    for a mosaic compressed as it is, and ``mono8`` or ``bgr8`` for an interpolated one.
    """
    encoding, _, rest = compressed_format.partition(";")
    name = rest.partition("compressed")[2].strip() or encoding.strip()
    return name if name.startswith(_MOSAIC_PREFIX) and name in PIXEL_BYTES else ""


def _check_size(height: int, width: int, max_pixels: int | None, name: str = "the image") -> None:
    limit = MAX_IMAGE_PIXELS if max_pixels is None else max_pixels
    if height <= 0 or width <= 0:
        raise ImageError(f"{name} is empty ({width} × {height} pixels): check the camera driver")
    if height * width > limit:
        raise ImageError(
            f"{name} claims {width} × {height} pixels, and the limit is {limit} pixels: check the camera driver or the "
            "file"
        )


def _unsupported_encoding(encoding: str) -> str:
    if encoding in _DEPTH_ENCODINGS:
        return _depth_image(encoding)
    known = ", ".join(PIXEL_BYTES)
    if "FC" in encoding or "UC" in encoding or "SC" in encoding:
        return (
            f"the encoding '{encoding}' states the number format but not the colours: configure the driver to publish "
            f"one of {known}"
        )
    return f"the encoding '{encoding}' is unknown: configure the driver to publish one of {known}"


def _depth_image(encoding: str) -> str:
    return (
        f"{encoding} is a depth image, and only colour and grey images are supported: remap image to the camera's "
        "colour topic, or configure the driver of a grey camera to publish mono16"
    )


def _file_sizes(data: bytes, name: str) -> tuple[tuple[int, int], ...]:
    """Return (height, width) of the image and of other areas that its decoder allocates; empty if unknown."""
    if not (is_jpeg(data) or is_png(data)):
        return header_sizes(data, name)
    size = jpeg_size(data) if is_jpeg(data) else png_size(data)
    return () if size is None else (size,)
