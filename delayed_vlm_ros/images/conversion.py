"""Image messages to RGB arrays: with ``cv_bridge`` where it is installed and works, else with ``rosbags-image``."""

from __future__ import annotations

from typing import Protocol, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from delayed_vlm_ros.errors import ConfigurationError, ImageError
from delayed_vlm_ros.images.bit_depth import FROM_IMAGES, BitDepth
from delayed_vlm_ros.images.jpeg import decode_jpeg, is_jpeg
from delayed_vlm_ros.images.messages import CompressedMessage, DenseImage, RawMessage
from delayed_vlm_ros.images.png import is_png, needed_chunks
from delayed_vlm_ros.images.validation import (
    PIXEL_BYTES,
    compressed_data,
    compressed_mosaic,
    compressed_name,
    row_count,
    validate_file,
    validate_image,
)

RgbImage = NDArray[np.uint8]

# Encodings that cv_bridge does not support.
_OPENCV_CODES = {"nv12": cv2.COLOR_YUV2RGB_NV12, "nv21": cv2.COLOR_YUV2RGB_NV21}

# OpenCV names a Bayer pattern by the second row, starting at its second pixel.
_MOSAIC_CODES = {
    f"bayer_{pattern}": code
    for pattern, code in (
        ("rggb", cv2.COLOR_BayerBG2RGB),
        ("bggr", cv2.COLOR_BayerRG2RGB),
        ("gbrg", cv2.COLOR_BayerGR2RGB),
        ("grbg", cv2.COLOR_BayerGB2RGB),
    )
}

_COLOUR_CHANNELS = 3
_WIDE_SUFFIX = "16"  # of an encoding with 16-bit values

# From (Y, U, V, 1) to red, green and blue: ITU-R BT.601, video range, as OpenCV uses for the other YUV encodings.
_YUV_TO_RGB = np.array(
    [
        [1.164, 0.0, 1.596, -1.164 * 16 - 1.596 * 128],
        [1.164, -0.391, -0.813, -1.164 * 16 + (0.391 + 0.813) * 128],
        [1.164, 2.018, 0.0, -1.164 * 16 - 2.018 * 128],
    ]
)


class ConverterBackend(Protocol):
    """A library function that converts one validated, dense raw image."""

    def __call__(self, message: RawMessage) -> RgbImage:
        """Return RGB uint8 of shape (height, width, 3)."""


class ImageConverter:
    """Converts the image messages of one camera to RGB arrays.

    Attributes:
        name: Name of the library in use.
        fallback_reason: Why ``cv_bridge`` is not used; empty when it is.
        max_pixels: Maximum height × width of an image; None means ``MAX_IMAGE_PIXELS``.
        bit_depth: Depth of the camera's 16-bit images.
    """

    def __init__(
        self,
        name: str,
        backend: ConverterBackend,
        fallback_reason: str = "",
        max_pixels: int | None = None,
        bit_depth: BitDepth | None = None,
    ) -> None:
        self.name = name
        self.fallback_reason = fallback_reason
        self.max_pixels = max_pixels
        self.bit_depth = BitDepth() if bit_depth is None else bit_depth
        self._backend = backend

    def for_camera(self) -> ImageConverter:
        """Return a converter with the same library and settings for another camera."""
        bit_depth = BitDepth(self.bit_depth.stated)
        return ImageConverter(self.name, self._backend, self.fallback_reason, self.max_pixels, bit_depth)

    def convert(self, message: RawMessage | CompressedMessage) -> RgbImage:
        """Convert one message. A message with a field ``format`` is a compressed image.

        Returns:
            RGB uint8 of shape (height, width, 3) with its own storage; grey images have three equal channels.

        Raises:
            ImageError: The message holds no usable image. The text states the reason and the remedy.
        """
        if hasattr(message, "format"):
            return decode_compressed(cast("CompressedMessage", message), self.bit_depth, self.max_pixels)
        return self._convert_raw(message)

    def _convert_raw(self, message: RawMessage) -> RgbImage:
        encoding = validate_image(message, self.max_pixels)
        try:
            if encoding.endswith(_WIDE_SUFFIX):
                message = _narrowed(message, encoding, self.bit_depth)
                encoding = message.encoding
            if encoding in _OPENCV_CODES:
                image = cast("RgbImage", cv2.cvtColor(_rows(message, encoding), _OPENCV_CODES[encoding]))
            elif encoding == "nv24":  # OpenCV has no code for it
                image = cast("RgbImage", cv2.transform(_yuv_of_nv24(message), _YUV_TO_RGB))
            else:
                image = self._backend(_dense(message, encoding))
        except Exception as error:
            raise ImageError(
                f"{self.name} cannot convert a {message.width} × {message.height} {message.encoding} image "
                f"({type(error).__name__}: {error}): configure the driver to publish rgb8 or bgr8"
            ) from error
        return _owned(image, message.data)


