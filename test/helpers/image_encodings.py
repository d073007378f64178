"""Every supported image encoding: how to encode an image, and the largest allowed error after conversion.

NumPy and OpenCV alone make the messages. ``docs/image_encodings.md`` is generated from this list.
"""

from __future__ import annotations

import array
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image

# ITU-R BT.601 in video range, as in OpenCV: Y, U and V from red, green and blue.
_YUV_OF_RGB = np.array([[65.738, 129.057, 25.064], [-37.945, -74.494, 112.439], [112.439, -94.154, -18.285]]) / 256
_YUV_OF_BLACK = 16, 128, 128


@dataclass(frozen=True)
class Encoding:
    """An image encoding.

    Attributes:
        name: Name in the message: ``encoding``, or ``format`` of a compressed image.
        meaning: Description for people.
        encode: Converts an RGB image to bytes in rows, or in a file if compressed. Returns two arrays if the later rows
            are twice as long; then their padding is twice as long too.
        largest_error: Largest allowed mean absolute difference, of values 0..255.
        other_names: Other names of the same encoding.
        grey: Whether colours are lost.
        compressed: Whether the message is a ``CompressedImage``.
        even_sides: How many of width and height must be even, because neighbouring pixels share colours.
    """

    name: str
    meaning: str
    encode: Callable[[np.ndarray], np.ndarray | tuple[np.ndarray, np.ndarray]]
    largest_error: float
    other_names: tuple[str, ...] = ()
    grey: bool = False
    compressed: bool = False
    even_sides: int = 0

    def __str__(self) -> str:
        return self.name

    def seen(self, rgb: np.ndarray) -> np.ndarray:
        """Return the image that conversion should produce."""
        return cv2.cvtColor(_grey(rgb), cv2.COLOR_GRAY2RGB) if self.grey else rgb

    def message(self, rgb: np.ndarray, *, padding: int = 0, big_endian: bool = False) -> Image | CompressedImage:
        """Return the image as a message; ``padding`` is the number of bytes after each row of a raw image."""
        content = self.encode(rgb)
        if self.compressed:
            return CompressedImage(format=self.name, data=array.array("B", content.tobytes()))
        planes = content if isinstance(content, tuple) else (content,)
        rows = [_padded(plane, padding * times, big_endian) for times, plane in enumerate(planes, start=1)]
        message = Image(height=rgb.shape[0], width=rgb.shape[1], encoding=self.name, step=rows[0].shape[1])
        message.is_bigendian = int(big_endian)
        message.data = array.array("B", b"".join(plane.tobytes() for plane in rows))
        return message

    def last_padding(self, rgb: np.ndarray, padding: int) -> int:
        """Return the number of bytes after the last row."""
        return padding * (2 if isinstance(self.encode(rgb), tuple) else 1)


def _padded(content: np.ndarray, padding: int, big_endian: bool) -> np.ndarray:
    ordered = np.ascontiguousarray(content, content.dtype.newbyteorder(">" if big_endian else "<"))
    return np.pad(ordered.view(np.uint8).reshape(len(content), -1), ((0, 0), (0, padding)), constant_values=77)


def image(height: int, width: int) -> np.ndarray:
    """Return an RGB image of smooth colours with different channels and directions."""
    down, right = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    return np.stack([20 + 200 * right, 30 + 180 * down, 210 - 160 * right * down], axis=-1).round().astype(np.uint8)


def error(seen: np.ndarray, expected: np.ndarray) -> float:
    """Return the mean absolute difference of two images of the same size."""
    return float(cv2.absdiff(seen, np.ascontiguousarray(expected)).mean())


def _grey(rgb: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)


def _channels(rgb: np.ndarray, order: str) -> np.ndarray:
    alpha = np.full(rgb.shape[:2], 9, np.uint8)
    return np.dstack([alpha if channel == "a" else rgb[..., "rgb".index(channel)] for channel in order])


def _mosaic(rgb: np.ndarray, pattern: str) -> np.ndarray:
    mosaic = np.empty(rgb.shape[:2], np.uint8)
    for position, channel in enumerate(pattern):
        down, right = divmod(position, 2)
        mosaic[down::2, right::2] = rgb[down::2, right::2, "rgb".index(channel)]
    return mosaic


def _wide(encode: Callable[[np.ndarray], np.ndarray], rgb: np.ndarray) -> np.ndarray:
    # Both bytes differ, so that their order matters.
    return encode(rgb).astype(np.uint16) * 256 + 128


