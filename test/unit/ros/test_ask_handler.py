"""Questions from message to answer: validation, defaults, several cameras, counters. The worker is mostly a fake."""

import gc
import math
import threading
import time
import weakref
from concurrent.futures import Future
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from builtin_interfaces.msg import Time
from delayed_vlm_ros.srv import AskScene
from waiting import PATIENCE_SEC, wait_until

from delayed_vlm_ros.errors import (
    AskCancelledError,
    AskTimeoutError,
    BadRequestError,
    BusyError,
    ConfigurationError,
    DeviceMemoryError,
    NoFramesError,
    UnknownCameraError,
)
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.metrics import AskMetrics
from delayed_vlm_ros.inference.progress import Progress, Stage
from delayed_vlm_ros.inference.request import AskRequest, AskResult
from delayed_vlm_ros.inference.worker import ModelWorker, WorkerStatus
from delayed_vlm_ros.memory import SmartFrameManager
from delayed_vlm_ros.ros.input.frame_headers import FrameHeader
from delayed_vlm_ros.ros.output.node_report import QuestionReport
from delayed_vlm_ros.ros.scene_memory.engines import Engines
from delayed_vlm_ros.ros.scene_memory.parameters import SceneMemoryParameters
from delayed_vlm_ros.ros.services.ask_handler import AskHandler
from delayed_vlm_ros.ros.services.requests import choose_request_id, parse_question, parse_timeout

PARAMETERS = SceneMemoryParameters(timeout_sec=7.0, max_new_tokens=33, max_question_characters=20)
NOW_NS = 1_800_000_000_000_000_000
NOW = NOW_NS / 10**9


def question(**fields):
    return AskScene.Request(**{"question": "What?", **fields})


# Requests


def test_zeros_become_the_defaults_of_the_node():
    assert parse_question(question(), PARAMETERS, NOW) == AskRequest("What?", None, None, None, 33, ranks_evidence=True)
    assert parse_timeout(question(), PARAMETERS) == 7.0


def test_given_fields_are_used():
    # given
    message = question(
        since=Time(sec=10, nanosec=500_000_000),
        until=Time(sec=20),
        last_sec=2.5,
        max_new_tokens=4096,
        timeout_sec=0.25,
    )

    # then
    assert parse_question(message, PARAMETERS, NOW) == AskRequest("What?", 10.5, 20.0, 2.5, 4096, ranks_evidence=True)
    assert parse_timeout(message, PARAMETERS) == 0.25


def test_limit_equals_the_float_of_a_frame_with_that_stamp():
    message = question(since=Time(sec=1_800_000_000, nanosec=123_456_789))
    assert parse_question(message, PARAMETERS, NOW).since == 1_800_000_000_123_456_789 / 10**9


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"question": ""}, "question"),
        ({"question": " \n\t"}, "question"),
        ({"question": "ä" * 21}, "ask.max_question_characters"),
        ({"max_new_tokens": 4097}, "ask.max_new_tokens_limit"),
        ({"max_new_tokens": 2**32 - 1}, "4294967295"),
        ({"last_sec": -0.5}, "last_sec"),
        ({"last_sec": math.nan}, "last_sec"),
        ({"last_sec": math.inf}, "last_sec"),
        ({"since": Time(sec=-1)}, "since"),
        ({"until": Time(sec=-(2**31), nanosec=5)}, "until"),
        ({"since": Time(nanosec=10**9)}, "since"),
        ({"until": Time(sec=3, nanosec=2**32 - 1)}, "until"),
        ({"since": Time(sec=20), "until": Time(sec=10)}, "since"),
        ({"since": Time(sec=20, nanosec=1000), "until": Time(sec=20)}, "until"),
    ],
)
def test_invalid_request_is_rejected_with_the_name_of_its_field(fields, named):
    with pytest.raises(BadRequestError) as caught:
        parse_question(question(**fields), PARAMETERS, NOW)
    assert named in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"question": "ä" * 20},
        {"max_new_tokens": 1},
        {"since": Time(sec=20), "until": Time(sec=20)},
        {"since": Time(nanosec=1)},
        {"last_sec": -0.0},
    ],
)
def test_request_at_its_limits_is_valid(fields):
    parse_question(question(**fields), PARAMETERS, NOW)


