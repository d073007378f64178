"""Invalid requests and images over DDS: each is reported, the node keeps running, no kept frame is lost."""

import array
import math
import re
import subprocess
import sys

import cv2
import numpy as np
import pytest
from builtin_interfaces.msg import Time
from delayed_vlm_ros.srv import AskScene
from harness import ROOT, nanoseconds, values_of
from image_bombs import jpeg_with_two_sizes
from rcl_interfaces.msg import Log
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header
from waiting import wait_until

RESPONSE = AskScene.Response
CONTROL = "[\0-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]"


@pytest.fixture(scope="module")
def running(start_for_module):
    process, client = start_for_module(memory__sample_fps=50.0)
    client.wait_until_ready()
    client.show_images(2)
    return process, client


def test_question_before_the_first_image_names_the_topic(start):
    _, client = start()
    client.wait_until_active()
    response = client.ask()
    assert not response.success
    assert response.error_code == RESPONSE.NO_FRAMES
    assert client.namespace + "/image" in response.error_msg
    camera = client.wait_for_status("camera camera", lambda status: "no image yet" in status.message)
    assert camera.level == b"\x01"


@pytest.mark.parametrize(
    ("request_fields", "code", "named"),
    [
        ({"question": ""}, RESPONSE.BAD_REQUEST, "question"),
        ({"question": " \n"}, RESPONSE.BAD_REQUEST, "question"),
        ({"question": "x" * 2001}, RESPONSE.BAD_REQUEST, "2001"),
        ({"camera": "rear"}, RESPONSE.UNKNOWN_CAMERA, "'rear'"),
        ({"since": Time(sec=20), "until": Time(sec=10)}, RESPONSE.BAD_REQUEST, "since"),
        ({"since": Time(sec=-5)}, RESPONSE.BAD_REQUEST, "since"),
        ({"until": Time(sec=5, nanosec=2_000_000_000)}, RESPONSE.BAD_REQUEST, "until"),
        ({"until": Time(sec=5)}, RESPONSE.NO_FRAMES, "no frames"),
        ({"last_sec": -1.0}, RESPONSE.BAD_REQUEST, "last_sec"),
        ({"last_sec": math.nan}, RESPONSE.BAD_REQUEST, "last_sec"),
        ({"timeout_sec": -1.0}, RESPONSE.BAD_REQUEST, "timeout_sec"),
        ({"timeout_sec": math.inf}, RESPONSE.BAD_REQUEST, "timeout_sec"),
        ({"max_new_tokens": 4_000_000_000}, RESPONSE.BAD_REQUEST, "max_new_tokens"),
        # Engine and worker both check the deadline; both give the same remedy.
        ({"question": "work 600", "timeout_sec": 0.3}, RESPONSE.TIMEOUT, "allow more time"),
        ({"question": "defect"}, RESPONSE.INTERNAL, "ZeroDivisionError"),
        ({"question": "out of memory"}, RESPONSE.OUT_OF_MEMORY, "memory"),
    ],
)
def test_invalid_request_is_answered_with_its_reason(running, request_fields, code, named):
    process, client = running
    response = client.ask(**request_fields)
    assert not response.success
    assert response.error_code == code, response.error_msg
    assert named in response.error_msg
    assert response.answer == ""
    assert client.ask().success
    assert process.alive


def test_failed_questions_are_counted_and_shown_once(running):
    _, client = running
    before = client.wait_for_node_stats()
    # when
    client.ask(since=Time(sec=2_000_000_000))
    # then
    reported_ns = nanoseconds(before.header.stamp)
    status = client.wait_for_status(
        "questions", lambda status: "1 questions failed" in status.message, since_ns=reported_ns
    )
    assert "no frames within the limits" in status.message
    client.wait_for_status("questions", lambda status: status.level == b"\x00")
    assert client.wait_for_node_stats().questions_failed == before.questions_failed + 1


