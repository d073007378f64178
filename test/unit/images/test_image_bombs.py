"""Small files that claim many pixels, or take very long to decode, are refused before they are decoded."""

import os
import struct
import subprocess
import sys
import time
import zlib
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from image_bombs import (
    NO_LENGTH,
    animated_webp,
    chunk,
    interlaced_png,
    jpeg_with_scans,
    jpeg_with_two_sizes,
    png,
    tiff,
)

from delayed_vlm_ros import dependencies
from delayed_vlm_ros.errors import ImageError
from delayed_vlm_ros.images import jpeg
from delayed_vlm_ros.images.bit_depth import BitDepth
from delayed_vlm_ros.images.conversion import decode_compressed, decode_file
from delayed_vlm_ros.images.validation import MAX_IMAGE_PIXELS

LIMIT = 1_000_000
KINDS = [{}, {"grey": True}, {"progressive": True}, {"grey": True, "progressive": True}]
TEXT = zlib.compress(bytes(7_900_000), 9)  # the decoder's limit for one text is 8 MB
PIXELS = zlib.compress(bytes(48 * (1 + 3 * 64)))
RGB = np.random.default_rng(1).integers(0, 256, (12, 20, 3), np.uint8)
BMP = cv2.imencode(".bmp", RGB)[1].tobytes()


def decode(file, limit=LIMIT):
    return decode_file(file, BitDepth(), "the file", limit)


def check_refused(file, words, limit=LIMIT):
    """Check that a file is refused quickly and names the reason."""
    began = time.thread_time()
    with pytest.raises(ImageError) as caught:
        decode(file, limit)
    assert words in str(caught.value)
    assert time.thread_time() - began < 3.0  # decoded, these files take 20 s and more


@pytest.fixture
def no_decoder(monkeypatch):
    """Fail where pixels are decoded."""
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    monkeypatch.setattr(jpeg.simplejpeg, "decode_jpeg", lambda *_, **__: pytest.fail("decoded"))


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("trick", NO_LENGTH)
def test_jpeg_with_two_sizes_is_refused_by_the_one_that_is_decoded(trick, padded, kind):
    file = jpeg_with_two_sizes(30_000, 20_000, trick, padded=padded, **kind)
    check_refused(file, "claims 20000 × 30000 pixels, and the limit is 1000000")
    with pytest.raises(ImageError, match="20000 × 30000"):
        decode_compressed(SimpleNamespace(format="jpeg", data=np.frombuffer(file, np.uint8)), BitDepth(), LIMIT)


@pytest.mark.parametrize("trick", ["tem", "rst"])
def test_marker_without_length_does_not_change_a_jpeg(trick):
    file = cv2.imencode(".jpg", RGB)[1].tobytes()
    assert np.array_equal(decode(file[:2] + NO_LENGTH[trick] + file[2:]), decode(file))


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize(
    "file",
    [
        png(48, 64)[:16] + struct.pack(">II", 9000, 8000) + png(48, 64)[24:],
        BMP[:18] + struct.pack("<ii", 9000, -8000) + BMP[26:],
        tiff(8000, 9000, tags={273: "offset", 279: "length", 278: 8000}),
        animated_webp(8000, 9000),
        b"P5 # 1 1\n9000 8000 255 " + bytes(60),
    ],
    ids=["png", "bmp", "tiff", "webp", "pgm"],
)
def test_file_of_another_format_is_refused_by_its_size(file):
    check_refused(file, "the file claims 9000 × 8000 pixels")


@pytest.mark.usefixtures("no_decoder")
def test_file_beyond_the_limit_of_pillow_is_too_large():
    check_refused(animated_webp(16_000, 16_000), "too large (Image size (256000000 pixels)")


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize(
    ("tags", "claimed"),
    [
        ({322: 8192, 323: 16384, 324: "offset", 325: "length"}, "8192 × 16384"),
        ({273: "offset", 279: "length", 278: 4_000_000}, "64 × 4000000"),
    ],
    ids=["tile", "strip"],
)
def test_tiff_with_small_image_and_large_blocks_is_refused(tags, claimed):
    check_refused(tiff(48, 64, tags=tags), claimed)


