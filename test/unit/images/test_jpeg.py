"""Damaged JPEG and PNG data is detected; unusual but intact data is accepted."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from delayed_vlm_ros.errors import ImageError
from delayed_vlm_ros.images.bit_depth import BitDepth
from delayed_vlm_ros.images.conversion import decode_file
from delayed_vlm_ros.images.jpeg import decode_jpeg

RNG = np.random.default_rng(5)


def scene(noise=15, size=(320, 240)):
    """Return smooth colours with a sensor's noise; RGB."""
    smooth = cv2.resize(RNG.integers(0, 256, (12, 16, 3), np.uint8), size, interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth.astype(int) + RNG.integers(-noise, noise + 1, smooth.shape), 0, 255).astype(np.uint8)


def encoded(image, *options, quality=85):
    return cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality, *options])[1].tobytes()


SCENE = scene()
FILE = encoded(SCENE)
SCENE_OF_RESTARTS = cv2.resize(np.random.default_rng(2).integers(0, 256, (6, 8), np.uint8), (96, 64))
PLAIN = decode_jpeg(FILE)
KINDS = {
    "baseline": (),
    "progressive": (cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "restart markers": (cv2.IMWRITE_JPEG_RST_INTERVAL, 4),
    "without subsampling": (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
}


def without_huffman_tables(file):
    kept, position = file[:2], 2
    while file[position + 1] != 0xDA:
        end = position + 2 + int.from_bytes(file[position + 2 : position + 4], "big")
        kept += file[position:end] if file[position + 1] != 0xC4 else b""
        position = end
    return kept + file[position:]


@pytest.mark.parametrize("quality", [5, 30, 60, 90, 100])
@pytest.mark.parametrize("kind", KINDS)
def test_intact_file_is_accepted(kind, quality):
    for image in (scene(0), scene(60), np.zeros((37, 51, 3), np.uint8), (scene(99) // 128) * 255):
        decoded = decode_jpeg(encoded(image, *KINDS[kind], quality=quality))
        assert decoded.shape == image.shape


@pytest.mark.parametrize(
    "file",
    [
        without_huffman_tables(FILE),
        FILE[:-2],
        FILE[:-2] + bytes(500),
        FILE + bytes(5000),
        FILE + bytes(2 * len(FILE)),
        FILE + b"\x01\x02" * 50,
        FILE[:-2] + b"\x11\x22\x33" + FILE[-2:],
    ],
    ids=[
        "no Huffman tables",
        "no end marker",
        "zeros for the end marker",
        "padded",
        "padded to twice its size",
        "other data after the end",
        "surplus bytes before the end",
    ],
)
def test_unusual_files_of_cameras_are_accepted(file):
    assert np.array_equal(decode_jpeg(file), PLAIN)


def with_segment(file, kind, content):
    return file[:2] + bytes((0xFF, kind)) + (len(content) + 2).to_bytes(2, "big") + content + file[2:]


def with_extra_bytes(file):
    """Return the file with surplus bytes before each segment of its header, and before its end."""
    kept, position = file[:2], 2
    while True:
        end = position + 2 + int.from_bytes(file[position + 2 : position + 4], "big")
        kept += b"\x00\x12\x00" + file[position:end]
        if file[position + 1] == 0xDA:
            return kept + file[end:-2] + b"\x11" + file[-2:]
        position = end


def with_icc_profile():
    written = io.BytesIO()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(SCENE).save(written, "JPEG", quality=85, icc_profile=profile)
    return written.getvalue()


JFIF, SCAN, ICC = FILE.index(b"JFIF\0") + 5, FILE.index(b"\xff\xda"), with_icc_profile()
UNUSUAL_HEADERS = {
    "an ICC profile": ICC,
    "a profile without its second part": ICC.replace(b"ICC_PROFILE\0\x01\x01", b"ICC_PROFILE\0\x01\x02"),
    "a profile with a wrong number": ICC.replace(b"ICC_PROFILE\0\x01\x01", b"ICC_PROFILE\0\x03\x02"),
    "JFIF 2.01": FILE[:JFIF] + b"\x02\x01" + FILE[JFIF + 2 :],
    "JFIF 0.0": FILE[:JFIF] + b"\x00\x00" + FILE[JFIF + 2 :],
    "an unknown Adobe transform": with_segment(FILE[:2] + FILE[20:], 0xEE, b"Adobe\0\x64\0\0\0\0\x09"),
    "a damaged EXIF segment": with_segment(FILE, 0xE1, b"Exif\0\0garbage"),
    "other parameters of the scan": FILE[: SCAN + 11] + b"\x00\x00\x00" + FILE[SCAN + 14 :],
    "surplus bytes": with_extra_bytes(FILE),
    "surplus bytes and JFIF 2.01": with_extra_bytes(FILE[:JFIF] + b"\x02\x01" + FILE[JFIF + 2 :]),
}


@pytest.mark.parametrize("kind", UNUSUAL_HEADERS)
def test_unusual_header_is_accepted_and_damage_after_it_is_found(kind):
    # given
    file = UNUSUAL_HEADERS[kind]
    expected = decode_jpeg(ICC) if "profile" in kind else PLAIN
    assert np.array_equal(decode_jpeg(file), expected)
    assert np.abs(expected.astype(int) - SCENE).mean() < 10

    # when a tenth is lost, or the file is truncated
    for damaged in (file[: len(file) // 2] + file[len(file) * 6 // 10 :], file[: len(file) * 9 // 10]):
        with pytest.raises(ImageError) as caught:
            decode_jpeg(damaged)

        # then the decoder finds it, as in a file with a usual header
        assert "blocks" not in str(caught.value)


def test_grey_file_is_decoded_to_one_channel():
    grey = cv2.cvtColor(SCENE, cv2.COLOR_RGB2GRAY)
    assert decode_jpeg(cv2.imencode(".jpg", grey)[1].tobytes()).shape == grey.shape


@pytest.mark.parametrize("ending", [b"", b"\xff\xd9", bytes(3000), bytes(3000) + b"\xff\xd9"])
@pytest.mark.parametrize("kind", KINDS)
def test_truncated_file_is_refused(kind, ending):
    file = encoded(SCENE, *KINDS[kind])
    for share in (0.3, 0.6, 0.9, 0.99):
        with pytest.raises(ImageError) as caught:
            decode_jpeg(file[: int(share * len(file))] + ending, "'a.jpg'")
        assert "'a.jpg'" in str(caught.value)


def test_most_damage_inside_a_file_is_refused():
    # given files with up to a hundred bytes lost, zeroed or overwritten, without restart markers
    missed = found = 0
    for number in range(120):
        image = scene(number % 3 * 10)
        file = bytearray(encoded(image, quality=(60, 90)[number % 2]))
        plain = decode_jpeg(bytes(file)).astype(int)
        start = int(RNG.integers(len(file) // 4, len(file) - 200))
        length = int(RNG.integers(1, 100))
        content = (b"", bytes(length), RNG.integers(0, 256, length, np.uint8).tobytes())[number // 2 % 3]
        file[start : start + length] = content

        # when
        try:
            missed += np.abs(decode_jpeg(bytes(file)) - plain).mean() > 2
        except ImageError:
            found += 1

    # then (JPEG has no checksum: some damage cannot be detected)
    assert found >= 8 * missed
    assert found > 80


@pytest.mark.parametrize("change", ["lost", "zeroed", "truncated"])
def test_damaged_png_is_refused(change):
    file = cv2.imencode(".png", SCENE)[1].tobytes()
    middle = len(file) // 2
    rest = {"lost": file[middle + 9 :], "zeroed": bytes(9) + file[middle + 9 :], "truncated": b""}[change]
    with pytest.raises(ImageError):
        decode_file(file[:middle] + rest, BitDepth(), "'a.png'")


def test_truncated_webp_is_refused():
    file = cv2.imencode(".webp", SCENE)[1].tobytes()
    with pytest.raises(ImageError):
        decode_file(file[: len(file) // 2], BitDepth(), "'a.webp'")


@pytest.mark.parametrize("shift", [0, 1, 2, 3])
def test_jpeg_truncated_between_restart_markers_is_refused(shift):
    # given every length of a file; some cuts look like surplus bytes before the end
    file = cv2.imencode(".jpg", SCENE_OF_RESTARTS, [cv2.IMWRITE_JPEG_RST_INTERVAL, 2])[1].tobytes()
    for length in range(len(file) // 4 + shift, len(file) - 4, 4):
        with pytest.raises(ImageError):
            decode_jpeg(file[:length])
