"""Image messages to RGB images: with ``cv_bridge`` where it is installed and works, else with ``rosbags-image``."""

from __future__ import annotations

from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from delayed_vlm_ros.errors import ConfigurationError, ImageError
from delayed_vlm_ros.images.messages import CompressedMessage, DenseImage, RawMessage
from delayed_vlm_ros.images.validation import (
    PIXEL_BYTES,
    compressed_mosaic,
    row_count,
    validate_compressed,
    validate_image,
)

RgbImage = NDArray[np.uint8]

# Those that cv_bridge does not know.
_OPENCV_CODES = {"nv12": cv2.COLOR_YUV2RGB_NV12, "nv21": cv2.COLOR_YUV2RGB_NV21}

# OpenCV names a mosaic by the pixels in the second row, from the second one on.
_MOSAIC_CODES = {
    f"bayer_{pattern}{bits}": code
    for pattern, code in (
        ("rggb", cv2.COLOR_BayerBG2RGB),
        ("bggr", cv2.COLOR_BayerRG2RGB),
        ("gbrg", cv2.COLOR_BayerGR2RGB),
        ("grbg", cv2.COLOR_BayerGB2RGB),
    )
    for bits in (8, 16)
}

# Red, green and blue of Y, U, V and 1: ITU-R BT.601 in video range, as OpenCV's of the other encodings.
_RGB_OF_YUV = np.array(
    [
        [1.164, 0.0, 1.596, -1.164 * 16 - 1.596 * 128],
        [1.164, -0.391, -0.813, -1.164 * 16 + (0.391 + 0.813) * 128],
        [1.164, 2.018, 0.0, -1.164 * 16 - 2.018 * 128],
    ]
)


class Backend(Protocol):
    """Converts one raw image, checked and dense; gives RGB uint8 of shape (height, width, 3)."""

    def __call__(self, message: RawMessage) -> RgbImage:
        """Convert it."""


class ImageConverter:
    """Turns image messages into RGB images.

    Attributes:
        name: The library behind it.
        fallback_reason: Why it is not the first choice; empty when it is.
        max_pixels: Largest height × width that it takes; None: ``MAX_IMAGE_PIXELS``.
    """

    def __init__(self, name: str, backend: Backend, fallback_reason: str = "", max_pixels: int | None = None) -> None:
        self.name = name
        self.fallback_reason = fallback_reason
        self.max_pixels = max_pixels
        self._backend = backend

    def convert(self, message: RawMessage | CompressedMessage) -> RgbImage:
        """Convert one message; a compressed one is told by its field ``format``.

        Returns:
            RGB uint8 of shape (height, width, 3) with its own storage; grey images have three equal channels.

        Raises:
            ImageError: The message is no usable image; the text says why, and what to do.
        """
        if hasattr(message, "format"):
            return decode_compressed(message, self.max_pixels)
        return self._convert_raw(message)

    def _convert_raw(self, message: RawMessage) -> RgbImage:
        encoding = validate_image(message, self.max_pixels)
        try:
            if encoding in _OPENCV_CODES:
                image = cv2.cvtColor(_rows(message, encoding), _OPENCV_CODES[encoding])
            elif encoding == "nv24":  # which OpenCV does not know either
                image = cv2.transform(_yuv_of_nv24(message), _RGB_OF_YUV)
            else:
                image = self._backend(_dense(message, encoding))
        except Exception as error:
            raise ImageError(
                f"{self.name} cannot convert a {message.width} × {message.height} {message.encoding} image "
                f"({type(error).__name__}: {error}): have the driver publish rgb8 or bgr8"
            ) from error
        return _owned(image, message.data)


def make_converter(max_pixels: int | None = None) -> ImageConverter:
    """Choose the library: ``cv_bridge`` if it works here, else ``rosbags-image``.

    A ``cv_bridge`` built against NumPy 1 fails under NumPy 2, some only at the first image: so it has to convert one.

    Args:
        max_pixels: Largest height × width of an image; None: ``MAX_IMAGE_PIXELS``.

    Raises:
        ConfigurationError: Neither is there and works.
    """
    try:
        return ImageConverter("cv_bridge", _tried(_cv_bridge_backend()), max_pixels=max_pixels)
    except Exception as error:  # noqa: BLE001  a broken binary raises whatever it likes
        reason = (
            "cv_bridge is not installed"
            if isinstance(error, ModuleNotFoundError) and error.name == "cv_bridge"
            else f"the installed cv_bridge does not work ({type(error).__name__}: {error})"
        )
    try:
        backend = _tried(_rosbags_backend())
    except Exception as error:
        raise ConfigurationError(
            f"no library to convert images: {reason}, and rosbags-image cannot be used ({type(error).__name__}: "
            f"{error}): install one of them, for example with 'pip install rosbags-image'"
        ) from error
    fallback_reason = f"images are converted by rosbags-image: {reason}"
    return ImageConverter("rosbags-image", backend, fallback_reason, max_pixels)