def make_converter(max_pixels: int | None = None, bit_depth: int = FROM_IMAGES) -> ImageConverter:
    """Return a converter that uses ``cv_bridge`` if it works here, else ``rosbags-image``.

    A ``cv_bridge`` built against NumPy 1 fails under NumPy 2, sometimes only at the first image. Each candidate
    therefore converts a test image first.

    Args:
        max_pixels: Maximum height × width of an image; None means ``MAX_IMAGE_PIXELS``.
        bit_depth: Depth of 16-bit images, 9 to 16 bits; ``FROM_IMAGES`` (8): found from each camera's images.

    Raises:
        ConfigurationError: Neither library is installed and works.
    """
    depth = BitDepth(bit_depth)
    try:
        return ImageConverter("cv_bridge", _tested(_cv_bridge_backend()), max_pixels=max_pixels, bit_depth=depth)
    except Exception as error:  # noqa: BLE001  a broken binary may raise anything
        reason = (
            "cv_bridge is not installed"
            if isinstance(error, ModuleNotFoundError) and error.name == "cv_bridge"
            else f"the installed cv_bridge does not work ({type(error).__name__}: {error})"
        )
    try:
        backend = _tested(_rosbags_backend())
    except Exception as error:
        raise ConfigurationError(
            f"no library can convert images: {reason}, and rosbags-image does not work ({type(error).__name__}: "
            f"{error}): install one of them, for example with 'pip install rosbags-image'"
        ) from error
    fallback_reason = f"images are converted by rosbags-image: {reason}"
    return ImageConverter("rosbags-image", backend, fallback_reason, max_pixels, depth)


def decode_compressed(message: CompressedMessage, bit_depth: BitDepth, max_pixels: int | None = None) -> RgbImage:
    """Decode a JPEG or PNG message. A Bayer mosaic, recognised by the field ``format``, is interpolated.

    Args:
        message: The compressed image.
        bit_depth: Depth of the camera's 16-bit images.
        max_pixels: Maximum height × width of the image; None means ``MAX_IMAGE_PIXELS``.

    Returns:
        RGB uint8 of shape (height, width, 3).

    Raises:
        ImageError: The data is neither a JPEG nor a PNG, or it is damaged.
    """
    image = decode_file(compressed_data(message), bit_depth, compressed_name(message), max_pixels)
    mosaic = compressed_mosaic(message.format)
    if image.ndim > 2:  # noqa: PLR2004  a colour image is no mosaic, even if its format says so
        return np.ascontiguousarray(image)
    code = _MOSAIC_CODES[mosaic.rstrip("0123456789")] if mosaic else cv2.COLOR_GRAY2RGB
    try:
        return np.ascontiguousarray(cv2.cvtColor(image, code), np.uint8)
    except cv2.error as error:
        raise ImageError(f"cannot decode {compressed_name(message)}: {error.err}") from error


def decode_file(data: bytes, bit_depth: BitDepth, name: str, max_pixels: int | None = None) -> NDArray[np.uint8]:
    """Decode an image file after a check of its size.

    Args:
        data: A JPEG, PNG, BMP, WebP, TIFF or PPM.
        bit_depth: Depth of the camera's 16-bit images.
        name: Name of the file, for error messages.
        max_pixels: Maximum height × width; None means ``MAX_IMAGE_PIXELS``.

    Returns:
        uint8 of shape (height, width), or (height, width, 3) with RGB for a colour file.

    Raises:
        ImageError: The file is too large, truncated or damaged, or of an unsupported format.
    """
    size = validate_file(data, name, max_pixels)
    image = decode_jpeg(data, name) if is_jpeg(data) else _decode_with_opencv(data, bit_depth, name)
    if image.shape[:2] != size:
        raise ImageError(
            f"cannot decode {name}: its header states {size[1]} × {size[0]} pixels, and it has {image.shape[1]} × "
            f"{image.shape[0]}: check the camera driver"
        )
    return image