@pytest.mark.parametrize("timeout_sec", [-0.001, math.nan, math.inf, -math.inf, 3601.0])
def test_invalid_deadline_is_rejected(timeout_sec):
    with pytest.raises(BadRequestError, match="timeout_sec"):
        parse_timeout(question(timeout_sec=timeout_sec), PARAMETERS)


def test_limits_come_from_the_parameters():
    parameters = replace(PARAMETERS, max_new_tokens_limit=40)
    parse_question(question(max_new_tokens=40, client_id="x" * 255), parameters, NOW)
    with pytest.raises(BadRequestError, match=r"40.*41.*ask\.max_new_tokens_limit"):
        parse_question(question(max_new_tokens=41), parameters, NOW)
    with pytest.raises(BadRequestError, match=r"client_id.*256"):
        parse_question(question(client_id="x" * 256), parameters, NOW)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"request_id": "x" * 256}, "'request_id'"),
        ({"request_id": "red\x1b[31m"}, "'request_id'"),
        ({"client_id": "a\nb"}, "'client_id'"),
        ({"scope": 2}, "'scope'"),
    ],
)
def test_invalid_ids_and_scopes_are_rejected(fields, named):
    with pytest.raises(BadRequestError, match=named):
        parse_question(question(**fields), PARAMETERS, NOW)


def test_scope_now_uses_the_newest_pairs():
    request = parse_question(question(scope=AskScene.Request.SCOPE_NOW, last_sec=2.5), PARAMETERS, NOW)
    assert (request.newest_pairs, request.last_sec) == (4, 2.5)
    assert parse_question(question(scope=AskScene.Request.SCOPE_ALL), PARAMETERS, NOW).newest_pairs is None


def test_words_about_time_limit_the_question_when_the_request_wants_it():
    parameters = replace(PARAMETERS, max_question_characters=100)
    text = "Who came in the last minute?"
    request = parse_question(question(question=text, parse_time=True), parameters, NOW)
    assert (request.since, request.until) == (NOW - 60, None)
    assert request.time_words.words == ("in the last minute",)
    assert parse_question(question(question=text), parameters, NOW).since is None
    for fields in ({"last_sec": 2.0}, {"since": Time(sec=5)}, {"until": Time(sec=5)}):
        with pytest.raises(BadRequestError, match="'parse_time'"):
            parse_question(question(question=text, parse_time=True, **fields), parameters, NOW)


def test_request_id_is_the_clients_or_a_new_one():
    assert choose_request_id(question(request_id="trip-7")) == "trip-7"
    assigned = {choose_request_id(question(request_id=invalid)) for invalid in ("", "", "x" * 256, "a\nb")}
    assert len(assigned) == 4
    assert all(text.isalnum() for text in assigned)


def test_longest_deadline_is_valid():
    assert parse_timeout(question(timeout_sec=3600.0), PARAMETERS) == 3600.0


# Answers


class FakeWorker:
    """Runs each job in the thread that submits it, after ``delay_sec`` in the queue; or raises ``error``."""

    def __init__(self, engines):
        self.engines = engines
        self.delay_sec = 0.0
        self.error = None
        self.timeouts = []
        self.client_ids = []
        self.status = WorkerStatus(running=True, waiting=3)

    def submit(self, work, timeout_sec, *, control=None, client_id="", on_progress=None, on_done=None):
        self.timeouts.append(timeout_sec)
        self.client_ids.append(client_id)
        if self.error is not None:
            raise self.error
        time.sleep(self.delay_sec)
        control = control or AskControl()
        if on_progress is not None:
            control.listener = SimpleNamespace(wants_text=True, report=on_progress)
        job = Future()
        job.add_done_callback(on_done)
        try:
            job.set_result(work(self.engines, control))
        except Exception as error:  # noqa: BLE001  as the worker
            job.set_exception(error)
        return job


