"""Bad requests and bad images: a clear word, the node lives, no kept frame is lost."""

import array
import math

import cv2
import numpy as np
import pytest
from builtin_interfaces.msg import Time
from delayed_vlm_ros.srv import AskScene
from harness import nanoseconds, values_of
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header
from waiting import wait_until

RESPONSE = AskScene.Response


@pytest.fixture(scope="module")
def running(start_for_module):
    process, client = start_for_module(memory__sample_fps=50.0)
    client.wait_until_ready()
    client.show_images(2)
    return process, client


def test_an_ask_before_the_first_image_says_what_to_check(start):
    _, client = start()
    client.wait_until_active()
    response = client.ask()
    assert not response.success
    assert response.error_code == RESPONSE.NO_FRAMES
    assert client.namespace + "/image" in response.error_msg
    camera = client.wait_for_status("camera camera", lambda status: "no image yet" in status.message)
    assert camera.level == b"\x01"


@pytest.mark.parametrize(
    ("request_fields", "code", "words"),
    [
        ({"question": ""}, RESPONSE.BAD_REQUEST, "question is empty"),
        ({"question": " \n"}, RESPONSE.BAD_REQUEST, "question is empty"),
        ({"question": "x" * 2001}, RESPONSE.BAD_REQUEST, "2001 characters"),
        ({"camera": "rear"}, RESPONSE.UNKNOWN_CAMERA, "the cameras are camera; leave it empty"),
        ({"since": Time(sec=20), "until": Time(sec=10)}, RESPONSE.BAD_REQUEST, "since (20.000 s) is after until"),
        ({"since": Time(sec=-5)}, RESPONSE.BAD_REQUEST, "since is -5 s"),
        ({"until": Time(sec=5, nanosec=2_000_000_000)}, RESPONSE.BAD_REQUEST, "until is 5 s"),
        ({"until": Time(sec=5)}, RESPONSE.NO_FRAMES, "no frames within the limits"),
        ({"last_sec": -1.0}, RESPONSE.BAD_REQUEST, "last_sec is -1"),
        ({"last_sec": math.nan}, RESPONSE.BAD_REQUEST, "last_sec is nan"),
        ({"timeout_sec": -1.0}, RESPONSE.BAD_REQUEST, "timeout_sec is -1"),
        ({"timeout_sec": math.inf}, RESPONSE.BAD_REQUEST, "timeout_sec is inf"),
        ({"max_new_tokens": 4_000_000_000}, RESPONSE.BAD_REQUEST, "max_new_tokens is 4000000000"),
        # Worker and desk look at the deadline by themselves; the advice is the same whoever sees it first.
        ({"question": "work 600", "timeout_sec": 0.3}, RESPONSE.TIMEOUT, "allow more time"),
        ({"question": "defect"}, RESPONSE.INTERNAL, "ZeroDivisionError: planted"),
        ({"question": "out of memory"}, RESPONSE.OUT_OF_MEMORY, "ran out of memory"),
    ],
)
def test_a_bad_request_is_answered_with_its_reason(running, request_fields, code, words):
    process, client = running
    response = client.ask(**request_fields)
    assert not response.success
    assert response.error_code == code, response.error_msg
    assert words in response.error_msg
    assert response.answer == ""
    assert client.ask().success
    assert process.alive


def test_failed_asks_are_counted_and_shown_for_a_moment(running):
    _, client = running
    before = client.wait_for_stats()
    # when
    client.ask(camera="rear")
    # then
    reported_ns = nanoseconds(before.header.stamp)
    status = client.wait_for_status("asks", lambda status: "1 questions failed" in status.message, since_ns=reported_ns)
    assert "no camera 'rear'" in status.message
    client.wait_for_status("asks", lambda status: status.level == b"\x00")
    assert client.wait_for_stats().asks_failed == before.asks_failed + 1


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
def test_a_bad_image_costs_nothing_and_is_told(running, fields, words):
    process, client = running
    kept = client.ask().frames_used
    before = client.wait_for_stats()
    # when
    bad = client.image()
    for name, value in fields.items():
        setattr(bad, name, value)
    client.publish(bad)
    # then
    reported_ns = nanoseconds(before.header.stamp)
    status = client.wait_for_status("camera camera", lambda status: words in status.message, since_ns=reported_ns)
    assert status.level == b"\x01"
    assert words in values_of(status)["last drop reason"]
    stats = client.wait_for_stats()
    assert words in stats.last_drop_reason
    assert stats.images_dropped == before.images_dropped + 1
    assert stats.images_received == before.images_received + 1
    now = client.ask().frames_used
    assert [frame.id for frame in now] == [frame.id for frame in kept]
    assert process.alive


def test_a_camera_that_falls_silent_is_stale_until_it_returns(start):
    _, client = start(memory__sample_fps=50.0, diagnostics__stale_after_sec=0.5)
    client.wait_until_active()
    client.show_images(2)
    status = client.wait_for_status("camera camera", lambda status: status.level == b"\x03")
    assert client.namespace + "/image" in status.message
    # when it returns, and goes on until it is noticed
    returned_ns = client.now_ns()

    def noticed():
        client.publish(client.image())
        return client.find_status("camera camera", lambda status: status.level == b"\x00", returned_ns)

    wait_until(noticed, "images again")


def test_a_camera_without_stamps_gets_those_of_arrival_and_is_told(start):
    _, client = start(memory__sample_fps=50.0)
    client.wait_until_active()
    began_ns = client.now_ns()

    def remembered():
        client.publish(client.image(header=Header()))
        return client.find_stats(lambda stats: stats.images_sampled >= 2, began_ns)

    wait_until(remembered, "two images remembered")
    response = client.ask()
    assert began_ns <= nanoseconds(response.frames_used[0].header.stamp) <= client.now_ns()
    assert any("without time stamps" in note for note in response.metrics.warnings)
    client.wait_for_status("camera camera", lambda status: "without time stamps" in status.message)


def test_compressed_images_come_on_the_compressed_topic_of_the_same_name(start):
    _, client = start(image_transport="compressed", memory__sample_fps=50.0, remap={"image": "front/image"})
    client.wait_until_active()
    jpeg = cv2.imencode(".jpg", np.full((48, 64, 3), 90, np.uint8))[1].tobytes()

    def publish_until(condition, data):
        def found():
            message = CompressedImage(header=client.image().header, format="jpeg", data=array.array("B", data))
            client.publish(message, "front/image/compressed")
            return client.find_stats(condition, 0)

        wait_until(found, "the image's effect")

    publish_until(lambda stats: stats.images_sampled >= 2, jpeg)
    publish_until(lambda stats: "neither a JPEG nor a PNG" in stats.last_drop_reason, b"\xff\xd8 this is no image")
    assert client.ask().success
