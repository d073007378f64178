"""Requests on their way to the worker: limits, defaults, counters; with a stand-in for the worker."""

import math
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from builtin_interfaces.msg import Time
from delayed_vlm_ros.srv import AskScene
from waiting import PATIENCE_SEC

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
from delayed_vlm_ros.ros.output.reports import AskReport
from delayed_vlm_ros.ros.scene_memory.engines import Engines
from delayed_vlm_ros.ros.scene_memory.parameters import SceneMemoryParameters
from delayed_vlm_ros.ros.services.ask_handler import AskHandler, ask_request, ask_timeout

PARAMETERS = SceneMemoryParameters(timeout_sec=7.0, max_new_tokens=33, max_question_characters=20)
NOW_NS = 1_800_000_000_000_000_000


def asking(**fields):
    return AskScene.Request(**{"question": "What?", **fields})


# Reading requests


def test_zeros_become_the_nodes_defaults():
    assert ask_request(asking(), PARAMETERS) == AskRequest("What?", None, None, None, 33)
    assert ask_timeout(asking(), PARAMETERS) == 7.0


def test_what_is_given_counts():
    # given
    message = asking(
        since=Time(sec=10, nanosec=500_000_000),
        until=Time(sec=20),
        last_sec=2.5,
        max_new_tokens=4096,
        timeout_sec=0.25,
    )

    # then
    assert ask_request(message, PARAMETERS) == AskRequest("What?", 10.5, 20.0, 2.5, 4096)
    assert ask_timeout(message, PARAMETERS) == 0.25


