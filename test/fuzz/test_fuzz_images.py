"""Arbitrary image messages return an image or raise ``ImageError``, and cost no kept frame."""

import array
import itertools
from unittest import mock

import cv2
import numpy as np
import pytest
from fuzzing import check_message, flipped, fuzz
from hypothesis import strategies as st

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from builtin_interfaces.msg import Time
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, Image

from delayed_vlm_ros.errors import ImageError
from delayed_vlm_ros.images import validation
from delayed_vlm_ros.images.bit_depth import BitDepth
from delayed_vlm_ros.images.conversion import decode_file, make_converter
from delayed_vlm_ros.images.validation import OTHER_NAMES, PIXEL_BYTES, data_bytes
from delayed_vlm_ros.ingest.geometry import FrameGeometry
from delayed_vlm_ros.ingest.ingestor import SamplingIngestor
from delayed_vlm_ros.memory import SmartFrameManager
from delayed_vlm_ros.ros.input.poses import PoseBuffer
from delayed_vlm_ros.ros.scene_memory.camera_memory import CameraMemory

CONVERTER = make_converter()
SHOWN = cv2.resize(np.random.default_rng(1).integers(0, 256, (3, 4, 3), np.uint8), (20, 12))
FILES = [cv2.imencode(ending, shown)[1].tobytes() for shown in (SHOWN, SHOWN[..., 0]) for ending in (".jpg", ".png")]
FORMATS = [
    "jpeg",
    "png",
    "rgb8; jpeg compressed bgr8",
    "bayer_rggb8; png compressed ",
    "16UC1; compressedDepth",
    "?",
    "jpeg\x1b]0;x\x07\n",
]
ENCODINGS = [*PIXEL_BYTES, *OTHER_NAMES]
CHANGES = st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=8)
NUMBERS = itertools.count(1)


@pytest.fixture(scope="module", autouse=True)
def no_large_images():
    """Lower the size limit to save time."""
    with mock.patch.object(validation, "MAX_IMAGE_PIXELS", 10_000):
        yield


def convert_or_reject(message):
    try:
        image = CONVERTER.convert(message)
    except ImageError as error:
        check_message(error)
        return
    assert (image.dtype, image.ndim, image.shape[2]) == (np.uint8, 3, 3)
    assert image.flags.c_contiguous
    assert image.size


@fuzz(
    height=st.integers(0, 9) | st.sampled_from([2**16, 2**31, 2**32 - 1]),
    width=st.integers(0, 9) | st.sampled_from([2**16, 2**31, 2**32 - 1]),
    encoding=st.sampled_from([*ENCODINGS, "16UC1", "8UC3", "nv61", "RGB8", "\x9b2J\n"]) | st.text(max_size=8),
    step=st.integers(0, 80) | st.just(2**32 - 1),
    bigendian=st.integers(0, 255),
    data=st.binary(max_size=700),
)
def test_arbitrary_image_fields_return_image_or_raise_image_error(height, width, encoding, step, bigendian, data):
    message = Image(height=height, width=width, encoding=encoding, is_bigendian=bigendian, step=step)
    message.data = array.array("B", data)
    convert_or_reject(message)


@fuzz(
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    encoding=st.sampled_from(ENCODINGS),
    padding=st.integers(0, 9),
    missing=st.integers(-3, 12),
    bigendian=st.integers(0, 1),
    seed=st.integers(0, 255),
)
def test_nearly_fitting_image_is_converted_or_rejected(height, width, encoding, padding, missing, bigendian, seed):
    known = OTHER_NAMES.get(encoding, encoding)
    step = width * PIXEL_BYTES[known] + padding
    size = max(0, data_bytes(known, height, width, step) - missing)
    message = Image(height=height, width=width, encoding=encoding, is_bigendian=bigendian, step=step)
    message.data = array.array("B", bytes((seed + number * 7) % 256 for number in range(size)))
    convert_or_reject(message)


@fuzz(
    file=st.sampled_from(FILES),
    changes=CHANGES,
    length=st.integers(-40, 0) | st.integers(0, 400),
    kind=st.sampled_from(FORMATS),
)
def test_damaged_file_returns_image_or_raises_image_error(file, changes, length, kind):
    convert_or_reject(CompressedImage(format=kind, data=array.array("B", flipped(file, changes, length))))