class FakeEngine:
    def __init__(self, name, manager):
        self.name = name
        self.manager = manager
        self.requests = []
        self.total_latency = 0.0
        self.error = None
        self.words, self.warnings = f"{name} says", ()

    def answer(self, request, control):
        assert isinstance(control, AskControl)
        if request.question == "defect":
            raise ZeroDivisionError("planted")
        if self.error is not None:
            raise self.error
        self.requests.append(request)
        self.total_latency += 1.5
        control.report(Progress(Stage.ENCODING))
        for number in range(1, len(self.words) + 1):
            control.report(Progress(Stage.GENERATING, self.words[:number].strip(), number))
        metrics = AskMetrics(self.total_latency, 0.5, 0.5, 0.25, 2, 0, 8, 20, 0, 4, (1, 2, 2), True, self.warnings)
        return AskResult(self.words, metrics, self.manager.snapshot())


class FakeCamera:
    def __init__(self, name):
        self.name = name
        self.topic = f"/{name}/image"
        self.frame_manager = SmartFrameManager(4, 4)
        self.last_drop_reason = ""
        self.warnings = ()

    def see(self, stamp):
        self.frame_manager.add(np.full((8, 8, 3), 90, np.uint8), stamp)

    def header_of(self, frame):
        return FrameHeader(round(frame.stamp * 10**9), "lens")

    def age_sec(self, frame):
        return NOW_NS / 10**9 - frame.stamp


@pytest.fixture
def scene():
    """A handler with two cameras that have frames, their engines and the worker."""
    cameras = {name: FakeCamera(name) for name in ("front", "rear")}
    engines = {name: FakeEngine(name, camera.frame_manager) for name, camera in cameras.items()}
    for camera in cameras.values():
        camera.see(1_799_999_990.0)
        camera.see(1_799_999_995.0)
    worker = FakeWorker(Engines("cpu", engines))
    handler = AskHandler(worker, cameras, 8, lambda: NOW_NS)
    return SimpleNamespace(handler=handler, worker=worker, cameras=cameras, engines=engines)


def ask(scene, message, **options):
    return scene.handler.submit(message, PARAMETERS, **options).result()


def test_answer_comes_from_the_named_camera(scene):
    assert ask(scene, question()).text == "front says"
    answer = ask(scene, question(camera="rear"))
    assert answer.text == "rear says"
    assert [part.camera for part in answer.parts] == [scene.cameras["rear"]]
    assert answer.newest_frame_age_sec == pytest.approx(5.0, abs=0.1)


def test_all_cameras_answer_under_their_names(scene):
    # given
    scene.cameras["front"].see(1_799_999_999.0)
    scene.cameras["front"].warnings = ("no stamps",)
    # when
    answer = ask(scene, question(camera="*"))
    # then
    assert answer.text == "front: front says\nrear: rear says"
    assert answer.newest_frame_age_sec == pytest.approx(5.0, abs=0.1), "the age of the frozen camera"
    assert answer.metrics.frames_encoded == 4
    assert answer.metrics.total_latency == 3.0
    assert answer.metrics.time_to_first_token == 0.25
    assert answer.metrics.video_grid_thw == (1, 2, 2, 1, 2, 2)
    assert answer.warnings == ("no stamps",)


def test_camera_without_frames_is_named_in_the_warnings(scene):
    # given
    scene.engines["front"].error = NoFramesError("no frames: wait")
    # when
    answer = ask(scene, question(camera="*"))
    # then
    assert answer.text == "rear: rear says"
    assert answer.warnings == ("camera front is not in the answer: no frames: wait",)

    # when none has
    scene.engines["rear"].error = NoFramesError("no frames: wait longer")
    answer = ask(scene, question(camera="*"))
    assert isinstance(answer.error, NoFramesError)
    assert str(answer.error) == "camera front: no frames: wait; camera rear: no frames: wait longer"


@pytest.mark.parametrize(
    "error", [AskTimeoutError("too late"), DeviceMemoryError("no room"), ConfigurationError("anything")]
)
@pytest.mark.parametrize("failing", ["front", "rear"])
def test_answers_of_other_cameras_survive_the_failure_of_one(scene, error, failing):
    # given
    other = "rear" if failing == "front" else "front"
    scene.engines[failing].error = error
    # when
    answer = ask(scene, question(camera="*"))
    # then
    assert answer.text == f"{other}: {other} says"
    assert answer.warnings == (f"camera {failing} is not in the answer: {error}",)
    # and a question to this camera alone raises its error
    with pytest.raises(type(error), match=f"^{error}$"):
        ask(scene, question(camera=failing))


