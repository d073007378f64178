"""Write docs/encodings.md from the encodings that the tests publish. Run it after changing one; a test compares."""

from __future__ import annotations

import sys
from pathlib import Path

PAGE = Path(__file__).parents[1] / "encodings.md"

sys.path.append(str(PAGE.parents[1] / "test" / "helpers"))

from image_encodings import ENCODINGS, Encoding  # noqa: E402  found by the line above

_INTRODUCTION = """\
# Encodings

Made by `docs/scripts/make_encodings.py` from `test/ros/image_encodings.py`. A test publishes each of these over DDS and looks
at the image in the memory. *Error* is the mean absolute difference that it allows, of values 0 … 255, in one of soft
colours; it is no more than rounding, shared colours and interpolation cost.
"""

_REST = """\
* `step` may be larger than a row; the last row may end without its padding, and bytes behind it are ignored.
* `is_bigendian` counts for 16 bits.
* Y, U and V are those of ITU-R BT.601 in video range (Y from 16 to 235).
* `nv12` and `nv21`: `height` is the image's, `step` that of all its rows, and `data` holds `height * 3 / 2` of them.
* `nv24`: `step` is that of the rows of Y; those of U V behind them have twice as much, padding included (as in V4L2).
* A compressed image is what its bytes say, except that a grey one is a mosaic where `format` says that this is what
  was compressed. `image_transport` writes `mono8` or `bgr8` behind `compressed` when it has interpolated before.
* Refused, with the reason in diagnostics: depth images (`16UC1`, `32FC1`, `64FC1`, `compressedDepth`), encodings that
  do not say which colours they mean (`8UC3`), unknown ones (`nv61`), too little data, a `step` below a row's bytes.

`cv_bridge` converts where it is installed and works, else `rosbags-image`; OpenCV does what neither does for certain:
`nv12`, `nv21`, `nv24` and compressed images.
"""


def page() -> str:
    """The page's text."""
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
    return [f"## {title}", "", "| encoding | also | understood as | error |", "| --- | --- | --- | --- |", *rows, ""]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