SCENE = cv2.resize(np.random.default_rng(2).integers(0, 256, (6, 8, 3), np.uint8), (96, 64))
# No progressive file: truncated between two scans, it is a valid file of a coarser image.
JPEGS = [
    cv2.imencode(".jpg", shown, options)[1].tobytes()
    for shown in (SCENE, SCENE[..., 0])
    for options in ([], [cv2.IMWRITE_JPEG_RST_INTERVAL, 2])
]
PNGS = [cv2.imencode(".png", shown)[1].tobytes() for shown in (SCENE, SCENE[..., 0].astype(np.uint16) * 16)]


@fuzz(file=st.sampled_from(JPEGS), share=st.floats(0, 1), ending=st.sampled_from([b"", b"\xff\xd9", bytes(700)]))
def test_truncated_jpeg_is_the_whole_image_or_refused(file, share, ending):
    plain = decode_file(file, BitDepth(), "the file")
    try:
        image = decode_file(file[: round(share * len(file))] + ending, BitDepth(), "the file")
    except ImageError as error:
        check_message(error)
        return
    assert np.array_equal(image, plain)


@fuzz(file=st.sampled_from(PNGS), changes=CHANGES, length=st.integers(-40, 0) | st.integers(0, 2000))
def test_damaged_png_is_the_same_image_or_refused(file, changes, length):
    plain = decode_file(file, BitDepth(), "the file")
    try:
        image = decode_file(flipped(file, changes, length), BitDepth(), "the file")
    except ImageError as error:
        check_message(error)
        return
    assert np.array_equal(image, plain)


@fuzz(
    bits=st.integers(8, 16),
    seed=st.integers(0, 2**32 - 1),
    divisors=st.lists(st.integers(1, 300), min_size=1, max_size=6),
)
def test_16_bit_images_of_one_camera_keep_the_ratio_of_their_brightness(bits, seed, divisors):
    # given a bright image, then darker ones
    values = np.random.default_rng(seed).integers(0, 1 << bits, (12, 20)).astype(np.uint16)
    values[0, 0] = (1 << bits) - 1
    depth = BitDepth()
    bright = depth.to_8_bits(values).astype(int)

    # then all of them are scaled by one factor
    assert bright.max() >= 63  # between two depths
    for divisor in divisors:
        dark = depth.to_8_bits(values // divisor)
        assert np.abs(dark - bright / divisor).max() <= 1


class StrictLogger:
    """A logger that fails the test on errors."""

    def warning(self, *_, **__):
        pass

    def error(self, text, **_):
        raise AssertionError(text)


def camera(message_type, *, restarts):
    manager = SmartFrameManager(4, 4)
    geometry = FrameGeometry(factor=2, min_pixels=4, max_pixels=400)
    return CameraMemory(
        "front",
        "/image",
        "/pose",
        message_type,
        ingestor=SamplingIngestor(geometry, manager, 10.0, topic="/image", restart_on_jump=restarts),
        frame_manager=manager,
        converter=CONVERTER,
        poses=PoseBuffer(0.25),
        now_ns=lambda: next(NUMBERS) * 10**9,
        logger=StrictLogger(),
    )


CAMERAS = {
    (kind, restarts): camera(kind, restarts=restarts) for kind in (Image, CompressedImage) for restarts in (True, False)
}


@fuzz(
    kind=st.sampled_from([Image, CompressedImage]),
    restarts=st.booleans(),
    changes=CHANGES,
    length=st.integers(-40, 0),
    seconds=st.integers(0, 2**31 - 1) | st.none(),
    nanosec=st.integers(0, 2**32 - 1),
)
def test_arbitrary_message_is_counted_once_and_keeps_memory_valid(kind, restarts, changes, length, seconds, nanosec):
    # given a serialized message with some changed bytes, and a stamp that advances or jumps
    message = kind()
    if kind is Image:
        message.height, message.width, message.encoding, message.step = 4, 6, "rgb8", 18
        message.data = array.array("B", bytes(72))
    else:
        message.format, message.data = "png", array.array("B", FILES[1])
    stamp = next(NUMBERS) if seconds is None else seconds
    message.header.stamp = Time(sec=stamp, nanosec=nanosec)
    message.header.frame_id = "lens"
    one = CAMERAS[kind, restarts]
    before = one.report(receiving=True)

    # when
    one.receive(flipped(bytes(serialize_message(message)), changes, length))

    # then it is counted once, and the memory is valid
    report = one.report(receiving=True)
    assert report.images_received == before.images_received + 1
    kept = one.frame_manager.snapshot()
    frames = [frame for pair in kept for frame in pair.pair.present_frames]
    stamps = [frame.stamp for frame in frames]
    assert stamps == sorted(set(stamps))
    assert len({frame.image.shape for frame in frames}) <= 1
    assert len(frames) <= one.frame_manager.capacity
