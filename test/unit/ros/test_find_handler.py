"""Searches from message to result: whatever fails, the client gets a result or an error. The worker is a fake."""

from concurrent.futures import Future
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from delayed_vlm_ros.srv import FindMoments
from fake_metrics import metrics_of_scores

from delayed_vlm_ros.errors import AskTimeoutError
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.yes_no import ScoreResult, YesNo
from delayed_vlm_ros.journal import JournalEntry, JournalMatch
from delayed_vlm_ros.memory import SmartFrameManager
from delayed_vlm_ros.ros.scene_memory.engines import Engines
from delayed_vlm_ros.ros.scene_memory.parameters import SceneMemoryParameters
from delayed_vlm_ros.ros.services.find_handler import FindHandler, FindRequest, FoundLines, MultiCameraSearch
from delayed_vlm_ros.time import NANOSECONDS_PER_SECOND

PARAMETERS = SceneMemoryParameters()
HOUR_SEC = 3600


class Camera:
    """A camera with two pairs."""

    def __init__(self, name):
        self.name, self.warnings = name, ()
        self.frame_manager = SmartFrameManager(0, 4)
        for number in range(4):  # the messages are an hour ahead of the memory's own time
            header = SimpleNamespace(stamp_ns=(number + HOUR_SEC + 1) * NANOSECONDS_PER_SECOND)
            self.frame_manager.add(np.full((28, 28, 3), 50 * number, np.uint8), float(number + 1), header)

    def header_of(self, frame):
        return frame.source


class Engine:
    """Gives the same answer to everything."""

    def __init__(self, p_yes=0.9):
        self._p_yes = p_yes

    def score(self, questions, *, frames, control):
        return ScoreResult(tuple(YesNo(self._p_yes, 1.0, 2.0, "?") for _ in questions), frames, metrics_of_scores())


class Worker:
    """Keeps the jobs; the test ends them."""

    def __init__(self):
        self.status = SimpleNamespace(waiting=1)  # a question waits: each part of a search ends after a pair
        self.parts = []

    def submit(self, work, timeout_sec, *, control, client_id, on_done):
        self.parts.append((work, on_done))

    def run(self, cameras):
        """Run the last part, without its end."""
        engines = Engines("cpu", {camera.name: Engine() for camera in cameras})
        return self.parts[-1][0](engines, AskControl())

    def end(self, error):
        part = Future()
        part.set_exception(error)
        self.parts[-1][1](part)


@pytest.fixture
def cameras():
    return [Camera("front"), Camera("rear")]


@pytest.fixture
def worker():
    return Worker()


@pytest.fixture
def outcome(cameras, worker):
    """The result of a search that has seen one pair."""
    handler = FindHandler(worker, {camera.name: camera for camera in cameras})
    submitted = handler.submit(FindMoments.Request(description="a box?", camera="*"), PARAMETERS)
    assert not worker.run(cameras)
    return submitted


def test_deadline_returns_what_was_found_and_names_the_rest(outcome, worker):
    worker.end(AskTimeoutError("late"))
    found = outcome.result(0)
    assert found.pairs_searched == 1
    assert "not searched: 1 older key frames of front, camera rear." in found.warnings[0]


def test_deadline_while_the_worker_begins_with_the_next_camera_returns_what_was_found(outcome, worker, cameras):
    # given the deadline's thread at work on the rest, while the worker's thread begins with another camera
    search = worker.parts[0][0].func.__self__

    class Interrupted(str):
        def __format__(self, spec):
            search._search_of(cameras[1])
            return str(self)

    search._searches = {Interrupted("front"): search._searches["front"]}
    worker.end(AskTimeoutError("late"))
    assert "not searched: 1 older key frames of front" in outcome.result(0).warnings[0]


@pytest.mark.parametrize("error", [AskTimeoutError("late"), RuntimeError("defect")])
def test_failure_at_the_end_of_a_search_reaches_the_client(outcome, worker, monkeypatch, error):
    def fail(*_):
        raise RuntimeError("planted by the test")

    monkeypatch.setattr(MultiCameraSearch, "found", fail)
    worker.end(error)
    with pytest.raises(RuntimeError, match=r"planted by the test|defect"):
        outcome.result(0)


def line(camera, stamp):
    """Return a line of the journal that has all words."""
    stamp_ns = stamp * NANOSECONDS_PER_SECOND
    return JournalMatch(JournalEntry(1, camera, "lens", stamp_ns, stamp_ns, 7, "a box"), 1.0)


@pytest.mark.parametrize(
    ("p_yes", "max_moments", "expected"),
    [
        (0.9, 2, [("front", 5), ("rear", HOUR_SEC + 5)]),  # key frames of the front camera show the first line
        (0.2, 10, [("front", HOUR_SEC + 5), ("front", 5), ("rear", HOUR_SEC + 5), ("front", 200)]),  # no key frame fits
    ],
)
def test_lines_about_moments_that_fitting_key_frames_show_are_left_out(cameras, p_yes, max_moments, expected):
    # given
    lines = FoundLines(
        (line("front", HOUR_SEC + 5), line("front", 5), line("rear", HOUR_SEC + 5), line("front", 200)), 4
    )
    request = FindRequest("a box?", None, None, max_moments, False)
    search = MultiCameraSearch(request, cameras[:1], lines, is_of_all=False)

    # when
    assert search.run(lambda: False, Engines("cpu", {"front": Engine(p_yes)}), AskControl())
    found = search.found()

    # then
    assert [(one.entry.camera, one.stamp_ns // NANOSECONDS_PER_SECOND) for one in found.lines] == expected
    assert found.lines_searched == 4
