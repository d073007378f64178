"""From one camera's messages to its memory: counters, stamps, headers, poses, reset and unusable messages."""

import array
import threading
import time
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseStamped
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, Image

from delayed_vlm_ros.images.conversion import ImageConverter, make_converter
from delayed_vlm_ros.ingest.geometry import FrameGeometry
from delayed_vlm_ros.ingest.ingestor import SamplingIngestor
from delayed_vlm_ros.memory import SmartFrameManager
from delayed_vlm_ros.ros.input.frame_headers import FrameHeader
from delayed_vlm_ros.ros.input.poses import PoseBuffer
from delayed_vlm_ros.ros.scene_memory.camera_memory import CameraMemory

START_NS = 1_700_000_000_000_000_000
NOW_NS = START_NS + 5_123_456_789
STEP_NS = 100_000_001  # slightly more than 0.1 s; not representable as float seconds


class Log:
    """A logger that records messages."""

    def __init__(self):
        self.warnings, self.errors = [], []

    def warning(self, text, **_):
        self.warnings.append(text)

    def error(self, text, **_):
        self.errors.append(text)


def make_camera(*, converter=None, sample_fps=10.0, message_type=Image, star=4, stream=6, restarts=False):
    """Return a camera with a small memory; its log and clock are in ``parts``."""
    manager = SmartFrameManager(star, stream)
    parts = SimpleNamespace(log=Log(), now_ns=NOW_NS, waited_sec=0.0)
    camera = CameraMemory(
        "front",
        "/image",
        "/pose",
        message_type,
        ingestor=SamplingIngestor(
            FrameGeometry(factor=2, min_pixels=4, max_pixels=400),
            manager,
            sample_fps,
            topic="/image",
            restart_on_jump=restarts,
        ),
        frame_manager=manager,
        converter=converter or make_converter(),
        poses=PoseBuffer(0.25),
        now_ns=lambda: parts.now_ns,
        logger=parts.log,
        steady=lambda: time.monotonic() + parts.waited_sec,
    )
    camera.parts = parts
    return camera


