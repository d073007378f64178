"""Bad requests and bad pictures: a clear word, the node lives, no kept frame is lost."""

import array
import math

import cv2
import numpy as np
import pytest
from builtin_interfaces.msg import Time
from delayed_vlm_ros.srv import AskScene
from harness import values_of
from sensor_msgs.msg import CompressedImage

RESPONSE = AskScene.Response


@pytest.fixture(scope="module")
def running(start_for_module):
    process, client = start_for_module(memory__sample_fps=50.0)
    client.wait_until_active()
    client.reset()
    return process, client


def test_an_ask_before_the_first_picture_says_what_to_check(start):
    _, client = start()
    client.wait_for_status("lifecycle", lambda status: status.message == "active")
    response = client.ask()
    assert not response.success
    assert response.error_code == RESPONSE.NO_FRAMES
    assert client.namespace + "/image" in response.error_msg
    camera = client.wait_for_status("camera camera", lambda status: "no picture yet" in status.message)
    assert camera.level == b"\x01"


@pytest.mark.parametrize(
    ("request_fields", "code", "words"),
    [
        ({"question": ""}, RESPONSE.BAD_REQUEST, "question is empty"),
        ({"question": " \n"}, RESPONSE.BAD_REQUEST, "question is empty"),
        ({"question": "x" * 2001}, RESPONSE.BAD_REQUEST, "2001 characters"),
        ({"camera": "rear"}, RESPONSE.UNKNOWN_CAMERA, "the cameras are camera"),
        ({"since": Time(sec=20), "until": Time(sec=10)}, RESPONSE.BAD_REQUEST, "since (20.000 s) is after until"),
        ({"since": Time(sec=-5)}, RESPONSE.BAD_REQUEST, "since is -5 s"),
        ({"until": Time(sec=5, nanosec=2_000_000_000)}, RESPONSE.BAD_REQUEST, "until is 5 s"),
        ({"until": Time(sec=5)}, RESPONSE.NO_FRAMES, "no frames within the limits"),
        ({"last_sec": -1.0}, RESPONSE.BAD_REQUEST, "last_sec is -1"),
        ({"last_sec": math.nan}, RESPONSE.BAD_REQUEST, "last_sec is nan"),
        ({"timeout_sec": -1.0}, RESPONSE.BAD_REQUEST, "timeout_sec is -1"),
        ({"timeout_sec": math.inf}, RESPONSE.BAD_REQUEST, "timeout_sec is inf"),
        ({"max_new_tokens": 4_000_000_000}, RESPONSE.BAD_REQUEST, "max_new_tokens is 4000000000"),
        ({"question": "work 5", "timeout_sec": 0.3}, RESPONSE.TIMEOUT, "0.3 s"),
        ({"question": "defect"}, RESPONSE.INTERNAL, "ZeroDivisionError: planted"),
        ({"question": "out of memory"}, RESPONSE.OUT_OF_MEMORY, "ran out of memory"),
    ],
)
def test_a_bad_request_is_answered_with_its_reason(running, request_fields, code, words):
    process, client = running
    if not client.stats or client.stats.unique_frames == 0:
        client.show_pictures(2)
    response = client.ask(**request_fields)
    assert not response.success
    assert response.error_code == code, response.error_msg
    assert words in response.error_msg
    assert response.answer == ""
    assert client.ask().success
    assert process.alive


def test_failed_asks_are_counted_and_shown_for_a_moment(running):
    _, client = running
    client.show_pictures(2)
    failed = client.stats.asks_failed
    client.ask(camera="rear")
    status = client.wait_for_status("asks", lambda status: "1 asks failed" in status.message)
    assert "no camera 'rear'" in status.message
    client.wait_for_status("asks", lambda status: status.level == b"\x00", 4.0)
    assert client.wait_for_stats(lambda stats: stats.asks_failed > failed).asks_failed == failed + 1


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"height": 0}, "64 × 0 pixels"),
        ({"width": 0}, "0 × 48 pixels"),
        ({"step": 100}, "step is 100"),
        ({"data": array.array("B", bytes(1000))}, "data has 1000 bytes"),
        ({"encoding": "plaid8"}, "'plaid8' is unknown"),
        ({"encoding": "16UC1"}, "16UC1 is a depth image"),
        ({"height": 100_000, "width": 100_000, "step": 300_000}, "100000 × 100000 pixels"),
    ],
)
def test_a_bad_picture_costs_nothing_and_is_told(running, fields, words):
    process, client = running
    client.show_pictures(2)
    kept = client.ask().frames_used
    received = client.wait_for_stats(lambda stats: stats.unique_frames > 0).images_received
    # when
    bad = client.image()
    for name, value in fields.items():
        setattr(bad, name, value)
    client.publish(bad)
    # then
    status = client.wait_for_status("camera camera", lambda status: words in values_of(status)["last drop reason"])
    assert status.level == b"\x01"
    assert words in status.message
    stats = client.wait_for_stats(lambda stats: words in stats.last_drop_reason)
    assert stats.images_dropped > 0
    assert stats.images_received >= received
    now = client.ask().frames_used
    assert [frame.id for frame in now] == [frame.id for frame in kept]
    assert process.alive


def test_a_camera_that_falls_silent_is_stale_until_it_returns(start):
    _, client = start(memory__sample_fps=50.0, diagnostics__stale_after_sec=0.5)
    client.wait_until_active()
    client.show_pictures(2)
    status = client.wait_for_status("camera camera", lambda status: status.level == b"\x03", 3.0)
    assert client.namespace + "/image" in status.message
    client.show_pictures(1)
    client.wait_for_status("camera camera", lambda status: status.level == b"\x00", 2.0)


def test_a_camera_without_stamps_gets_those_of_arrival_and_is_told(start):
    _, client = start(memory__sample_fps=50.0)
    client.wait_for_status("lifecycle", lambda status: status.message == "active")
    client.wait_for_stats(lambda stats: True)

    def remembered(stats):
        client.publish(client.image(header=type(client.image().header)()))
        return stats.images_sampled >= 2

    client.wait_for_stats(remembered)
    response = client.ask()
    now = client.node.get_clock().now().to_msg().sec
    assert abs(response.frames_used[0].header.stamp.sec - now) < 20
    assert any("without time stamps" in note for note in response.metrics.degraded)
    client.wait_for_status("camera camera", lambda status: "without time stamps" in status.message)


def test_compressed_pictures_come_on_the_compressed_topic_of_the_same_name(start):
    _, client = start(image_transport="compressed", memory__sample_fps=50.0, remap={"image": "front/picture"})
    client.wait_for_status("lifecycle", lambda status: status.message == "active")
    client.wait_for_stats(lambda stats: True)
    picture = np.full((48, 64, 3), 90, np.uint8)

    def publish(data: bytes) -> None:
        message = CompressedImage(format="jpeg")
        message.header.stamp = client.node.get_clock().now().to_msg()
        message.data = array.array("B", data)
        client.publish(message, "front/picture/compressed")

    def remembered(stats):
        publish(cv2.imencode(".jpg", picture)[1].tobytes())
        return stats.images_sampled >= 2

    client.wait_for_stats(remembered)

    def refused(stats):
        publish(b"\xff\xd8 this is no picture")
        return "neither a JPEG nor a PNG" in stats.last_drop_reason

    client.wait_for_stats(refused)
    assert client.ask().success