def _decode_with_opencv(data: bytes, bit_depth: BitDepth, name: str) -> NDArray[np.uint8]:
    if is_png(data):
        data = needed_chunks(data, name)
    # An EXIF orientation tag must not change the shape: cameras do not rotate their images by metadata.
    flags = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ImageError(f"cannot decode {name}: {error.err}") from error
    if image is None:
        raise ImageError(
            f"cannot decode {name}, {len(data)} bytes: the data is truncated or damaged; check the camera driver and "
            "the network"
        )
    if image.dtype == np.uint16:
        image = bit_depth.to_8_bits(cast("NDArray[np.uint16]", image))
    if image.dtype != np.uint8:
        raise ImageError(f"cannot decode {name}: it has {image.dtype} values; use 8 or 16 bits")
    return cast("NDArray[np.uint8]", cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if image.ndim > 2 else image)  # noqa: PLR2004


def _cv_bridge_backend() -> ConverterBackend:
    from cv_bridge import CvBridge  # noqa: PLC0415  optional

    bridge = CvBridge()
    return lambda message: cast("RgbImage", bridge.imgmsg_to_cv2(message, desired_encoding="rgb8"))


def _rosbags_backend() -> ConverterBackend:
    from rosbags.image import message_to_cvimage  # noqa: PLC0415  optional where cv_bridge works

    return lambda message: cast("RgbImage", message_to_cvimage(message, "rgb8"))


def _tested(backend: ConverterBackend) -> ConverterBackend:
    expected = np.array([[[3, 2, 1], [6, 5, 4]]], np.uint8)
    message = DenseImage(height=1, width=2, encoding="bgr8", step=6, data=bytes([1, 2, 3, 4, 5, 6]))
    image = backend(message)
    if not np.array_equal(image, expected):
        raise RuntimeError(f"it converts {expected.tolist()} to {np.asarray(image).tolist()}")
    return backend


def _narrowed(message: RawMessage, encoding: str, bit_depth: BitDepth) -> DenseImage:
    """Return a 16-bit image scaled to 8 bits, without its alpha channel."""
    channels = PIXEL_BYTES[encoding] // 2
    values = np.ascontiguousarray(_rows(message, encoding)).view(np.uint16)
    values = values.reshape(message.height, message.width, channels)[..., :_COLOUR_CHANNELS]
    name = encoding.removesuffix(_WIDE_SUFFIX)
    if channels > _COLOUR_CHANNELS:
        name = name[:_COLOUR_CHANNELS]
    narrow = bit_depth.to_8_bits(values)
    return DenseImage(message.height, message.width, f"{name}8", narrow[0].size, narrow.tobytes())


def _dense(message: RawMessage, encoding: str) -> RawMessage:
    """Return the image under its canonical encoding name, little-endian and without row padding.

    ``rosbags-image`` requires dense rows. ``cv_bridge`` skews an image whose padding is not a whole number of pixels,
    rejects one whose last row lacks the padding, and cannot swap bytes under NumPy 2.
    """
    row_bytes = message.width * PIXEL_BYTES[encoding]
    if (message.encoding, message.step, message.is_bigendian) == (encoding, row_bytes, 0):
        return message
    return DenseImage(message.height, message.width, encoding, row_bytes, _rows(message, encoding).tobytes())


def _rows(message: RawMessage, encoding: str) -> NDArray[np.uint8]:
    """Return the rows, little-endian and without padding, of shape (rows, bytes per row)."""
    data = np.frombuffer(message.data, np.uint8)
    shape = row_count(encoding, message.height), message.width * PIXEL_BYTES[encoding]
    # The last row may lack its padding, so the rows are a strided view and not a reshaped array.
    rows = np.lib.stride_tricks.as_strided(data, shape, (message.step, 1), writeable=False)
    if message.is_bigendian and encoding.endswith("16"):
        rows = np.ascontiguousarray(rows).view(np.uint16).byteswap().view(np.uint8)
    return rows


def _yuv_of_nv24(message: RawMessage) -> NDArray[np.uint8]:
    """Return Y, U and V of each pixel, of shape (height, width, 3). A chroma row spans two steps with padding."""
    data = np.frombuffer(message.data, np.uint8)
    size = message.height, message.width
    luma = np.lib.stride_tricks.as_strided(data, size, (message.step, 1), writeable=False)
    chroma = np.lib.stride_tricks.as_strided(
        data[message.height * message.step :], (*size, 2), (2 * message.step, 2, 1), writeable=False
    )
    return np.dstack([luma, chroma])


def _owned(image: RgbImage, data: object) -> RgbImage:
    """Return a contiguous image that does not share memory with the message, whose buffer may be reused."""
    contiguous = np.ascontiguousarray(image)
    aliases = np.may_share_memory(contiguous, np.frombuffer(data, np.uint8))  # type: ignore[call-overload]
    return contiguous.copy() if aliases else contiguous