def message(stamp_ns, shade=100, **fields):
    image = Image(height=8, width=8, encoding="rgb8", step=24, data=array.array("B", [shade]) * 192)
    image.header.stamp = Time(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    image.header.frame_id = "lens"
    for name, value in fields.items():
        setattr(image, name, value)
    return serialize_message(image)


def camera_with(images, **details):
    """Return a camera that has sampled this number of images."""
    camera = make_camera(**details)
    for number in range(images):
        camera.receive(message(START_NS + number * STEP_NS))
    return camera


def counts(camera):
    report = camera.report(receiving=True)
    return report.images_received, report.images_sampled, report.images_dropped


def kept_frames(camera):
    return [frame for kept in camera.frame_manager.snapshot() for frame in kept.pair.present_frames]


def kept_headers(camera):
    return [camera.header_of(frame) for frame in kept_frames(camera)]


def kept_stamps(camera):
    return [frame.stamp for frame in kept_frames(camera)]


def test_report_before_the_first_image_is_empty():
    report = make_camera().report(receiving=False)
    assert (report.images_received, report.images_sampled, report.images_dropped) == (0, 0, 0)
    assert (report.receiving, report.silent_sec, report.frame_id, report.last_drop_reason) == (False, None, "", "")
    assert (report.input_rate_hz, report.sampled_rate_hz) == (0.0, 0.0)
    assert (report.name, report.topic, report.input_warnings) == ("front", "/image", ())


def test_images_faster_than_the_sample_rate_are_sampled():
    # given 30 Hz, sampled at 10 Hz
    camera = make_camera()

    # when
    began = time.monotonic()
    for number in range(90):
        camera.receive(message(START_NS + number * 33_333_333))

    # then
    assert counts(camera) == (90, 30, 0)
    report = camera.report(receiving=True)
    assert report.frame_id == "lens"
    assert 0.0 <= report.silent_sec <= time.monotonic() - began
    assert report.input_rate_hz > report.sampled_rate_hz > 0.0
    assert camera.frame_manager.statistics().total_frames_added == 30


def test_fewer_bits_than_16_are_reported_once():
    # given images of 12 bits in 16
    camera = make_camera()
    values = array.array("B", np.linspace(0, 4095, 64).astype(np.uint16).tobytes())

    # when
    for number in range(3):
        camera.receive(message(START_NS + number * STEP_NS, encoding="mono16", step=16, data=values))

    # then
    assert [text for text in camera.parts.log.warnings if "12 bits" in text and "image_bit_depth" in text]
    assert len(camera.parts.log.warnings) == 1
    assert camera.report(receiving=True).bit_depth == 12
    assert kept_frames(camera)[0].image.max() == 255


def receive_16_bits(camera, *largest_values):
    """Let the camera receive one 16-bit image for each largest value."""
    for value in largest_values:
        values = array.array("B", np.linspace(0, value, 64).astype(np.uint16).tobytes())
        stamp_ns = START_NS + camera.report(receiving=True).images_received * STEP_NS
        camera.receive(message(stamp_ns, encoding="mono16", step=16, data=values))


def test_rise_of_the_depth_to_16_bits_is_reported_and_a_reset_finds_the_depth_again():
    # given a camera of 12 bits, and a damaged image
    camera = make_camera()
    receive_16_bits(camera, 4095, 65535, 4095)
    assert camera.report(receiving=True).bit_depth == 12
    assert len(camera.parts.log.warnings) == 1

    # when
    receive_16_bits(camera, 65535, 65535)

    # then
    assert "16 bits" in camera.parts.log.warnings[1]
    camera.reset()
    receive_16_bits(camera, 4095)
    assert camera.report(receiving=True).bit_depth == 12
    assert kept_frames(camera)[-1].image.max() == 255


def test_values_larger_than_the_stated_depth_are_clipped_and_reported():
    camera = make_camera(converter=make_converter(bit_depth=12))
    receive_16_bits(camera, 4095)
    assert camera.parts.log.warnings == []
    receive_16_bits(camera, 65535, 4095)
    (warning,) = camera.parts.log.warnings
    assert "clipped" in warning
    assert "image_bit_depth" in warning
    assert kept_frames(camera)[-1].image.mean() > 120


def test_truncated_jpeg_is_counted_as_dropped():
    data = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))[1].tobytes()
    camera = make_camera(message_type=CompressedImage)
    for number, length in enumerate((len(data), len(data) // 2)):
        image = CompressedImage(format="jpeg", data=array.array("B", data[:length]))
        image.header.stamp.sec = 100 + number
        camera.receive(serialize_message(image))
    assert counts(camera) == (2, 1, 1)
    assert "truncated" in camera.last_drop_reason


def test_only_due_messages_are_deserialized_and_converted():
    # given
    converted = []
    real = make_converter()
    camera = make_camera(
        converter=ImageConverter("counting", lambda image: converted.append(1) or real.convert(image)),
        sample_fps=1.0,
    )

    # when the second one is cut short, but not due
    camera.receive(message(START_NS))
    camera.receive(message(START_NS + 1)[:12])

    # then
    assert len(converted) == 1
    assert counts(camera) == (2, 1, 0)


def test_header_of_a_kept_frame_is_exact():
    # given
    camera = make_camera()
    for number in range(6):
        camera.receive(message(START_NS + number * STEP_NS))

    # then the stamps have nanoseconds, which the memory's float seconds do not
    assert kept_headers(camera) == [FrameHeader(START_NS + number * STEP_NS, "lens") for number in range(6)]


def test_header_of_an_evicted_frame_is_available():
    # given a question that holds a snapshot
    camera = make_camera()
    camera.receive(message(START_NS))
    (kept,) = camera.frame_manager.snapshot()
    # when
    camera.reset()
    # then
    assert camera.header_of(kept.pair.first) == FrameHeader(START_NS, "lens")


def broken_backend(_message):
    raise ValueError("no such colour")


BAD_MESSAGES = {
    "empty": (b"", "0 bytes"),
    "one byte": (b"\x00", "1 bytes"),
    "unknown encoding": (b"\xca\xfe" + bytes(100), "0xcafe"),
    "cut short": (message(START_NS)[:40], "40 bytes"),
    "wrong step": (message(START_NS, step=3), "step is 3"),
    "no pixels": (message(START_NS, height=0), "8 × 0 pixels"),
    "depth image": (message(START_NS, encoding="16UC1"), "16UC1"),
    "extreme shape": (message(START_NS, width=500, step=1500, height=1, data=array.array("B", bytes(1500))), "500"),
}


@pytest.mark.parametrize("kind", BAD_MESSAGES)
def test_unusable_message_is_dropped_counted_and_logged(kind):
    serialised, named = BAD_MESSAGES[kind]

    # given
    camera = make_camera()

    # when
    camera.receive(serialised)

    # then
    assert counts(camera) == (1, 0, 1)
    assert named in camera.last_drop_reason
    assert camera.report(receiving=True).last_drop_reason == camera.last_drop_reason
    assert camera.parts.log.warnings == [f"camera front: image dropped: {camera.last_drop_reason}"]
    assert camera.parts.log.errors == []
    assert camera.frame_manager.snapshot() == ()
    # and the next usable image is sampled
    camera.receive(message(START_NS + 10**9))
    assert counts(camera) == (2, 1, 1)


def test_image_that_the_converter_rejects_is_dropped():
    camera = make_camera(converter=ImageConverter("broken", broken_backend))
    camera.receive(message(START_NS))
    assert counts(camera) == (1, 0, 1)
    assert "broken" in camera.last_drop_reason
    assert "no such colour" in camera.last_drop_reason


def test_defect_drops_the_image_and_logs_the_traceback(monkeypatch):
    # given
    def fail(*_):
        raise ZeroDivisionError("planted")

    camera = make_camera()
    monkeypatch.setattr(camera.frame_manager, "add", fail)

    # when
    camera.receive(message(START_NS))

    # then
    assert counts(camera) == (1, 0, 1)
    assert camera.last_drop_reason == "ZeroDivisionError: planted"
    assert "Traceback" in camera.parts.log.errors[0]


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_corrupted_message_never_raises(data):
    # given a message with changed bytes, possibly cut short
    damaged = bytearray(message(START_NS))
    for _ in range(data.draw(st.integers(0, 6))):
        # mostly in the fields, which come before the pixels
        position = data.draw(st.integers(0, 70) | st.integers(0, len(damaged) - 1))
        damaged[position] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del damaged[data.draw(st.integers(0, len(damaged))) :]
    camera = make_camera()

    # when
    camera.receive(bytes(damaged))

    # then it is sampled or dropped
    received, sampled, dropped = counts(camera)
    assert (received, sampled + dropped) == (1, 1)


def test_image_without_stamp_gets_its_arrival_time_and_a_warning():
    # given
    camera = make_camera()
    camera.receive(message(NOW_NS - 10**9))
    assert camera.input_warnings == {}

    # when
    camera.receive(message(0))
    camera.parts.now_ns += 10**9
    camera.receive(message(0))

    # then
    assert counts(camera) == (3, 3, 0)
    assert kept_headers(camera)[1:] == [FrameHeader(NOW_NS, "lens"), FrameHeader(NOW_NS + 10**9, "lens")]
    ((kind, warning),) = camera.input_warnings.items()
    assert kind == "stamps_missing"
    assert "header.stamp" in warning
    report = camera.report(receiving=True)
    assert report.input_warnings == (warning,)
    assert f"camera front: {warning}" in camera.warnings
    assert f"camera front: {warning}" in report.warnings


def test_fallback_converter_is_a_warning_but_no_input_warning():
    camera = make_camera(converter=ImageConverter("other", broken_backend, "images are converted by other"))
    assert camera.input_warnings == {}
    assert camera.warnings == ("images are converted by other",)
    assert camera.report(receiving=True).converter == "other"


def receive_hour_old(camera, images):
    """Receive images at 30 Hz whose stamps are an hour old."""
    for number in range(images):
        camera.receive(message(START_NS - 3600 * 10**9 + number * 33_400_000))


def test_single_old_images_are_dropped_and_the_memory_is_kept():
    # given
    camera = camera_with(10)
    kept = kept_stamps(camera)
    # when
    receive_hour_old(camera, 2)
    # then
    assert counts(camera) == (12, 10, 2)
    assert "/image" in camera.last_drop_reason
    assert kept_stamps(camera) == kept
    # and the next image in sequence is sampled
    camera.receive(message(START_NS + 10 * STEP_NS))
    assert counts(camera)[1] == 11
    assert camera.input_warnings == {}


def test_memory_continues_with_a_warning_when_stamps_jump_back():
    # given
    camera = camera_with(10)
    kept = kept_stamps(camera)
    # when half a second of 30 Hz has stamps of an hour ago
    receive_hour_old(camera, 15)
    # then the memory has continued by half a second
    after = kept_stamps(camera)
    assert kept[-1] in after
    assert after[-1] - kept[-1] == pytest.approx(0.4, abs=0.11)
    assert camera.report(receiving=True).times_jumped == 1
    assert "3600" in camera.input_warnings["stamps_went_back"]
    # and headers keep the original stamps
    headers = dict(zip(after, kept_headers(camera), strict=True))
    assert headers[after[-1]].stamp_ns < START_NS - 3590 * 10**9
    assert headers[kept[-1]].stamp_ns == START_NS + 9 * STEP_NS
    # and ages follow the memory's time
    ages = [camera.age_sec(frame) for frame in kept_frames(camera)]
    assert ages == sorted(ages, reverse=True)
    assert ages[0] - ages[-1] == pytest.approx(after[-1] - after[0], abs=0.01)
    assert ages[-1] < 5.0
    # until it is reset
    camera.reset()
    assert "stamps_went_back" not in camera.input_warnings
    camera.receive(message(START_NS))
    assert camera.input_warnings == {}
    assert kept_stamps(camera) == [START_NS / 10**9]


def test_memory_uses_stamps_again_when_they_jump_ahead_again():
    # given
    camera = camera_with(10)
    receive_hour_old(camera, 30)
    # when
    for number in range(30):
        camera.receive(message(START_NS + 25 * 10**8 + number * STEP_NS))
    # then
    assert camera.input_warnings == {}
    assert camera.report(receiving=True).times_jumped == 2
    assert "ahead" in camera.report(receiving=True).last_jump
    stamps = kept_stamps(camera)
    assert stamps == sorted(stamps)
    assert camera.header_of(kept_frames(camera)[-1]).stamp_ns / 10**9 == stamps[-1]


def test_stamps_ahead_of_the_clock_are_a_warning_while_they_are():
    # given
    camera = make_camera()
    # when / then
    camera.receive(message(NOW_NS + 4 * 10**9))
    assert camera.input_warnings == {}
    camera.receive(message(NOW_NS + 6 * 10**9))
    assert "6.000 s" in camera.input_warnings["stamps_ahead"]
    camera.parts.now_ns += 5 * 10**9
    camera.receive(message(NOW_NS + 7 * 10**9))
    assert camera.input_warnings == {}


SECOND = 10**9


def play(camera, stamps_ns, arrivals_ns):
    """Receive images with the given stamps at the given times of the node's clock, which does not jump."""
    for stamp_ns, arrival_ns in zip(stamps_ns, arrivals_ns, strict=True):
        camera.parts.waited_sec = max(camera.parts.waited_sec, (arrival_ns - START_NS) / SECOND)
        camera.parts.now_ns = arrival_ns
        camera.receive(message(stamp_ns))


def arrivals(seconds, fps=10.0):
    """Return the times at which a camera of this rate delivers images."""
    return [START_NS + round(number * SECOND / fps) for number in range(1, round(seconds * fps) + 1)]


FROZEN_STAMPS = {
    "one constant stamp": lambda number: START_NS,
    "two stamps that alternate": lambda number: START_NS + number % 2 * 16_000_000,
    "a counter of nanoseconds": lambda number: START_NS + number,
    "since boot and constant": lambda number: 1000 * SECOND,
    "two stamps an hour apart": lambda number: START_NS - number % 2 * 3600 * SECOND,
}


@pytest.mark.parametrize("kind", FROZEN_STAMPS)
@pytest.mark.parametrize("restarts", [False, True])
def test_frozen_stamps_are_a_warning_and_arrival_times_are_used(kind, restarts):
    # given
    camera = make_camera(sample_fps=2.0, star=8, stream=40, restarts=restarts)
    times = arrivals(20.0)
    # when
    play(camera, [FROZEN_STAMPS[kind](number) for number in range(len(times))], times)
    # then
    assert set(camera.input_warnings) <= {"stamps_frozen"}
    assert {f"camera front: {warning}" for warning in camera.input_warnings.values()} <= set(camera.warnings)
    report = camera.report(receiving=True)
    assert report.images_sampled > 30
    assert report.images_restamped > 150
    assert kept_headers(camera)[-1].stamp_ns > times[-1] - SECOND
    assert f"camera front: {camera.input_warnings['stamps_frozen']}" in camera.parts.log.warnings


def test_constant_stamp_of_a_slow_camera_is_a_warning():
    camera = make_camera(sample_fps=2.0)
    times = arrivals(200.0, fps=0.1)
    play(camera, [START_NS] * len(times), times)
    assert list(camera.input_warnings) == ["stamps_frozen"]
    assert camera.report(receiving=True).images_sampled > 5


def test_stamps_are_used_again_when_they_advance_again():
    # given
    camera = make_camera(sample_fps=2.0)
    play(camera, [START_NS] * 50, arrivals(5.0))
    # when
    times = arrivals(10.0)[50:]
    play(camera, [time_ns - 1000 for time_ns in times], times)
    # then
    assert camera.input_warnings == {}
    assert "arrival times" in camera.warnings[0]
    assert kept_headers(camera)[-1].stamp_ns in {time_ns - 1000 for time_ns in times}
    camera.reset()
    assert camera.warnings == make_camera().warnings


def test_restart_forgets_that_frames_had_arrival_times():
    # given frames with arrival times
    camera = make_camera(restarts=True)
    camera.receive(message(0))
    # when stamps go back and the memory restarts
    for number in range(20):
        camera.parts.now_ns += 10**8
        camera.receive(message(START_NS - 3600 * 10**9 + number * 10**8))
    # then
    assert counts(camera)[1] > 2
    assert not any("arrival times" in warning for warning in camera.warnings)


def test_dropped_image_is_not_counted_as_a_frame_without_pose():
    camera = make_camera()
    camera.poses.receive(pose(START_NS - 10**9, 1))
    for number in range(1, 6):
        camera.receive(message(START_NS + number * 10**9, encoding="32FC1"))
    report = camera.report(receiving=True)
    assert (report.images_dropped, report.frames_without_pose) == (5, 0)


WRONG_STAMPS = {
    "a clock ten times too slow": lambda time_ns: START_NS + (time_ns - START_NS) // 10,
    "whole seconds": lambda time_ns: time_ns // SECOND * SECOND,
    "microseconds as nanoseconds": lambda time_ns: time_ns // SECOND * SECOND + time_ns % SECOND // 1000,
}


@pytest.mark.parametrize("kind", WRONG_STAMPS)
def test_images_due_by_arrival_but_not_by_stamp_are_counted_with_a_warning(kind):
    # given
    camera = make_camera(sample_fps=2.0)
    times = arrivals(45.0)
    # when
    play(camera, [WRONG_STAMPS[kind](time_ns) for time_ns in times], times)
    # then
    report = camera.report(receiving=True)
    assert next(iter(camera.input_warnings)) == "stamps_slow"
    assert f"camera front: {report.input_warnings[0]}" in report.warnings
    expected = 2 * 40  # in full comparisons of ten seconds each
    assert report.images_missed == pytest.approx(expected - report.images_sampled * 40 / 45, abs=3)


@pytest.mark.parametrize("late_sec", [11, 3600, 1_699_999_000])
def test_stamps_older_than_the_clock_are_a_warning_while_they_are(late_sec):
    # the largest one: stamps count from the start of the machine
    # given
    camera = make_camera(sample_fps=2.0)
    times = arrivals(10.0)
    # when
    play(camera, [time_ns - late_sec * SECOND for time_ns in times], times)
    # then
    ((kind, warning),) = camera.input_warnings.items()
    assert kind == "stamps_late"
    assert f"{late_sec}.000 s" in warning
    assert f"camera front: {warning}" in camera.report(receiving=True).warnings
    camera.parts.now_ns = times[-1] - late_sec * SECOND
    camera.receive(message(camera.parts.now_ns + SECOND))
    assert camera.input_warnings == {}


def receive_without_clock(camera, stamps_ns):
    """Receive images ten times a second while the node's clock stands still."""
    for stamp_ns in stamps_ns:
        camera.parts.waited_sec += 0.1
        camera.receive(message(stamp_ns))


def test_unset_simulated_clock_is_a_warning_and_ages_follow_the_stamps():
    # given
    camera = make_camera(sample_fps=2.0, star=8, stream=40)
    camera.parts.now_ns = 0
    # when
    receive_without_clock(camera, [START_NS + number * STEP_NS for number in range(100)])
    # then
    ((kind, warning),) = camera.input_warnings.items()
    assert kind == "clock_unset"
    assert "nobody publishes /clock" in warning
    assert f"camera front: {warning}" in camera.warnings
    ages = [camera.age_sec(frame) for frame in kept_frames(camera)]
    assert ages[0] == pytest.approx(9.5, abs=0.5)
    assert ages[-1] < 1.0


@pytest.mark.parametrize("stamp_ns", [0, START_NS])
def test_images_without_advancing_stamps_are_sampled_without_a_clock(stamp_ns):
    camera = make_camera(sample_fps=2.0, star=8, stream=40)
    camera.parts.now_ns = 0
    receive_without_clock(camera, [stamp_ns] * 200)
    assert "clock_unset" in camera.input_warnings
    assert camera.report(receiving=True).images_sampled > 30
    assert camera.age_sec(kept_frames(camera)[-1]) < 1.0


@pytest.mark.parametrize(
    "serialised", [b"", b"\0\1\0\0", message(START_NS)[:50]], ids=["empty", "without a stamp", "cut short"]
)
def test_unusable_first_message_does_not_hide_the_clock(serialised):
    # given a clock that runs
    camera = make_camera()
    camera.receive(serialised)
    # then
    assert counts(camera) == (1, 0, 1)
    assert camera.input_warnings == {}
    # given a clock that nobody publishes
    camera = make_camera()
    camera.parts.now_ns = 0
    camera.receive(serialised)
    # then
    assert set(camera.input_warnings) == {"clock_unset"}


def test_simulated_clock_that_stops_is_a_warning_until_it_runs_again():
    # given
    camera = make_camera(sample_fps=2.0)
    play(camera, arrivals(10.0), arrivals(10.0))
    # when nobody publishes /clock any more
    receive_without_clock(camera, [START_NS + 10 * SECOND + number * STEP_NS for number in range(100)])
    # then
    ((kind, warning),) = camera.input_warnings.items()
    assert kind == "clock_stopped"
    assert "/clock has stopped for 1" in warning
    assert camera.age_sec(kept_frames(camera)[-1]) < 1.0
    # until it runs again
    later = [START_NS + 20 * SECOND + number * STEP_NS for number in range(10)]
    play(camera, later, later)
    assert camera.input_warnings == {}


def test_leap_ahead_is_a_warning_until_reset_and_ages_follow_the_memory():
    # given a machine that starts in 1970
    camera = camera_with(0)
    camera.parts.now_ns = 25 * SECOND
    for number in range(10):
        camera.receive(message(25 * SECOND + number * STEP_NS))
    # when its clock is set
    camera.parts.now_ns = START_NS + SECOND
    for number in range(10, 20):
        camera.receive(message(START_NS + number * STEP_NS))
    # then
    assert list(camera.input_warnings) == ["stamps_went_ahead"]
    assert f"camera front: {camera.input_warnings['stamps_went_ahead']}" in camera.warnings
    report = camera.report(receiving=True)
    assert report.times_jumped == 1
    assert "jumped ahead" in report.last_jump
    assert any("jumped ahead" in warning for warning in camera.parts.log.warnings)
    ages = [camera.age_sec(frame) for frame in kept_frames(camera)]
    assert ages[0] == pytest.approx(1.9, abs=0.5)
    camera.reset()
    assert camera.input_warnings == {}


CORRECT = {
    "thinned from 30 Hz": (arrivals(60.0, 30.0), arrivals(60.0, 30.0)),
    "0.1 Hz": (arrivals(600.0, 0.1), arrivals(600.0, 0.1)),
    "exactly the sample rate": (arrivals(120.0, 2.0), arrivals(120.0, 2.0)),
    "images arrive in bursts": (
        arrivals(60.0),
        [START_NS + ((time_ns - START_NS) // (4 * SECOND) + 1) * 4 * SECOND for time_ns in arrivals(60.0)],
    ),
    "delayed for ten seconds, then together": (
        arrivals(60.0),
        [START_NS + 30 * SECOND if 20 <= number / 10 < 30 else time for number, time in enumerate(arrivals(60.0), 1)],
    ),
    "images delivered twice": (
        [time_ns for time_ns in arrivals(60.0) for _ in range(2)],
        [time_ns for time_ns in arrivals(60.0) for _ in range(2)],
    ),
    # A simulation, or a bag at a tenth of its rate: the node's clock is as slow as the stamps.
    "a simulated clock that ticks coarsely": (
        arrivals(60.0),
        [time_ns // (SECOND // 2) * (SECOND // 2) for time_ns in arrivals(60.0)],
    ),
    "a paused simulation": (
        [*arrivals(20.0), *[START_NS + 20 * SECOND] * 600],
        [*arrivals(20.0), *[START_NS + 20 * SECOND] * 600],
    ),
    "a pause of an hour": (
        [*arrivals(20.0), *(time_ns + 3600 * SECOND for time_ns in arrivals(20.0))],
        [*arrivals(20.0), *(time_ns + 3600 * SECOND for time_ns in arrivals(20.0))],
    ),
}


@pytest.mark.parametrize("kind", CORRECT)
def test_correct_camera_has_no_warnings(kind):
    # given
    camera = make_camera(sample_fps=2.0)
    # when / then
    for stamp_ns, arrival_ns in zip(*CORRECT[kind], strict=True):
        play(camera, [stamp_ns], [arrival_ns])
        assert camera.warnings == make_camera().warnings
    report = camera.report(receiving=True)
    assert (report.images_missed, report.images_restamped) == (0, 0)


def test_missing_stamps_are_an_input_warning_at_first_and_a_warning_until_reset():
    # given
    camera = make_camera()
    camera.receive(message(0))
    camera.parts.now_ns += 10**9
    # when
    camera.receive(message(NOW_NS + 10**9))
    # then
    assert camera.input_warnings == {}
    assert len(camera.warnings) == len(make_camera().warnings) + 1
    camera.reset()
    assert camera.warnings == make_camera().warnings


def test_memory_restarts_when_stamps_jump_back_if_configured():
    # given
    camera = camera_with(10, restarts=True)
    # when
    camera.parts.now_ns = START_NS - 3600 * 10**9
    receive_hour_old(camera, 30)
    # then
    assert all(stamp < START_NS / 10**9 - 3590 for stamp in kept_stamps(camera))
    assert camera.report(receiving=True).times_jumped == 1
    assert camera.parts.log.warnings[-1] == f"camera front: {camera.report(receiving=True).last_jump}"
    assert camera.input_warnings == {}


@pytest.mark.parametrize("seconds", [-5.0, 60.0])
def test_memory_restarts_when_the_simulated_clock_jumps_if_configured(seconds):
    for restarts in (True, False):
        camera = make_camera(restarts=restarts)
        camera.receive(message(START_NS))
        camera.handle_clock_jump(seconds)
        assert len(kept_stamps(camera)) == (0 if restarts else 1)
        assert camera.report(receiving=True).times_jumped == (1 if restarts else 0)


def test_clock_jump_during_a_conversion_does_not_wait_and_restarts_once():
    # given a slow conversion
    began, may_end = threading.Event(), threading.Event()
    real = make_converter()

    def convert(image):
        began.set()
        may_end.wait(10.0)
        return real.convert(image)

    camera = make_camera(restarts=True, converter=ImageConverter("slow", convert))
    may_end.set()
    camera.receive(message(START_NS))
    began.clear()
    may_end.clear()
    receiving = threading.Thread(target=camera.receive, args=(message(START_NS + 10**9),))
    receiving.start()
    assert began.wait(10.0)
    # when
    camera.handle_clock_jump(-5.0)
    camera.handle_clock_jump(-6.0)
    # then
    assert receiving.is_alive()
    may_end.set()
    receiving.join()
    camera.receive(message(START_NS - 10**10))
    assert kept_stamps(camera) == [(START_NS - 10**10) / 10**9]
    assert camera.report(receiving=True).times_jumped == 1


def test_sample_rate_can_change_while_images_arrive():
    camera = make_camera(sample_fps=1.0)
    for number in range(10):
        camera.receive(message(START_NS + number * STEP_NS))
    slow = counts(camera)[1]
    camera.set_sample_rate(10.0)
    for number in range(10, 20):
        camera.receive(message(START_NS + number * STEP_NS))
    assert slow <= 2
    assert counts(camera)[1] == slow + 10


# Poses


def pose(stamp_ns, x):
    stamped = PoseStamped()
    stamped.header.stamp = Time(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    stamped.header.frame_id = "map"
    stamped.pose.position.x = float(x)
    return serialize_message(stamped)


def x_of(header):
    return header.pose.pose.position.x if header.pose else None


def test_frame_keeps_the_nearest_pose_even_if_it_arrives_later():
    # given a pose before an image
    camera = make_camera()
    camera.poses.receive(pose(START_NS - 200_000_000, 1))
    camera.receive(message(START_NS))
    (first,) = kept_headers(camera)
    assert x_of(first) == 1
    # when a nearer pose arrives, and then a farther one
    camera.poses.receive(pose(START_NS + 50_000_000, 2))
    camera.poses.receive(pose(START_NS + 90_000_000, 3))
    assert x_of(first) == 2
    # then the frame keeps it after the buffer has dropped all of them
    for number in range(2100):
        camera.poses.receive(pose(START_NS + 10**9 + number, 4))
    assert x_of(first) == 2
    assert first.pose.header.frame_id == "map"
    # and an image without a near pose has none
    camera.receive(message(START_NS + 5 * 10**9))
    assert x_of(kept_headers(camera)[-1]) is None


def test_poses_before_a_time_jump_are_not_assigned_to_frames_after_it():
    for restarts in (True, False):
        camera = make_camera(restarts=restarts)
        camera.poses.receive(pose(START_NS, 1))
        camera.receive(message(START_NS))
        receive_hour_old(camera, 8)
        assert x_of(kept_headers(camera)[-1]) is None
        camera.poses.receive(pose(START_NS - 3600 * 10**9 + 130_000_000, 2))
        assert x_of(kept_headers(camera)[-1]) == 2
    buffer = PoseBuffer(1.0)
    buffer.receive(pose(START_NS, 1))
    buffer.receive(pose(START_NS - 2 * 10**9, 2))
    header = FrameHeader(START_NS, "lens")
    buffer.attach(header)
    assert header.pose is None


def test_invalid_poses_are_counted_and_not_assigned():
    buffer = PoseBuffer(1.0)
    for invalid in (b"", b"invalid but long enough", pose(0, 1)):
        buffer.receive(invalid)
    assert (buffer.received, buffer.unusable) == (3, 3)
    header = FrameHeader(START_NS, "lens")
    buffer.receive(pose(START_NS, 1)[:30])
    buffer.attach(header)
    assert header.pose is None


def test_image_received_twice_is_sampled_once():
    camera = make_camera()
    camera.receive(message(START_NS))
    camera.receive(message(START_NS))
    assert counts(camera)[:2] == (2, 1)
    assert len(kept_stamps(camera)) == 1


def test_reset_drops_the_frames_and_the_next_image_may_have_any_stamp_and_shape():
    # given images of one shape
    camera = make_camera()
    for number in range(4):
        camera.receive(message(START_NS + number * STEP_NS))

    # when
    camera.reset()

    # then
    assert camera.frame_manager.snapshot() == ()
    camera.receive(
        message(START_NS - 10**12, width=4, step=12, height=16, data=array.array("B", [50]) * 192)
    )  # earlier, and of another shape
    assert counts(camera) == (5, 5, 0)
    (kept,) = camera.frame_manager.snapshot()
    assert kept.frames[0].shape == (16, 4, 3)
    assert kept_headers(camera) == [FrameHeader(START_NS - 10**12, "lens")]


def test_first_image_after_reset_is_due():
    # given
    camera = make_camera()
    camera.receive(message(START_NS))
    camera.receive(message(START_NS + 1))
    assert counts(camera) == (2, 1, 0)

    # when
    camera.reset()
    camera.receive(message(START_NS + 2))

    # then
    assert counts(camera) == (3, 2, 0)


def test_reset_in_another_thread_keeps_frames_and_headers_consistent():
    # given
    camera = make_camera(sample_fps=50.0)
    ended = threading.Event()
    wrong = []

    def reset_often():
        while not ended.is_set():
            camera.reset()
            for kept in camera.frame_manager.snapshot():
                header = camera.header_of(kept.pair.first)
                if abs(header.stamp_ns - kept.stamps[0] * 1e9) > 1000:
                    wrong.append((kept.stamps, header))
            camera.report(receiving=True)

    thread = threading.Thread(target=reset_often)
    thread.start()

    # when
    for number in range(300):
        camera.receive(message(START_NS + number * STEP_NS))
    ended.set()
    thread.join()

    # then
    assert wrong == []
    assert counts(camera) == (300, 300, 0)


def test_compressed_image_is_decoded():
    camera = make_camera(message_type=CompressedImage)
    image = CompressedImage(format="png")
    image.header.stamp = Time(sec=START_NS // 10**9)
    image.header.frame_id = "eye"
    red = np.full((8, 8, 3), (0, 0, 200), np.uint8)
    image.data = array.array("B", cv2.imencode(".png", red)[1].tobytes())
    camera.receive(serialize_message(image))
    assert counts(camera) == (1, 1, 0)
    assert (camera.frame_manager.snapshot()[0].frames[0] == (200, 0, 0)).all()
    assert camera.report(receiving=True).frame_id == "eye"


def test_raw_image_instead_of_a_compressed_one_is_dropped():
    camera = make_camera(message_type=CompressedImage)
    camera.receive(message(START_NS))
    assert counts(camera) == (1, 0, 1)
