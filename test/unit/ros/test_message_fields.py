"""Every field of every message is filled from the right value and in the right unit."""

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from builtin_interfaces.msg import Time
from delayed_vlm_ros.action import AskScene as AskSceneAction
from delayed_vlm_ros.msg import AskMetrics as AskMetricsMessage
from delayed_vlm_ros.msg import KeyFrame, MemoryStats, NodeStats, SceneAnswer
from delayed_vlm_ros.srv import AskScene

from delayed_vlm_ros.errors import AskError, BusyError, NoFramesError
from delayed_vlm_ros.inference.metrics import AskMetrics
from delayed_vlm_ros.inference.request import AskResult
from delayed_vlm_ros.inference.time_words import TimeWords
from delayed_vlm_ros.memory import Frame, FramePair, KeptPair, MemoryStatistics
from delayed_vlm_ros.ros.input.frame_headers import FrameHeader
from delayed_vlm_ros.ros.output import messages
from delayed_vlm_ros.ros.output.node_report import (
    CameraReport,
    LifecycleReport,
    MemoryReport,
    ModelReport,
    NodeReport,
    QuestionReport,
)
from delayed_vlm_ros.ros.services.multi_camera_ask import Answer, CameraAnswer, CameraFailure

# Stamps whose nanoseconds a float of seconds does not hold.
FIRST_NS, SECOND_NS = 1_800_000_000_123_456_789, 1_800_000_000_623_456_791
HEADERS = {FIRST_NS / 10**9: FrameHeader(FIRST_NS, "lens"), SECOND_NS / 10**9: FrameHeader(SECOND_NS, "lens 2")}
CAMERA = SimpleNamespace(name="front", header_of=lambda frame: HEADERS[frame.stamp], warnings=("no stamps",))

METRICS = AskMetrics(
    total_latency=1.5,
    encoding_latency=0.5,
    generation_latency=0.75,
    time_to_first_token=0.625,
    frames_encoded=4,
    frames_reused=6,
    visual_tokens=80,
    kv_cache_length=100,
    kv_tokens_reused=30,
    answer_tokens=7,
    video_grid_thw=tuple(np.array([5, 8, 10])),
    exact=True,
    warnings=("demo model",),
    bytes_sent=1234,
)


def frame(stamp_ns, number, importance=0.25, reason=""):
    return Frame(np.full((4, 4, 3), number, np.uint8), stamp_ns / 10**9, number, importance, reason)


def kept_pair(*, pair_id=17, complete=True, in_star=True, in_stream=False):
    second = frame(SECOND_NS, 2, 0.75, "scene change") if complete else None
    pair = FramePair(pair_id, frame(FIRST_NS, 1), second)
    return KeptPair(pair, in_star=in_star, in_stream=in_stream, marked=complete, label="door" if complete else "")


def values(message):
    return {name: getattr(message, name) for name in message.get_fields_and_field_types()}


def unset_fields(message):
    """Return the fields that still have their default value."""
    empty = values(type(message)())
    return {name for name, value in values(message).items() if repr(value) == repr(empty[name])}


def stamp_of(nanoseconds):
    return Time(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)


def test_key_frame_is_complete_with_exact_stamps():
    # when
    message = messages.key_frame(kept_pair(), CAMERA)

    # then
    assert (message.header.stamp, message.end_stamp) == (stamp_of(FIRST_NS), stamp_of(SECOND_NS))
    assert message.header.frame_id == "lens"
    assert (message.id, message.camera, message.importance, message.reason) == (17, "front", 0.75, "scene change")
    assert (message.in_star, message.in_stream) == (True, False)
    assert (message.marked, message.label) == (True, "door")
    assert unset_fields(message) == {"in_stream", "pose_valid", "pose", "relevance"}
    assert isinstance(message, KeyFrame)


def test_key_frame_without_second_frame_ends_at_its_first_stamp():
    message = messages.key_frame(kept_pair(complete=False, in_star=False, in_stream=True), CAMERA)
    assert message.header.stamp == message.end_stamp == stamp_of(FIRST_NS)
    assert (message.in_star, message.in_stream) == (False, True)
    assert (message.importance, message.reason) == (0.25, "")
    assert (message.marked, message.label) == (False, "")


def test_metrics_message_includes_queue_latency_and_warnings_of_the_node():
    # when
    message = messages.ask_metrics(METRICS, 0.125, ["no stamps"])

    # then
    assert unset_fields(message) == set()
    taken_over = set(METRICS) - {"warnings", "video_grid_thw"}
    assert {name: getattr(message, name) for name in taken_over} == {name: METRICS[name] for name in taken_over}
    assert message.queue_latency == 0.125
    assert list(message.video_grid_thw) == [5, 8, 10]
    assert message.warnings == ["demo model", "no stamps"]
    assert isinstance(message, AskMetricsMessage)


def test_metrics_message_has_a_field_for_every_metric():
    assert set(AskMetricsMessage.get_fields_and_field_types()) == {*METRICS, "queue_latency"}