def test_without_any_answer_the_error_is_another_than_no_frames(scene):
    scene.engines["front"].error = NoFramesError("no frames: wait")
    scene.engines["rear"].error = DeviceMemoryError("no room")
    answer = ask(scene, question(camera="*"))
    assert (type(answer.error), str(answer.error)) == (DeviceMemoryError, "no room")
    assert [(failed.camera.name, str(failed.error)) for failed in answer.failures] == [
        ("front", "no frames: wait"),
        ("rear", "no room"),
    ]
    assert scene.handler.report().failed == 1


def test_cancelled_question_to_all_cameras_has_no_answer(scene):
    scene.engines["rear"].error = AskCancelledError("cancelled")
    with pytest.raises(AskCancelledError):
        ask(scene, question(camera="*"))
    assert scene.engines["front"].requests


def test_partial_answer_is_returned_at_the_deadline(scene):
    # given a real worker, and a camera that answers too late
    def too_slow(_request, control):
        while True:
            time.sleep(0.01)
            control.check()

    scene.engines["rear"].answer = too_slow
    worker = ModelWorker(lambda: scene.worker.engines, 8)
    scene.handler = AskHandler(worker, scene.cameras, 8, lambda: NOW_NS)
    worker.start()
    try:
        # when
        answer = ask(scene, question(camera="*", timeout_sec=0.5))
        # then
        assert answer.text == "front: front says"
        (warning,) = answer.warnings
        assert "rear" in warning
        assert "0.5 s" in warning
        with pytest.raises(AskTimeoutError):
            ask(scene, question(camera="rear", timeout_sec=0.2))
    finally:
        worker.close(PATIENCE_SEC)


def test_each_of_all_cameras_has_one_line_and_named_warnings(scene):
    # given
    scene.engines["front"].words, scene.engines["front"].warnings = "a box\n\nand  a ball\n", ("short of memory",)
    # when
    answer = ask(scene, question(camera="*"))
    # then
    assert answer.text == "front: a box and a ball\nrear: rear says"
    assert answer.metrics.warnings == ("camera front: short of memory",)
    # and alone, its text is unchanged
    answer = ask(scene, question(camera="front"))
    assert answer.text == "a box\n\nand  a ball\n"
    assert answer.metrics.warnings == ("short of memory",)


def test_error_names_all_cameras_if_none_has_frames(scene):
    for camera in scene.cameras.values():
        camera.frame_manager.reset()
    answer = ask(scene, question(camera="*"))
    assert isinstance(answer.error, NoFramesError)
    assert [failed.camera.name for failed in answer.failures] == ["front", "rear"]
    assert scene.handler.report().failed == 1
    assert scene.worker.timeouts == []


def test_progress_of_all_cameras_is_combined(scene):
    # given
    on_progress = []
    scene.engines["front"].words = "ab"

    # when
    answer = ask(scene, question(camera="*"), on_progress=on_progress.append)

    # then
    texts = [progress.text for progress in on_progress]
    assert texts[:3] == ["", "front: a", "front: ab"]
    assert texts[3:5] == ["front: ab", "front: ab\nrear: r"]
    assert texts[-1] == answer.text
    assert [progress.answer_tokens for progress in on_progress[:5]] == [0, 1, 2, 4, 5]
    assert on_progress[3].stage is Stage.ENCODING


def test_progress_of_one_camera_is_its_own(scene):
    on_progress = []
    ask(scene, question(camera="rear", client_id="me"), on_progress=on_progress.append)
    assert on_progress[-1] == Progress(Stage.GENERATING, "rear says", 9)
    assert scene.worker.client_ids == ["me"]