def decode_compressed(message: CompressedMessage, max_pixels: int | None = None) -> RgbImage:
    """Decode a JPEG or PNG; one of a Bayer mosaic, by its format, is interpolated.

    Args:
        message: It.
        max_pixels: Largest height × width of its image; None: ``MAX_IMAGE_PIXELS``.

    Returns:
        RGB uint8 of shape (height, width, 3).

    Raises:
        ImageError: It is neither, or damaged.
    """
    validate_compressed(message, max_pixels)
    mosaic = compressed_mosaic(message.format)
    # Cameras do not turn their images by metadata; a stray EXIF tag must not change the shape.
    flags = (cv2.IMREAD_ANYCOLOR if mosaic else cv2.IMREAD_COLOR) | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(message.data, np.uint8), flags)
        if image is not None:
            has_colours = image.ndim > 2  # noqa: PLR2004  then it is no mosaic, whatever the format says
            image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB if has_colours else _MOSAIC_CODES[mosaic])
    except cv2.error as error:
        raise ImageError(f"the compressed image ('{message.format}') cannot be decoded: {error.err}") from error
    if image is None:
        raise ImageError(
            f"the compressed image ('{message.format}', {len(message.data)} bytes) is damaged and cannot be decoded: "
            "check the camera driver and the network"
        )
    return np.ascontiguousarray(image)


def _cv_bridge_backend() -> Backend:
    from cv_bridge import CvBridge  # noqa: PLC0415  often not there

    bridge = CvBridge()
    return lambda message: bridge.imgmsg_to_cv2(message, desired_encoding="rgb8")


def _rosbags_backend() -> Backend:
    from rosbags.image import message_to_cvimage  # noqa: PLC0415  only where cv_bridge is missing

    return lambda message: message_to_cvimage(message, "rgb8")


def _tried(backend: Backend) -> Backend:
    expected = np.array([[[3, 2, 1], [6, 5, 4]]], np.uint8)
    message = DenseImage(height=1, width=2, encoding="bgr8", step=6, data=bytes([1, 2, 3, 4, 5, 6]))
    image = backend(message)
    if not np.array_equal(image, expected):
        raise RuntimeError(f"it converts {expected.tolist()} to {np.asarray(image).tolist()}")
    return backend


def _dense(message: RawMessage, encoding: str) -> RawMessage:
    """The same image under the encoding's first name, little-endian, with rows that follow each other directly.

    ``rosbags-image`` takes dense rows for granted. ``cv_bridge`` slants an image whose padding is no whole number of
    pixels, refuses one whose last row has none, and cannot swap bytes under NumPy 2.
    """
    row_bytes = message.width * PIXEL_BYTES[encoding]
    if (message.encoding, message.step, message.is_bigendian) == (encoding, row_bytes, 0):
        return message
    return DenseImage(message.height, message.width, encoding, row_bytes, _rows(message, encoding).tobytes())


def _rows(message: RawMessage, encoding: str) -> NDArray[np.uint8]:
    """The rows' bytes, little-endian and without their padding: shape (rows, bytes of a row)."""
    data = np.frombuffer(message.data, np.uint8)
    shape = row_count(encoding, message.height), message.width * PIXEL_BYTES[encoding]
    # The last row may end without its padding, so the rows are a strided view and not a reshaped array.
    rows = np.lib.stride_tricks.as_strided(data, shape, (message.step, 1), writeable=False)
    if message.is_bigendian and encoding.endswith("16"):
        return np.ascontiguousarray(rows).view(np.uint16).byteswap().view(np.uint8)
    return rows


def _yuv_of_nv24(message: RawMessage) -> NDArray[np.uint8]:
    """Y, U and V of each pixel, of shape (height, width, 3). Rows of colours have two steps, padding included."""
    data = np.frombuffer(message.data, np.uint8)
    size = message.height, message.width
    brightness = np.lib.stride_tricks.as_strided(data, size, (message.step, 1), writeable=False)
    colours = np.lib.stride_tricks.as_strided(
        data[message.height * message.step :], (*size, 2), (2 * message.step, 2, 1), writeable=False
    )
    return np.dstack([brightness, colours])


def _owned(image: RgbImage, data: object) -> RgbImage:
    """An image that does not change when the message's buffer is used again."""
    contiguous = np.ascontiguousarray(image)
    aliases = np.may_share_memory(contiguous, np.frombuffer(data, np.uint8))  # type: ignore[call-overload]
    return contiguous.copy() if aliases else contiguous