def test_mistake_of_a_client_is_not_counted_as_failed(running):
    _, client = running
    before = client.wait_for_node_stats()
    # when
    response = client.ask(camera="rear")
    # then
    assert response.error_code == RESPONSE.UNKNOWN_CAMERA
    after = client.wait_for_node_stats(lambda stats: stats.questions_rejected == before.questions_rejected + 1)
    assert after.questions_failed == before.questions_failed


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"height": 0}, "64 × 0"),
        ({"width": 0}, "0 × 48"),
        ({"step": 100}, "step is 100"),
        ({"data": array.array("B", bytes(1000))}, "data has 1000"),
        ({"encoding": "plaid8"}, "'plaid8'"),
        ({"encoding": "16UC1"}, "16UC1"),
        ({"height": 100_000, "width": 100_000, "step": 300_000}, "100000 × 100000"),
    ],
)
def test_invalid_image_is_reported_and_loses_no_frame(running, fields, named):
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
    status = client.wait_for_status("camera camera", lambda status: named in status.message, since_ns=reported_ns)
    assert status.level == b"\x01"
    assert named in values_of(status)["last drop reason"]
    stats = client.wait_for_stats()
    assert named in stats.last_drop_reason
    assert stats.images_dropped == before.images_dropped + 1
    assert stats.images_received == before.images_received + 1
    now = client.ask().frames_used
    assert [frame.id for frame in now] == [frame.id for frame in kept]
    assert process.alive


def test_silent_camera_is_stale_until_it_returns(start):
    _, client = start(memory__sample_fps=50.0, diagnostics__stale_after_sec=0.5)
    client.wait_until_active()
    client.show_images(2)
    status = client.wait_for_status("camera camera", lambda status: status.level == b"\x03")
    assert client.namespace + "/image" in status.message
    # when it returns, and publishes until that is reported
    returned_ns = client.now_ns()

    def is_ok():
        client.publish(client.image())
        return client.find_status("camera camera", lambda status: status.level == b"\x00", returned_ns)

    wait_until(is_ok, "images again")


def test_images_without_stamps_get_their_arrival_time_and_a_warning(start):
    _, client = start(memory__sample_fps=50.0)
    client.wait_until_active()
    began_ns = client.now_ns()

    def is_sampled():
        client.publish(client.image(header=Header()))
        return client.find_stats(lambda stats: stats.images_sampled >= 2, began_ns)

    wait_until(is_sampled, "two sampled images")
    response = client.ask()
    assert began_ns <= nanoseconds(response.frames_used[0].header.stamp) <= client.now_ns()
    assert any("no stamps" in warning for warning in response.metrics.warnings)
    client.wait_for_status("camera camera", lambda status: "no stamps" in status.message)


def test_compressed_images_are_received_on_the_compressed_topic(start):
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
    publish_until(lambda stats: "JPEG" in stats.last_drop_reason, b"\xff\xd8 not an image")
    bomb = jpeg_with_two_sizes(30_000, 20_000, "tem", padded=True)
    publish_until(lambda stats: "claims 20000 × 30000 pixels" in stats.last_drop_reason, bomb)
    publish_until(lambda stats: stats.images_sampled >= 4, jpeg)
    assert client.ask().success


def test_hostile_text_reaches_no_log_diagnostics_or_terminal(start):
    process, client = start(image_transport="compressed", memory__sample_fps=50.0)
    client.wait_until_active()
    logged = []
    client.node.create_subscription(Log, "/rosout", lambda entry: logged.append(entry.msg), 100)
    hostile = "jpeg\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\n[ERROR] [1.0] [robot]: forged"

    def is_dropped():
        message = CompressedImage(header=Header(frame_id=hostile), format=hostile, data=array.array("B", b"no image"))
        client.publish(message, "image/compressed")
        return any("owned" in text for text in logged)

    # when a camera, a question and a camera's name carry it
    wait_until(is_dropped, "a log message on the dropped image")
    refused = client.ask(hostile, camera=hostile)
    status = client.wait_for_status("camera camera", lambda status: "owned" in values_of(status)["last drop reason"])
    shown = subprocess.run(
        [sys.executable, "-m", "delayed_vlm_ros", "status", "--namespace", client.namespace],
        capture_output=True,
        cwd=ROOT,
        check=True,
    )
    # then it is shown without control characters
    assert "owned" in refused.error_msg
    assert "owned" in process.log
    assert b"owned" in shown.stdout
    texts = [*logged, refused.error_msg, status.message, *values_of(status).values()]
    assert not re.findall(CONTROL, "".join(texts).replace("\n    ", ""))
    assert not re.findall(CONTROL, f"{process.log}{shown.stdout.decode()}".replace("\n", ""))
    assert not any(line.startswith("[ERROR]") and "forged" in line for line in process.log.splitlines())