def test_engine_receives_the_request_and_worker_the_deadline(scene):
    ask(scene, question(last_sec=2.0))
    ask(scene, question(timeout_sec=0.5))
    assert scene.engines["front"].requests[0] == AskRequest("What?", None, None, 2.0, 33, ranks_evidence=True)
    assert scene.worker.timeouts == [7.0, 0.5]


def test_time_in_the_queue_is_measured(scene):
    for delay_sec in (0.0, 0.06):
        scene.worker.delay_sec = delay_sec
        began = time.monotonic()
        measured = ask(scene, question()).queue_latency
        assert delay_sec <= measured <= time.monotonic() - began


def test_unknown_camera_is_rejected_with_the_names_of_the_cameras(scene):
    with pytest.raises(UnknownCameraError, match=r"'Front'.* front, rear"):
        ask(scene, question(camera="Front"))


def test_empty_memory_is_reported_before_the_question_is_queued(scene):
    # given
    scene.cameras["front"].frame_manager.reset()

    # then
    with pytest.raises(NoFramesError, match=r"camera front .* /front/image"):
        ask(scene, question())
    scene.cameras["front"].last_drop_reason = "step is 3"
    with pytest.raises(NoFramesError, match=r"step is 3"):
        ask(scene, question())
    assert scene.worker.timeouts == []


@pytest.mark.parametrize("fields", [{"question": ""}, {"timeout_sec": -1.0}, {"camera": "side"}])
def test_bad_request_is_counted_as_the_clients_mistake(scene, fields):
    with pytest.raises(BadRequestError):
        ask(scene, question(**fields))
    assert scene.worker.timeouts == []
    report = scene.handler.report()
    assert (report.answered, report.failed, report.rejected, report.last_error) == (0, 0, 1, "")


def test_cancelled_question_is_not_counted_as_failed(scene):
    scene.engines["front"].error = AskCancelledError("cancelled")
    with pytest.raises(AskCancelledError):
        ask(scene, question())
    report = scene.handler.report()
    assert (report.answered, report.failed, report.cancelled, report.last_error) == (0, 0, 1, "")


def test_report_before_the_first_question_is_empty(scene):
    assert scene.handler.report() == QuestionReport(running=True, waiting=3, queue_size=8)


def test_report_has_the_last_answer_and_the_last_error(scene):
    # when
    ask(scene, question())
    ask(scene, question())
    with pytest.raises(ZeroDivisionError):
        ask(scene, question(question="defect"))
    scene.worker.error = BusyError("queue full (8 waiting)")
    with pytest.raises(BusyError):
        ask(scene, question())

    # then failures leave the latencies of the last answer unchanged
    expected = QuestionReport(2, 2, 0, 0, True, 3, 8, "BusyError: queue full (8 waiting)", 3.0, 0.25)
    assert scene.handler.report() == expected

    # and an answer leaves the last error in the report
    scene.worker.error = None
    ask(scene, question())
    assert scene.handler.report() == replace(expected, answered=3, last_total_latency=4.5)


def test_questions_from_many_threads_are_all_counted(scene):
    # given
    scene.worker.error = AskTimeoutError("too late")

    def ask_repeatedly():
        for _ in range(100):
            with pytest.raises(AskTimeoutError):
                ask(scene, question())

    threads = [threading.Thread(target=ask_repeatedly) for _ in range(8)]

    # when
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    # then
    assert scene.handler.report().failed == 800


def test_failed_question_keeps_no_reference_to_the_frames_of_its_error(scene):
    # given an engine whose frame holds memory of the device
    class Tensor:
        pass

    held = []

    def answer(_request, _control):
        tensor = Tensor()
        held.append(weakref.ref(tensor))
        raise DeviceMemoryError("no room")

    scene.engines["front"].answer = answer
    worker = ModelWorker(lambda: scene.worker.engines, 8)
    scene.handler = AskHandler(worker, scene.cameras, 8, lambda: NOW_NS)
    worker.start()
    gc.disable()
    try:
        # when
        with pytest.raises(DeviceMemoryError):
            ask(scene, question())
        # then reference counting alone frees it
        wait_until(lambda: held[0]() is None, "the frame's memory to be freed")
    finally:
        gc.enable()
        worker.close(PATIENCE_SEC)