def test_a_limit_is_the_same_float_as_a_frame_of_that_stamp():
    message = asking(since=Time(sec=1_800_000_000, nanosec=123_456_789))
    assert ask_request(message, PARAMETERS).since == 1_800_000_000_123_456_789 / 10**9


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"question": ""}, "the question is empty"),
        ({"question": " \n\t"}, "the question is empty"),
        ({"question": "ä" * 21}, "the question has 21 characters, more than 20: shorten it, or raise the parameter"),
        ({"max_new_tokens": 4097}, "max_new_tokens is 4097: give at most 4096"),
        ({"max_new_tokens": 2**32 - 1}, "max_new_tokens is 4294967295"),
        ({"last_sec": -0.5}, "last_sec is -0.5: give seconds of 0 or more"),
        ({"last_sec": math.nan}, "last_sec is nan"),
        ({"last_sec": math.inf}, "last_sec is inf"),
        ({"since": Time(sec=-1)}, "since is -1 s and 0 ns: give a time after 1970"),
        ({"until": Time(sec=-(2**31), nanosec=5)}, "until is -2147483648 s and 5 ns"),
        ({"since": Time(nanosec=10**9)}, "since is 0 s and 1000000000 ns"),
        ({"until": Time(sec=3, nanosec=2**32 - 1)}, "until is 3 s and 4294967295 ns"),
        ({"since": Time(sec=20), "until": Time(sec=10)}, "since (20.000 s) is after until (10.000 s)"),
        ({"since": Time(sec=20, nanosec=1000), "until": Time(sec=20)}, "swap them"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_in_a_sentence(fields, words):
    with pytest.raises(BadRequestError) as caught:
        ask_request(asking(**fields), PARAMETERS)
    assert words in str(caught.value)


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
def test_what_just_makes_sense_passes(fields):
    ask_request(asking(**fields), PARAMETERS)


@pytest.mark.parametrize("timeout_sec", [-0.001, math.nan, math.inf, -math.inf, 3601.0])
def test_a_deadline_that_makes_no_sense_is_refused(timeout_sec):
    with pytest.raises(BadRequestError, match=r"timeout_sec is .*: give seconds from 0 .* to 3600"):
        ask_timeout(asking(timeout_sec=timeout_sec), PARAMETERS)


def test_limits_are_those_of_the_parameters():
    parameters = replace(PARAMETERS, max_new_tokens_limit=40)
    ask_request(asking(max_new_tokens=40, client_id="x" * 255), parameters)
    with pytest.raises(BadRequestError, match=r"give at most 40, or raise the parameter ask\.max_new_tokens_limit"):
        ask_request(asking(max_new_tokens=41), parameters)
    with pytest.raises(BadRequestError, match="the client_id's name has 256 characters"):
        ask_request(asking(client_id="x" * 256), parameters)


def test_the_longest_deadline_passes():
    assert ask_timeout(asking(timeout_sec=3600.0), PARAMETERS) == 3600.0


# The desk


class FakeWorker:
    """Runs each job at once in the caller's thread, after ``delay_sec`` in the queue; or raises ``error``."""

    def __init__(self, engines):
        self.engines = engines
        self.delay_sec = 0.0
        self.error = None
        self.timeouts = []
        self.askers = []
        self.status = WorkerStatus(running=True, waiting=3)

    def run(self, work, timeout_sec, *, control=None, client_id="", on_progress=None):
        self.timeouts.append(timeout_sec)
        self.askers.append(client_id)
        if self.error is not None:
            raise self.error
        time.sleep(self.delay_sec)
        control = control or AskControl()
        if on_progress is not None:
            control.listener = SimpleNamespace(wants_text=True, report=on_progress)
        return work(self.engines, control)


class FakeEngine:
    def __init__(self, name, manager):
        self.name = name
        self.manager = manager
        self.requests = []
        self.total_latency = 0.0
        self.error = None
        self.words, self.notices = f"{name} says", ()

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
        metrics = AskMetrics(self.total_latency, 0.5, 0.5, 0.25, 2, 0, 8, 20, 0, 4, (1, 2, 2), True, self.notices)
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
def office():
    """A desk with two cameras that have seen something, and what stands behind it."""
    cameras = {name: FakeCamera(name) for name in ("front", "rear")}
    engines = {name: FakeEngine(name, camera.frame_manager) for name, camera in cameras.items()}
    for camera in cameras.values():
        camera.see(1_799_999_990.0)
        camera.see(1_799_999_995.0)
    worker = FakeWorker(Engines("cpu", engines))
    desk = AskHandler(worker, cameras, 8)
    return SimpleNamespace(desk=desk, worker=worker, cameras=cameras, engines=engines)


def test_an_answer_comes_from_the_camera_asked_about(office):
    assert office.desk.ask(asking(), PARAMETERS).text == "front says"
    answer = office.desk.ask(asking(camera="rear"), PARAMETERS)
    assert answer.text == "rear says"
    assert [part.camera for part in answer.parts] == [office.cameras["rear"]]
    assert answer.newest_frame_age_sec == pytest.approx(5.0, abs=0.1)


def test_all_cameras_answer_under_their_names(office):
    # given
    office.cameras["front"].see(1_799_999_999.0)
    office.cameras["front"].warnings = ("no stamps",)
    # when
    answer = office.desk.ask(asking(camera="*"), PARAMETERS)
    # then
    assert answer.text == "front: front says\nrear: rear says"
    assert answer.newest_frame_age_sec == pytest.approx(5.0, abs=0.1), "the age of the camera that stands still"
    assert answer.metrics.frames_encoded == 4
    assert answer.metrics.total_latency == 3.0
    assert answer.metrics.time_to_first_token == 0.25
    assert answer.metrics.video_grid_thw == (1, 2, 2, 1, 2, 2)
    assert answer.warnings == ("no stamps",)


def test_a_camera_that_has_nothing_to_say_is_named(office):
    # given
    office.engines["front"].error = NoFramesError("no frames: wait")
    # when
    answer = office.desk.ask(asking(camera="*"), PARAMETERS)
    # then
    assert answer.text == "rear: rear says"
    assert answer.warnings == ("camera front is not in the answer: no frames: wait",)

    # when none has
    office.engines["rear"].error = NoFramesError("no frames: wait longer")
    with pytest.raises(NoFramesError, match=r"^camera front: no frames: wait; camera rear: no frames: wait longer$"):
        office.desk.ask(asking(camera="*"), PARAMETERS)


@pytest.mark.parametrize(
    "error", [AskTimeoutError("too late"), DeviceMemoryError("no room"), ConfigurationError("anything")]
)
@pytest.mark.parametrize("failing", ["front", "rear"])
def test_what_other_cameras_have_said_outlasts_one_that_fails(office, error, failing):
    # given
    other = "rear" if failing == "front" else "front"
    office.engines[failing].error = error
    # when
    answer = office.desk.ask(asking(camera="*"), PARAMETERS)
    # then
    assert answer.text == f"{other}: {other} says"
    assert answer.warnings == (f"camera {failing} is not in the answer: {error}",)
    # and asked by itself, its error is raised
    with pytest.raises(type(error), match=f"^{error}$"):
        office.desk.ask(asking(camera=failing), PARAMETERS)


def test_where_no_camera_can_answer_an_error_beside_no_frames_is_raised(office):
    office.engines["front"].error = NoFramesError("no frames: wait")
    office.engines["rear"].error = DeviceMemoryError("no room")
    with pytest.raises(DeviceMemoryError, match=r"^no room$"):
        office.desk.ask(asking(camera="*"), PARAMETERS)


def test_an_ask_about_all_that_is_cancelled_has_no_answer(office):
    office.engines["rear"].error = AskCancelledError("cancelled")
    with pytest.raises(AskCancelledError):
        office.desk.ask(asking(camera="*"), PARAMETERS)
    assert office.engines["front"].requests


def test_what_was_said_by_the_deadline_is_answered_at_the_deadline(office):
    # given a real worker, and a camera that takes too long
    def too_slow(_request, control):
        while True:
            time.sleep(0.01)
            control.check()

    office.engines["rear"].answer = too_slow
    worker = ModelWorker(lambda: office.worker.engines, 8)
    desk = AskHandler(worker, office.cameras, 8)
    worker.start()
    try:
        # when
        answer = desk.ask(asking(camera="*", timeout_sec=0.5), PARAMETERS)
        # then
        assert answer.text == "front: front says"
        (notice,) = answer.warnings
        assert notice.startswith("camera rear is not in the answer: no answer within 0.5 s")
        with pytest.raises(AskTimeoutError):
            desk.ask(asking(camera="rear", timeout_sec=0.2), PARAMETERS)
    finally:
        worker.close(PATIENCE_SEC)


def test_of_all_cameras_each_has_one_line_and_its_notices_have_its_name(office):
    # given
    office.engines["front"].words, office.engines["front"].notices = "a box\n\nand  a ball\n", ("short of memory",)
    # when
    answer = office.desk.ask(asking(camera="*"), PARAMETERS)
    # then
    assert answer.text == "front: a box and a ball\nrear: rear says"
    assert answer.metrics.warnings == ("camera front: short of memory",)
    # and by itself its words are as they are
    answer = office.desk.ask(asking(camera="front"), PARAMETERS)
    assert answer.text == "a box\n\nand  a ball\n"
    assert answer.metrics.warnings == ("short of memory",)


def test_where_no_camera_has_seen_anything_all_are_named(office):
    for camera in office.cameras.values():
        camera.frame_manager.reset()
    with pytest.raises(NoFramesError, match=r"camera front has nothing .* camera rear has nothing"):
        office.desk.ask(asking(camera="*"), PARAMETERS)
    assert office.worker.timeouts == []


def test_progress_about_all_is_that_of_all(office):
    # given
    on_progress = []
    office.engines["front"].words = "ab"

    # when
    answer = office.desk.ask(asking(camera="*"), PARAMETERS, on_progress=on_progress.append)

    # then
    texts = [progress.text for progress in on_progress]
    assert texts[:3] == ["", "front: a", "front: ab"]
    assert texts[3:5] == ["front: ab", "front: ab\nrear: r"]
    assert texts[-1] == answer.text
    assert [progress.answer_tokens for progress in on_progress[:5]] == [0, 1, 2, 4, 5]
    assert on_progress[3].stage is Stage.ENCODING


def test_progress_about_one_is_its_own(office):
    on_progress = []
    office.desk.ask(asking(camera="rear", client_id="me"), PARAMETERS, on_progress=on_progress.append)
    assert on_progress[-1] == Progress(Stage.GENERATING, "rear says", 9)
    assert office.worker.askers == ["me"]


def test_the_engine_gets_the_request_and_the_worker_the_deadline(office):
    office.desk.ask(asking(last_sec=2.0), PARAMETERS)
    office.desk.ask(asking(timeout_sec=0.5), PARAMETERS)
    assert office.engines["front"].requests[0] == AskRequest("What?", None, None, 2.0, 33)
    assert office.worker.timeouts == [7.0, 0.5]


def test_waiting_in_the_queue_is_measured(office):
    for delay_sec in (0.0, 0.06):
        office.worker.delay_sec = delay_sec
        began = time.monotonic()
        measured = office.desk.ask(asking(), PARAMETERS).queue_latency
        assert delay_sec <= measured <= time.monotonic() - began


def test_an_unknown_camera_is_refused_with_the_names_there_are(office):
    with pytest.raises(UnknownCameraError, match="no camera 'Front': the cameras are front, rear; leave it empty"):
        office.desk.ask(asking(camera="Front"), PARAMETERS)


def test_an_empty_memory_is_said_before_anything_is_queued(office):
    # given
    office.cameras["front"].frame_manager.reset()

    # then
    with pytest.raises(NoFramesError, match=r"camera front has nothing in its memory\. Check .* on /front/image"):
        office.desk.ask(asking(), PARAMETERS)
    office.cameras["front"].last_drop_reason = "step is 3"
    with pytest.raises(NoFramesError, match=r"The last image was dropped: step is 3\. Check"):
        office.desk.ask(asking(), PARAMETERS)
    assert office.worker.timeouts == []


@pytest.mark.parametrize("fields", [{"question": ""}, {"timeout_sec": -1.0}, {"camera": "side"}])
def test_a_bad_request_does_not_reach_the_worker_and_is_counted(office, fields):
    with pytest.raises(BadRequestError):
        office.desk.ask(asking(**fields), PARAMETERS)
    assert office.worker.timeouts == []
    assert (office.desk.report().served, office.desk.report().failed) == (0, 1)


def test_a_desk_that_was_never_asked(office):
    assert office.desk.report() == AskReport(0, 0, True, 3, 8, "", 0.0, 0.0)


def test_the_report_tells_of_the_last_answer_and_the_last_error(office):
    # when
    office.desk.ask(asking(), PARAMETERS)
    office.desk.ask(asking(), PARAMETERS)
    with pytest.raises(ZeroDivisionError):
        office.desk.ask(asking(question="defect"), PARAMETERS)
    office.worker.error = BusyError("8 asks are waiting")
    with pytest.raises(BusyError):
        office.desk.ask(asking(), PARAMETERS)

    # then: failures leave the latencies of the last answer as they are
    expected = AskReport(2, 2, True, 3, 8, "BusyError: 8 asks are waiting", 3.0, 0.25)
    assert office.desk.report() == expected

    # and an answer leaves the last error for the record
    office.worker.error = None
    office.desk.ask(asking(), PARAMETERS)
    assert office.desk.report() == replace(expected, served=3, last_total_latency=4.5)


def test_asks_from_many_threads_are_all_counted(office):
    # given
    office.worker.error = AskTimeoutError("too late")

    def ask_often():
        for _ in range(100):
            with pytest.raises(AskTimeoutError):
                office.desk.ask(asking(), PARAMETERS)

    threads = [threading.Thread(target=ask_often) for _ in range(8)]

    # when
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    # then
    assert office.desk.report().failed == 800