def test_encoding_latency_is_zero_if_nothing_was_encoded():
    fields = {name: METRICS[name] for name in METRICS} | {"encoding_latency": None}
    assert messages.ask_metrics(AskMetrics(**fields), 0.0, ()).encoding_latency == 0.0


@pytest.mark.parametrize("response", [AskScene.Response(), AskSceneAction.Result()], ids=["service", "action"])
def test_answer_fills_the_response(response):
    # given
    used = (kept_pair(pair_id=3, complete=False), kept_pair(pair_id=5))
    words = TimeWords(since=5.0, words=("today",), text="'today': from 00:00:00 to now", unread=("since",))
    answer = Answer((CameraAnswer(CAMERA, AskResult("a red ball", METRICS, used), 2.5),), 0.125, time_words=words)

    # when
    messages.fill_answer(response, answer, include_frames=True)

    # then
    assert (response.success, response.error_code, response.error_msg) == (True, AskScene.Response.NONE, "")
    assert response.answer == "a red ball"
    assert response.time_understood == "'today': from 00:00:00 to now"
    assert list(response.frame_ids) == [3, 5]
    assert [key_frame.id for key_frame in response.frames_used] == [3, 5]
    assert response.camera_answers == []
    assert response.snapshot_stamp == stamp_of(SECOND_NS)
    assert response.newest_frame_age_sec == 2.5
    assert response.metrics == messages.ask_metrics(METRICS, 0.125, (*words.warnings, "no stamps"))


@pytest.mark.parametrize("response", [AskScene.Response(), AskSceneAction.Result()], ids=["service", "action"])
def test_error_fills_the_response(response):
    messages.fill_error(response, BusyError("queue full (8 waiting): retry later"))
    assert (response.success, response.error_code) == (False, AskScene.Response.BUSY)
    assert response.error_msg == "queue full (8 waiting): retry later"
    assert response.answer == ""


def test_key_frames_are_sent_only_when_the_request_includes_them():
    answer = Answer((CameraAnswer(CAMERA, AskResult("a red ball", METRICS, (kept_pair(pair_id=3),)), 2.5),), 0.125)
    response = AskScene.Response()
    messages.fill_answer(response, answer, include_frames=False)
    assert (list(response.frame_ids), response.frames_used) == ([3], [])


def test_question_to_all_cameras_has_an_answer_or_error_of_each():
    # given
    part = CameraAnswer(CAMERA, AskResult("a red ball", METRICS, (kept_pair(pair_id=3),)), 2.5)
    failure = CameraFailure(SimpleNamespace(name="rear"), NoFramesError("no frames: wait"))

    # when one camera answers
    response = AskScene.Response()
    messages.fill_answer(response, Answer((part,), 0.125, True, (failure,)), include_frames=False)

    # then
    assert response.success
    front, rear = response.camera_answers
    assert (front.camera, front.success, front.answer, list(front.frame_ids)) == ("front", True, "a red ball", [3])
    assert (front.snapshot_stamp, front.newest_frame_age_sec) == (stamp_of(SECOND_NS), 2.5)
    assert front.metrics == messages.ask_metrics(METRICS, 0.125, ("no stamps",))
    assert (rear.camera, rear.success, rear.answer) == ("rear", False, "")
    assert (rear.error_code, rear.error_msg) == (AskScene.Response.NO_FRAMES, "no frames: wait")

    # when none answers
    response = AskScene.Response()
    messages.fill_answer(response, Answer((), 0.0, True, (failure,)), include_frames=False)

    # then
    assert (response.success, response.error_code) == (False, AskScene.Response.NO_FRAMES)
    assert [one.error_code for one in response.camera_answers] == [AskScene.Response.NO_FRAMES]


def test_error_class_without_its_own_code_inherits_one():
    class NewError(AskError):
        pass

    response = AskScene.Response()
    messages.fill_error(response, NewError("new"))
    assert (response.error_code, response.error_msg) == (AskScene.Response.INTERNAL, "new")


def test_answer_is_published_with_its_question():
    # given
    response = AskScene.Response(request_id="trip-7")
    answer = Answer((CameraAnswer(CAMERA, AskResult("a ball", METRICS, (kept_pair(),)), 2.5),), 0.125)
    messages.fill_answer(response, answer, include_frames=False)

    # when
    message = messages.scene_answer(AskScene.Request(question="What?"), response, answer)

    # then
    assert unset_fields(message) == {"error_code", "error_msg", "camera_answers", "evidence"}
    assert message.request_id == "trip-7"
    assert (message.camera, message.question, message.answer, message.success) == ("front", "What?", "a ball", True)
    assert (message.header.stamp, message.header.frame_id) == (stamp_of(SECOND_NS), "lens 2")
    assert list(message.frame_ids) == [17]
    assert message.metrics == response.metrics
    assert isinstance(message, SceneAnswer)


def test_error_is_published_with_its_question():
    # given
    response = AskScene.Response()
    messages.fill_error(response, NoFramesError("no frames: wait"))

    # when
    message = messages.scene_answer(AskScene.Request(question="What?", camera="rear"), response, None)

    # then
    assert (message.camera, message.question, message.success) == ("rear", "What?", False)
    assert (message.error_code, message.error_msg) == (AskScene.Response.NO_FRAMES, "no frames: wait")
    assert list(message.frame_ids) == []


