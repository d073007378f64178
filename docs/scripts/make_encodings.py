"""Write docs/image_encodings.md from the encodings that the tests publish; a test compares page and list."""

from __future__ import annotations

import sys
from pathlib import Path

PAGE = Path(__file__).parents[1] / "image_encodings.md"

sys.path.append(str(PAGE.parents[1] / "test" / "helpers"))

from image_encodings import ENCODINGS, Encoding  # noqa: E402  on the path that the line above adds

_INTRODUCTION = """\
# Encodings

Made by `docs/scripts/make_encodings.py` from `test/helpers/image_encodings.py`. A test publishes an image of soft
colours in each encoding over DDS and compares it with the image in memory. *Error* is the largest mean absolute
difference that the test accepts, of values 0 … 255: the cost of rounding, chroma subsampling and interpolation.
"""

_REST = """\
* `step` may be larger than a row. The padding of the last row may be missing; bytes after the last row are ignored.
* `is_bigendian` applies to 16-bit encodings.
* 16-bit values are scaled by the bits that the camera uses. `image_bit_depth` states them; larger values are clipped,
  and a log line says so if they are more than 0.1 % of an image. Set 16 for values in the high bits.
* At the default of `image_bit_depth` (8), the depth comes from the images: 8, 10, 12, 14 or 16 bits. An image needs the
  smallest depth that holds all but 0.1 % of its values: hot pixels do not count. The camera's depth is that of its
  first image, and rises when 3 of 8 images in succession need more: an image that is damaged is scaled by its own
  depth, and changes nothing. If only the first image needs a larger depth, that depth applies until 8 images were seen.
  The depth does not fall afterwards, so a dark image stays dark; a reset of the memory starts again. A camera that
  starts in the dark is scaled too brightly until it sees larger values. Values in the high bits are used as they are.
  Each change is logged; the diagnostics show the depth.
* Y, U and V follow ITU-R BT.601 in video range (Y from 16 to 235).
* `nv12` and `nv21`: `height` is the height of the image, `step` the length of every row, and `data` holds
  `height * 3 / 2` rows.
* `nv24`: `step` is the length of a row of Y. The rows of U V after them are twice as long, padding included (as in
  V4L2).
* A compressed image is decoded from its bytes. A grey one is a sensor's mosaic if `format` names one as the source
  encoding; `image_transport` writes `mono8` or `bgr8` after `compressed` if it has interpolated the mosaic itself.
* A JPEG that is truncated or damaged is rejected. JPEG has no checksum: the decoder's warnings and impossible block
  means reveal about nine of ten images whose mean error is larger than 2, at about 1.6 ms for 640 × 480. In a JPEG with
  restart markers, undetected damage ends at the next marker. A missing end marker, padding, missing Huffman tables
  (Motion JPEG), up to 16 surplus bytes before a marker, and unusual metadata (JFIF version, ICC profile, Adobe
  transform) are accepted. PNG has checksums: any damage is found.
* The size of a compressed image is checked before it is decoded, and again afterwards: `image_max_pixels`, 100
  megapixels at most. The JPEG decoder reads it itself, since two parsers may see two sizes in one file. Decoding takes
  at most 16 bytes for each pixel of a file of 16 bits, 12 of a JPEG (progressive; 4 of others) and 6 of an 8-bit PNG,
  and some megabytes. Lower `image_max_pixels` to the camera's size on a small computer.
* Rejected because they take long to decode: JPEGs with more than 32 scans (progressive ones have about 10), 2,000
  segments or 100,000 bytes of tables, and PNGs with more than 100,000 chunks, more pixel data than their size needs,
  data after the pixels, or several palettes. Texts and profiles of a PNG are left out before decoding.
* The pixel data of a PNG is decompressed once more for this check, since the decoder decompresses surplus data without
  a limit. At 1920 × 1080 the check takes 35 ms before 48 ms of decoding.
* An image folder may also hold BMP, WebP, TIFF and PPM; Pillow reads their sizes, and OpenCV decodes them. Other
  formats (JPEG 2000, GIF, AVIF, HDR) are refused, with any suffix. The programs of this package also set OpenCV's own
  limit, `OPENCV_IO_MAX_IMAGE_PIXELS`, to 100 megapixels, unless the environment has another value.
* Rejected, with the reason in diagnostics: depth images (`16UC1`, `32FC1`, `64FC1`, `compressedDepth`), encodings
  without defined colours (`8UC3`), unknown encodings (`nv61`), too little data, and a `step` smaller than a row.

`cv_bridge` converts images where it is installed and works, otherwise `rosbags-image`. OpenCV converts `nv12`, `nv21`,
`nv24`, PNG and compressed mosaics, and simplejpeg (libjpeg-turbo) decodes JPEG: neither library converts these
reliably.
"""


def page() -> str:
    """Return the text of the page."""
    return "\n".join(
        [
            _INTRODUCTION,
            *_table("`sensor_msgs/Image`", [encoding for encoding in ENCODINGS if not encoding.compressed]),
            *_table("`sensor_msgs/CompressedImage`", [encoding for encoding in ENCODINGS if encoding.compressed]),
            _REST,
        ]
    )


def _table(title: str, encodings: list[Encoding]) -> list[str]:
    rows = (
        f"| `{encoding.name}` | {', '.join(f'`{name}`' for name in encoding.other_names)} | {encoding.meaning} "
        f"| {encoding.largest_error:g} |"
        for encoding in encodings
    )
    return [f"## {title}", "", "| encoding | also | meaning | error |", "| --- | --- | --- | --- |", *rows, ""]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
