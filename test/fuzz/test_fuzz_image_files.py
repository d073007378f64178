"""Mutated image files never decode to more pixels than checked, nor take much memory or time.

A case is one mutated file; the tests below try several of them for each generated seed.
"""

import io
import random
import re
import struct
import time
import zlib
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import pytest
from fuzzing import CASES, check_message, fuzz
from hypothesis import strategies as st
from image_bombs import NO_LENGTH, animated_webp, chunk, interlaced_png, tiff
from PIL import Image

from delayed_vlm_ros.errors import ImageError
from delayed_vlm_ros.images import jpeg
from delayed_vlm_ros.images.bit_depth import BitDepth
from delayed_vlm_ros.images.conversion import decode_file
from delayed_vlm_ros.images.validation import validate_file

HEIGHT, WIDTH = 48, 64
MAX_PIXELS = 10_000
MAX_BYTES = 64_000_000  # more than a batch takes, in a large process too; a bomb takes 100 MB and more
MAX_SEC = 2.0  # of CPU time, for one file
BATCH = 15

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")

SCENE = cv2.resize(np.random.default_rng(3).integers(0, 256, (6, 8, 3), np.uint8), (WIDTH, HEIGHT))
DECODE_JPEG, IMDECODE = jpeg.simplejpeg.decode_jpeg, cv2.imdecode


def opencv_file(ending, image=SCENE, *options):
    return cv2.imencode(ending, image, options)[1].tobytes()


def pillow_file(kind, mode="RGB", **options):
    file = io.BytesIO()
    Image.fromarray(SCENE).convert(mode).save(file, kind, **options)
    return file.getvalue()