def _planes(rgb: np.ndarray, rows_sharing: int, columns_sharing: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Return luma, and chroma that is shared by pixels of this number of rows and columns."""
    yuv = rgb @ _YUV_OF_RGB.T + _YUV_OF_BLACK
    size = rgb.shape[1] // columns_sharing, rgb.shape[0] // rows_sharing
    colours = cv2.resize(yuv[..., 1:], size, interpolation=cv2.INTER_AREA)
    return yuv[..., 0].round().astype(np.uint8), colours.round().astype(np.uint8)


def _yuyv(rgb: np.ndarray) -> np.ndarray:
    brightness, colours = _planes(rgb, 1)
    return np.dstack([brightness, colours.reshape(brightness.shape)])


def _uyvy(rgb: np.ndarray) -> np.ndarray:
    return _yuyv(rgb)[..., ::-1]


def _nv12(rgb: np.ndarray) -> np.ndarray:
    brightness, colours = _planes(rgb, 2)
    return np.vstack([brightness, colours.reshape(-1, brightness.shape[1])])


def _nv21(rgb: np.ndarray) -> np.ndarray:
    brightness, colours = _planes(rgb, 2)
    return np.vstack([brightness, colours[..., ::-1].reshape(-1, brightness.shape[1])])


def _nv24(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return _planes(rgb, 1, 1)


def _file(rgb: np.ndarray, extension: str) -> np.ndarray:
    return cv2.imencode(extension, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1]


def _file_of(encode: Callable[[np.ndarray], np.ndarray], rgb: np.ndarray, extension: str) -> np.ndarray:
    return cv2.imencode(extension, encode(rgb))[1]


_COLOURS = {"rgb": "red, green, blue", "bgr": "blue, green, red"}
_COLOURS |= {f"{order}a": f"{channels}, alpha, which is dropped" for order, channels in _COLOURS.items()}
_WIDE = "16 bits in either byte order, scaled to 8"

ENCODINGS = (
    *(Encoding(f"{order}8", channels, partial(_channels, order=order), 0) for order, channels in _COLOURS.items()),
    Encoding("mono8", "grey", _grey, 0, ("8UC1",), grey=True),
    *(
        Encoding(f"{order}16", f"{channels}; {_WIDE}", partial(_wide, partial(_channels, order=order)), 1)
        for order, channels in _COLOURS.items()
    ),
    Encoding("mono16", f"grey; {_WIDE}", partial(_wide, _grey), 1, grey=True),
    *(
        Encoding(f"bayer_{pattern}8", "a sensor's mosaic, interpolated", partial(_mosaic, pattern=pattern), 1)
        for pattern in ("rggb", "bggr", "gbrg", "grbg")
    ),
    *(
        Encoding(
            f"bayer_{pattern}16",
            f"a sensor's mosaic, interpolated; {_WIDE}",
            partial(_wide, partial(_mosaic, pattern=pattern)),
            1.5,
        )
        for pattern in ("rggb", "bggr", "gbrg", "grbg")
    ),
    Encoding("yuv422", "two pixels as U Y V Y; even width", _uyvy, 2, ("uyvy",), even_sides=1),
    Encoding("yuv422_yuy2", "two pixels as Y U Y V; even width", _yuyv, 2, ("yuyv",), even_sides=1),
    Encoding("nv12", "all of Y, then U V for each two by two pixels; even width and height", _nv12, 2.5, even_sides=2),
    Encoding("nv21", "all of Y, then V U for each two by two pixels; even width and height", _nv21, 2.5, even_sides=2),
    Encoding("nv24", "all of Y, then U V for each pixel", _nv24, 1),
    Encoding("jpeg", "a JPEG file, colour or grey", partial(_file, extension=".jpg"), 2, compressed=True),
    Encoding("png", "a PNG file of 8 or 16 bits, colour or grey", partial(_file, extension=".png"), 0, compressed=True),
    *(
        Encoding(
            f"bayer_{pattern}8; {kind} compressed",
            f"a sensor's mosaic as a {kind.upper()} file, interpolated",
            partial(_file_of, partial(_mosaic, pattern=pattern), extension=f".{kind}"),
            largest_error,
            (f"bayer_{pattern}8; {kind} compressed bayer_{pattern}8",),
            compressed=True,
        )
        for kind, largest_error in (("png", 1), ("jpeg", 2))
        for pattern in ("rggb", "bggr", "gbrg", "grbg")
    ),
    *(
        Encoding(
            f"bayer_{pattern}16; png compressed",
            "a sensor's mosaic as a PNG file of 16 bits, interpolated",
            partial(_file_of, partial(_wide, partial(_mosaic, pattern=pattern)), extension=".png"),
            1,
            (f"bayer_{pattern}16; png compressed bayer_{pattern}16",),
            compressed=True,
        )
        for pattern in ("rggb", "bggr", "gbrg", "grbg")
    ),
)