CAMERA_REPORT = CameraReport(
    name="front",
    topic="/image",
    frame_id="lens",
    receiving=True,
    images_received=900,
    images_sampled=60,
    images_dropped=3,
    images_missed=5,
    images_restamped=6,
    last_drop_reason="too dark",
    times_jumped=1,
    last_jump="time has gone back",
    poses_received=70,
    poses_unusable=1,
    frames_without_pose=2,
    input_rate_hz=30.5,
    sampled_rate_hz=2.25,
    silent_sec=0.03125,
    converter="cv_bridge",
    input_warnings=(),
    warnings=("no stamps",),
)
STATISTICS = MemoryStatistics(
    total_frames_added=61,
    star_memory_size=8,
    stream_memory_size=20,
    unique_frames=24,
    overlap=4,
    compression_ratio=2.5,
    pixel_bytes=5_000_000_000,
)
MODEL_REPORT = ModelReport("qwen", "ready", "cuda:0", "", ("demo model",))
QUESTION_REPORT = QuestionReport(
    answered=11,
    failed=2,
    rejected=3,
    cancelled=4,
    running=True,
    waiting=5,
    queue_size=8,
    last_error="BusyError",
    last_total_latency=1.5,
    last_time_to_first_token=0.5,
)


def test_statistics_message_is_complete():
    # when
    memory = MemoryReport("front", STATISTICS, 1000, 2000, 100.5, 0.25, budget_bytes=9000)
    message = messages.memory_stats(CAMERA_REPORT, memory, Time(sec=7))

    # then
    assert unset_fields(message) == set()
    for name, value in STATISTICS.as_dict().items():
        assert getattr(message, name) == value, name
    for name in ("images_received", "images_sampled", "images_dropped", "images_missed", "images_restamped"):
        assert getattr(message, name) == getattr(CAMERA_REPORT, name), name
    assert message.last_drop_reason == CAMERA_REPORT.last_drop_reason
    assert (message.input_rate_hz, message.sampled_rate_hz) == (30.5, 2.25)
    assert (message.feature_bytes, message.kv_bytes, message.budget_bytes) == (1000, 2000, 9000)
    assert (message.oldest_frame_age_sec, message.newest_frame_age_sec) == (100.5, 0.25)
    assert (message.camera, message.header.frame_id, message.header.stamp) == ("front", "lens", Time(sec=7))
    assert message.warnings == ["no stamps"]
    assert isinstance(message, MemoryStats)


def test_node_statistics_message_is_complete():
    # when
    report = NodeReport(LifecycleReport("active", ""), (), (), MODEL_REPORT, QUESTION_REPORT, 5.0)
    message = messages.node_stats(report, Time(sec=7))

    # then
    assert unset_fields(message) == set()
    counts = ("answered", "failed", "rejected", "cancelled", "running", "waiting")
    assert [getattr(message, f"questions_{name}") for name in counts] == [11, 2, 3, 4, 1, 5]
    assert (message.last_total_latency, message.last_time_to_first_token) == (1.5, 0.5)
    assert (message.model, message.model_state, message.device) == ("qwen", "ready", "cuda:0")
    assert (message.last_error, message.warnings) == ("BusyError", ["demo model"])
    assert message.header.stamp == Time(sec=7)
    assert isinstance(message, NodeStats)


def test_ages_are_negative_without_frames():
    memory = MemoryReport("front", STATISTICS, 0, 0, None, None)
    message = messages.memory_stats(CAMERA_REPORT, memory, Time())
    assert (message.oldest_frame_age_sec, message.newest_frame_age_sec) == (-1.0, -1.0)


def test_snapshot_stamp_is_of_the_newest_frame_after_the_clock_was_set_back():
    # given a camera whose newest frame has an earlier stamp than the frame before, and one with even earlier frames
    def part(name, *stamps_ns):
        camera = SimpleNamespace(name=name, header_of=lambda frame: frame.source, warnings=())
        images = [
            Frame(np.zeros((4, 4, 3), np.uint8), float(number), number, 0.0, "", FrameHeader(stamp_ns, name))
            for number, stamp_ns in enumerate(stamps_ns, start=1)
        ]
        used = tuple(KeptPair(FramePair(image.number, image, None), True, True) for image in images)
        return CameraAnswer(camera, AskResult("a ball", METRICS, used), 0.0)

    front, rear = part("front", SECOND_NS, FIRST_NS), part("rear", FIRST_NS - 10**9)
    for parts, is_of_all in (((front,), False), ((front, rear), True), ((rear, front), True)):
        # when
        response = AskScene.Response()
        answer = Answer(parts, 0.125, is_of_all)
        messages.fill_answer(response, answer, include_frames=False)
        published = messages.scene_answer(AskScene.Request(question="What?"), response, answer)
        # then
        assert response.snapshot_stamp == published.header.stamp == stamp_of(FIRST_NS)
        assert published.header.frame_id == "front"