GREY = np.ascontiguousarray(SCENE[..., 0])
THUMBNAIL = b"Exif\0\0MM\0*\0\0\0\x08" + bytes(6) + opencv_file(".jpg", GREY)
JPEGS = [
    opencv_file(".jpg"),
    opencv_file(".jpg", GREY),
    opencv_file(".jpg", SCENE, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    opencv_file(".jpg", GREY, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    opencv_file(".jpg", SCENE, cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
    pillow_file("JPEG", "CMYK"),
    pillow_file("JPEG", exif=THUMBNAIL, icc_profile=bytes(500)),
    pillow_file("JPEG", subsampling=0, optimize=True),
]
PNGS = [
    opencv_file(".png"),
    opencv_file(".png", GREY),
    opencv_file(".png", SCENE.astype(np.uint16) * 16),
    opencv_file(".png", GREY.astype(np.uint16) * 16),
    pillow_file("PNG", "P", pnginfo=None),
    pillow_file("PNG", "1"),
    pillow_file("PNG", "RGBA"),
    pillow_file("PNG", icc_profile=bytes(500), exif=THUMBNAIL),
    interlaced_png(HEIGHT, WIDTH),
]
OTHERS = [
    opencv_file(".webp"),
    pillow_file("WEBP", lossless=True, exif=THUMBNAIL),
    animated_webp(HEIGHT, WIDTH),
    *(pillow_file("TIFF", compression=name) for name in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")),
    tiff(HEIGHT, WIDTH, tags={322: 64, 323: 48, 324: "offset", 325: "length"}),
    tiff(HEIGHT, WIDTH, tags={273: "offset", 279: "length", 278: HEIGHT}),
    opencv_file(".jp2"),
    opencv_file(".bmp"),
    opencv_file(".gif"),
    opencv_file(".ppm"),
    opencv_file(".pgm", GREY.astype(np.uint16)),
]
SIZES = (HEIGHT, WIDTH, HEIGHT - 1, WIDTH - 1)
LARGE = (100, 5000, 20_000, 30_000, 65_500, 2**24 - 1, 2**31 - 1, 2**32 - 1)
NUMBERS = ("<H", ">H", "<I", ">I")


def mutated_size(file, dice):
    """Replace a number that may be the image's height or width."""
    code = dice.choice(NUMBERS)
    old = struct.pack(code, dice.choice(SIZES))
    places = [found.start() for found in re.finditer(re.escape(old), file[:1000])]
    if not places:
        return file
    place = dice.choice(places[:4])
    new = struct.pack("<Q", dice.choice(LARGE))[: len(old)]
    return file[:place] + (new if code[0] == "<" else new[::-1]) + file[place + len(old) :]


def mutated_bytes(file, dice):
    """Replace, insert, remove or repeat bytes, most of them in the header."""
    place = dice.randrange(len(file) if dice.random() < 0.3 else min(len(file), 120))
    length = dice.choice((1, 1, 2, 4, 20))
    new = dice.choice((dice.randbytes(length), b"", b"\xff" * length, bytes(length), file[place:] * 2))
    return file[:place] + new + file[place + dice.choice((0, length)) :]


def truncated(file, dice):
    return file[: dice.randrange(len(file))] + dice.choice((b"", b"\xff\xd9", bytes(40), file))


def segments(file):
    """Return the segments of a JPEG's header, and the rest of the file."""
    parts, position = [], 2
    while file[position + 1] != 0xDA:
        end = position + 2 + int.from_bytes(file[position + 2 : position + 4], "big")
        parts.append(file[position:end])
        position = end
    return parts, file[position:]


def frame_of(height, width):
    """Return a start-of-frame segment."""
    return b"\xff\xc0" + struct.pack(">HBHH", 17, 8, height, width) + b"\x03\x01\x22\x00\x02\x11\x01\x03\x11\x01"


def jpeg_with_other_segments(file, dice):
    """Insert, repeat, remove or move segments and bytes between them."""
    parts, rest = segments(file)
    large = frame_of(dice.choice((100, 9000, 20_000)), dice.choice((200, 9000, 30_000)))
    inserted = dice.choice(
        (
            dice.choice(tuple(NO_LENGTH.values())),
            b"\xff" * dice.randrange(1, 5),
            dice.randbytes(dice.choice((1, 4, 30))),
            large,
            dice.choice(parts),
            b"\xff\xfe" + struct.pack(">H", 2 + len(large)) + large,
            b"\xff\xe1" + struct.pack(">H", 2 + len(THUMBNAIL)) + THUMBNAIL,
            rest[: dice.randrange(40)],
        )
    )
    parts.insert(dice.randrange(len(parts) + 1), inserted)
    if dice.random() < 0.2:
        parts.pop(dice.randrange(len(parts)))
    if dice.random() < 0.2:
        dice.shuffle(parts)
    return file[:2] + b"".join(parts) + rest


def jpeg_with_two_sizes(file, dice):
    """State one size for parsers that expect a length after each marker, and another for those that do not."""
    parts, rest = segments(file)
    number = dice.randrange(len(parts) + 1)
    before, after = file[:2] + b"".join(parts[:number]), b"".join(parts[number:]) + rest
    large, small = frame_of(9000, 8000), frame_of(HEIGHT, WIDTH)
    trick = dice.choice(tuple(NO_LENGTH.values()))
    if dice.random() < 0.5:
        return before + trick + struct.pack(">H", 2 + len(large)) + large + after
    hidden = b"".join(large if part[1] in (0xC0, 0xC1, 0xC2) else part for part in parts[number:]) + rest
    if dice.random() < 0.5:
        return before + trick + struct.pack(">H", min(2 + len(hidden), 65_535)) + hidden + small
    start = before + trick
    return (start + hidden).ljust(len(start) + int.from_bytes(hidden[:2], "big"), b"\0") + small


def chunks(file):
    parts, position = [], 8
    while position < len(file):
        end = position + 12 + int.from_bytes(file[position : position + 4], "big")
        parts.append(file[position:end])
        position = end
    return parts


COMPRESSED_CHUNKS = [
    chunk(kind, start + zlib.compress(bytes(7_900_000))) * count
    for kind, start, count in ((b"zTXt", b"key\0\0", 50), (b"iCCP", b"key\0\0", 1), (b"IDAT", b"", 1))
]


def png_with_other_chunks(file, dice):
    """Insert, repeat, remove or move chunks; their checksums are right."""
    parts = chunks(file)
    size = struct.pack(">II", dice.choice((HEIGHT, *LARGE)), dice.choice((WIDTH, *LARGE)))
    header = chunk(b"IHDR", size + parts[0][16:21])
    inserted = dice.choice(
        (
            header,
            *COMPRESSED_CHUNKS,
            chunk(b"acTL", struct.pack(">II", dice.choice(LARGE), 0)),
            chunk(b"fcTL", struct.pack(">I", 0) + size + bytes(8) + b"\0\1\0\1\0\0"),
            chunk(b"fdAT", bytes(4) + parts[-2][8:-4]),
            chunk(dice.choice((b"PLTE", b"tRNS", b"eXIf", b"prVt")), dice.randbytes(dice.randrange(30))),
            dice.choice(parts),
        )
    )
    if dice.random() < 0.3:
        parts[0] = header
    parts.insert(dice.randrange(len(parts) + 1), inserted)
    if dice.random() < 0.2:
        parts.pop(dice.randrange(len(parts)))
    return file[:8] + b"".join(parts)


def repeated(part, dice):
    """Return a segment or chunk up to 1,900 times, most of them in at most 300 kB."""
    return part * min(1900, dice.choice((3, 1 + 300_000 // len(part))))


def jpeg_with_repeated_segment(file, dice):
    parts, rest = segments(file)
    number = dice.randrange(len(parts))
    return file[:2] + b"".join((*parts[:number], repeated(parts[number], dice), *parts[number:])) + rest


def png_with_repeated_chunk(file, dice):
    parts = chunks(file)
    number = dice.randrange(len(parts))
    return file[:8] + b"".join((*parts[:number], repeated(parts[number], dice), *parts[number:]))


ANY = (mutated_size, mutated_bytes, truncated)
KINDS = [
    (JPEGS, (*ANY, jpeg_with_other_segments, jpeg_with_two_sizes, jpeg_with_repeated_segment)),
    (PNGS, (*ANY, png_with_other_chunks, png_with_repeated_chunk)),
    (OTHERS, (mutated_size, *ANY)),
]


def mutated(dice):
    """Return a real file with one to three changes; some find nothing to change."""
    files, mutations = dice.choice(KINDS)
    file = dice.choice(mutations)(dice.choice(files), dice)
    for _ in range(dice.choice((0, 0, 1, 2))):
        file = dice.choice(ANY)(file, dice) if file else b"\xff"
    return file


def memory_bytes(name):
    found = re.search(rf"{name}:\s+(\d+) kB", STATUS.read_text())
    return 1024 * int(found[1])


def watched_jpeg(data, *arguments, **options):
    """Decode a JPEG after a check of the size that the decoder reads."""
    size = jpeg.jpeg_size(data)
    assert size is not None
    assert size[0] * size[1] <= MAX_PIXELS
    return DECODE_JPEG(data, *arguments, **options)


def watched_image(data, flags):
    image = IMDECODE(data, flags)
    assert image is None or image.shape[0] * image.shape[1] <= MAX_PIXELS
    return image


@pytest.fixture(scope="module", autouse=True)
def watched_decoders():
    with (
        mock.patch.object(jpeg.simplejpeg, "decode_jpeg", watched_jpeg),
        mock.patch.object(cv2, "imdecode", watched_image),
    ):
        yield


def decode_or_refuse(file):
    began = time.thread_time()
    try:
        image = decode_file(file, BitDepth(), "the file", MAX_PIXELS)
    except ImageError as error:
        check_message(error)
    else:
        assert image.shape[:2] == validate_file(file, "the file", MAX_PIXELS)
        assert image.shape[0] * image.shape[1] <= MAX_PIXELS
    assert time.thread_time() - began < MAX_SEC


@pytest.mark.parametrize("file", [*JPEGS, *PNGS, *OTHERS])
def test_unchanged_file_is_decoded_or_of_an_unsupported_format(file):
    if file[:3] == b"GIF" or b"jP" in file[:8]:
        with pytest.raises(ImageError):
            decode_file(file, BitDepth(), "the file", MAX_PIXELS)
    else:
        assert decode_file(file, BitDepth(), "the file", MAX_PIXELS).shape[:2] == (HEIGHT, WIDTH)


def segment(marker, content):
    return b"\xff" + bytes((marker,)) + struct.pack(">H", 2 + len(content)) + content


UNKNOWN_VERSION = segment(0xE0, b"JFIF\0\x09\x09" + bytes(7))  # the decoder warns, and the header is simplified
LARGE_SEGMENTS = {
    "Adobe": segment(0xEE, b"Adobe\0\x64" + bytes(12_000)),
    "comment": segment(0xFE, bytes(12_000)),
    "restart": segment(0xDD, bytes(2)),
}
LARGE_CHUNKS = {
    "data": chunk(b"IDAT", bytes(12_000)),
    "text": chunk(b"tEXt", b"key\0" + b"a" * 12_000),
    "unknown": chunk(b"prVt", bytes(12_000)),
}


@pytest.mark.parametrize("name", LARGE_SEGMENTS)
@pytest.mark.parametrize("file", [JPEGS[0], JPEGS[2]], ids=["baseline", "progressive"])
def test_jpeg_with_a_segment_repeated_to_megabytes_takes_linear_time(file, name):
    decode_or_refuse(file[:2] + UNKNOWN_VERSION + LARGE_SEGMENTS[name] * 1900 + file[2:])


@pytest.mark.parametrize("name", LARGE_CHUNKS)
@pytest.mark.parametrize("number", [1, -1], ids=["before", "after"])
def test_png_with_a_chunk_repeated_to_megabytes_takes_linear_time(name, number):
    parts = chunks(PNGS[0])
    decode_or_refuse(PNGS[0][:8] + b"".join((*parts[:number], LARGE_CHUNKS[name] * 1900, *parts[number:])))


@fuzz(seed=st.integers(0, 2**32 - 1))
def test_mutated_file_is_decoded_as_checked_or_refused(seed):
    dice = random.Random(seed)
    CLEAR.write_text("5")  # sets the peak to the present memory
    before = memory_bytes("VmRSS")
    for _ in range(BATCH):
        decode_or_refuse(mutated(dice))
    CASES["test_mutated_file_is_decoded_as_checked_or_refused"] += BATCH - 1
    assert memory_bytes("VmHWM") - before < MAX_BYTES
