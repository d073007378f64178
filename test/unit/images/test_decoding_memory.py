"""Decoding a file takes at most the memory per pixel that docs/image_encodings.md states."""

import io
import json
import re
import subprocess
import sys

import cv2
import numpy as np
import pytest
from PIL import Image

SIDE = 1200  # pixels
CONSTANT = 1.0  # bytes per pixel of this size that do not depend on it
PROGRAM = """
import json, re, sys
from pathlib import Path
from delayed_vlm_ros.images.bit_depth import BitDepth
from delayed_vlm_ros.images.conversion import decode_file

def memory_bytes(name):
    return 1024 * int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

def peak_bytes(file):
    data = Path(file).read_bytes()
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak to the present memory
    before = memory_bytes("VmRSS")
    decode_file(data, BitDepth(), file)
    return memory_bytes("VmHWM") - before

print(json.dumps([peak_bytes(file) for file in sys.argv[1:]]))
"""


def progressive(image, mode):
    file = io.BytesIO()
    Image.fromarray(image).convert(mode).save(file, "JPEG", progressive=True, subsampling=0)
    return file.getvalue()


@pytest.fixture(scope="module")
def peaks(tmp_path_factory):
    """Return the peak memory of decoding each kind of file, in bytes per pixel."""
    folder = tmp_path_factory.mktemp("files")
    image = cv2.resize(np.random.default_rng(0).integers(0, 256, (50, 50, 3), np.uint8), (SIDE, SIDE))
    files = {
        "JPEG": cv2.imencode(".jpg", image)[1].tobytes(),
        "progressive JPEG": progressive(image, "RGB"),
        "progressive CMYK JPEG": progressive(image, "CMYK"),
        "PNG": cv2.imencode(".png", image)[1].tobytes(),
        "PNG of 16 bits": cv2.imencode(".png", image.astype(np.uint16) << 8)[1].tobytes(),
        "PPM of 16 bits": cv2.imencode(".ppm", image.astype(np.uint16) << 8)[1].tobytes(),
        "TIFF of 16 bits": cv2.imencode(".tiff", image.astype(np.uint16) << 8)[1].tobytes(),
    }
    for name, file in files.items():
        (folder / name).write_bytes(file)
    arguments = [str(folder / "PNG"), *(str(folder / name) for name in files)]  # the first one loads the libraries
    run = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=True)
    return dict(zip(files, (peak / SIDE**2 for peak in json.loads(run.stdout)[1:]), strict=True))


@pytest.mark.parametrize(
    ("kinds", "limit"),
    [("of 16 bits", 16), ("JPEG", 12), ("PNG$", 6)],
)
def test_decoding_takes_the_documented_memory(peaks, kinds, limit):
    found = {name: peak for name, peak in peaks.items() if re.search(kinds, name)}
    assert found
    assert max(found.values()) < limit + CONSTANT, found
    assert max(found.values()) > limit - 2 * CONSTANT, found