@pytest.mark.parametrize("rows", [48, 0xFFFFFFFF])
def test_tiff_with_blocks_of_its_size_is_decoded(rows):
    assert decode(tiff(48, 64, tags={273: "offset", 279: "length", 278: rows})).shape == (48, 64)


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize("ending", [".jp2", ".gif", ".hdr", ".sr", ".pam", ".pfm"])
def test_file_of_an_unsupported_format_is_refused_before_decoding(ending):
    image = cv2.resize(RGB, (64, 48))
    image = image.astype(np.float32) if ending in (".hdr", ".pfm") else image
    check_refused(cv2.imencode(ending, image)[1].tobytes(), "cannot read the size of the file")


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize(
    ("file", "fault"),
    [
        (png(48, 64, pixels=zlib.compress(bytes(200_000_000), 9)), "more pixel data than its size needs"),
        (png(48, 64, pixels=PIXELS + bytes(16_000_000)), "data after its pixels"),
        (png(48, 64, after=[chunk(b"IDAT", bytes(1000))] * 16_000), "data after its pixels"),
        (png(48, 64, chunk(b"PLTE", bytes(6)) * 90_000), "more than one PLTE or tRNS chunk"),
        (png(48, 64, chunk(b"prVt", b"") * 800_000), "more than 100000 chunks"),
        (png(48, 64).replace(b"IHDR", b"IHDX"), "cannot read the size"),
        (png(48, 64, chunk(b"tEXt", b"a\0b"))[:60], "incomplete"),
    ],
    ids=["pixels", "tail", "tail in chunks", "palettes", "chunks", "first chunk", "truncated"],
)
def test_png_with_unneeded_data_is_refused_before_decoding(file, fault):
    check_refused(file, fault)


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt"])
@pytest.mark.parametrize("place", ["before", "after"])
def test_texts_of_a_png_are_not_decompressed(kind, place):
    # given 5 MB of texts that the decoder takes 40 s to decompress
    content = b"key\0\0" + TEXT if kind == b"zTXt" else b"key\0\1\0\0\0" + TEXT
    texts = [chunk(kind, content)] * 500
    file = png(48, 64, *texts) if place == "before" else png(48, 64, after=texts)

    # when
    began = time.thread_time()
    image = decode(file)

    # then
    assert image.shape == (48, 64, 3)
    assert time.thread_time() - began < 1.0


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_png_without_unneeded_chunks_is_the_same_image(depth):
    file = cv2.imencode(".png", RGB.astype(depth))[1].tobytes()
    with_text = file[:33] + chunk(b"gAMA", struct.pack(">I", 10_000)) + chunk(b"acTL", bytes(8)) + file[33:]
    assert np.array_equal(decode(with_text), decode(file))


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (48, 64)])
def test_interlaced_png_is_decoded(size):
    assert decode(interlaced_png(*size)).shape == size


def test_jpeg_with_many_scans_is_refused_before_decoding(no_decoder):
    check_refused(jpeg_with_scans(1000, 1000, 880), "more than 32 scans")


def test_jpeg_with_as_many_scans_as_allowed_is_decoded():
    file = jpeg_with_scans(64, 48, 32)
    assert decode(file).shape == (64, 48)
    check_refused(jpeg_with_scans(64, 48, 33), "more than 32 scans")


@pytest.mark.usefixtures("no_decoder")
def test_jpeg_with_many_segments_is_refused_before_decoding():
    file = cv2.imencode(".jpg", RGB)[1].tobytes()
    check_refused(file[:2] + b"\xff\xfe\0\2" * 2000 + file[2:], "2000 segments")


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize("kind", [0xDB, 0xC4])
def test_jpeg_with_large_tables_is_refused_before_decoding(kind):
    file = cv2.imencode(".jpg", RGB)[1].tobytes()
    content = bytes(65 * 17 * 58)  # whole tables of either kind
    tables = b"\xff" + bytes((kind,)) + struct.pack(">H", 2 + len(content)) + content
    check_refused(file[:2] + tables * 2 + file[2:], "100000 bytes of tables")


def test_jpeg_header_is_simplified_in_linear_time():
    # given a harmless warning before 40 MB of segments that stay in the header
    file = cv2.imencode(".jpg", RGB)[1].tobytes()
    adobe = b"\xff\xee" + struct.pack(">H", 40_000) + b"Adobe\0\x64" + bytes(40_000 - 9)
    unknown_version = b"\xff\xe0\0\x10JFIF\0\x09\x09" + bytes(7)

    # when
    began = time.thread_time()
    image = decode(file[:2] + unknown_version + adobe * 1000 + file[2:])

    # then
    assert image.shape == RGB.shape
    assert time.thread_time() - began < 1.0


def test_end_marker_in_a_comment_hides_no_scans(no_decoder):
    file = jpeg_with_scans(64, 48, 33)
    check_refused(file[:2] + b"\xff\xfe\0\x04\xff\xd9" + file[2:], "more than 32 scans")


def test_video_after_a_jpeg_is_ignored():
    # given an image as phones store it, with some seconds of video after it
    file = cv2.imencode(".jpg", RGB)[1].tobytes()
    video = np.random.default_rng(4).integers(0, 256, 3_000_000, np.uint8).tobytes()
    assert np.array_equal(decode(file + video), decode(file))


def test_file_that_decodes_to_another_size_than_checked_is_refused(monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", lambda *_: np.zeros((100, 100, 3), np.uint8))
    check_refused(png(48, 64), "its header states 64 × 48 pixels, and it has 100 × 100")


@pytest.mark.parametrize(("users_value", "pixels"), [(None, 100_000_001), ("500", 501)])
def test_programs_limit_the_decoder_before_they_import_it(tmp_path, users_value, pixels):
    # given a program that decodes an image of one pixel more than allowed
    (tmp_path / "program.py").write_text(
        "import cv2, numpy\n"
        f"file = b'P5 {pixels} 1 255 ' + bytes(1000)\n"
        "def main():\n"
        "    try:\n"
        "        cv2.imdecode(numpy.frombuffer(file, numpy.uint8), cv2.IMREAD_GRAYSCALE)\n"
        "    except cv2.error as error:\n"
        "        print(error)\n"
    )
    (tmp_path / "start.py").write_text(
        "import sys\nfrom delayed_vlm_ros.dependencies import run_program\nsys.exit(run_program('program'))\n"
    )

    # when
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OPENCV")}
    if users_value is not None:
        environment["OPENCV_IO_MAX_IMAGE_PIXELS"] = users_value
    run = subprocess.run(
        [sys.executable, tmp_path / "start.py"], env=environment, capture_output=True, text=True, check=True
    )

    # then
    assert "CV_IO_MAX_IMAGE" in run.stdout


def test_limit_of_the_decoder_is_that_of_images():
    _, limit = dependencies._DECODER_LIMIT
    assert int(limit) == MAX_IMAGE_PIXELS
