"""Service and action without a graph: failing publishers, cancellation, logging."""

import threading
import time
from concurrent.futures import Future
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from delayed_vlm_ros.action import AskScene as AskSceneAction
from delayed_vlm_ros.srv import AskScene

from delayed_vlm_ros.errors import (
    AskCancelledError,
    AskTimeoutError,
    BadRequestError,
    NoFramesError,
    NonFiniteError,
    UnknownCameraError,
)
from delayed_vlm_ros.inference.progress import Progress, Stage
from delayed_vlm_ros.ros.services import ask_services
from delayed_vlm_ros.ros.services.ask_services import AskServices


class FullPublisher:
    """A publisher whose middleware has no room."""

    def publish(self, _):
        raise RuntimeError("failed to publish: out of resources")


class Log:
    """Records log lines as (level, text)."""

    def __init__(self):
        self.lines = []

    def __getattr__(self, level):
        return lambda text, **_: self.lines.append((level, text))


class Goal:
    """The part of a goal handle that the action uses; publishing feedback fails."""

    def __init__(self, *, is_cancel_requested=False, number=1):
        self.request = AskSceneAction.Goal(question="What?")
        self.goal_id = SimpleNamespace(uuid=np.full(16, number, np.uint8))
        self.is_cancel_requested = is_cancel_requested
        self.ends = []

    @property
    def is_active(self):
        return not self.ends

    def publish_feedback(self, _):
        raise RuntimeError("failed to publish: out of resources")

    def succeed(self):
        self.ends.append("succeeded")

    def canceled(self):
        self.ends.append("cancelled")

    def abort(self):
        self.ends.append("aborted")


@pytest.fixture
def log():
    return Log()


@pytest.fixture
def make_services(monkeypatch, log):
    """Return a function that makes the services of a node without a graph."""
    monkeypatch.setattr(ask_services, "PacedActionServer", lambda *_, **__: SimpleNamespace(stop_pacing=lambda: None))
    monkeypatch.setattr(ask_services, "fill_answer", fill_answer)
    monkeypatch.setattr(ask_services, "scene_answer", lambda *_: None)
    node = SimpleNamespace(
        create_publisher=lambda *_: FullPublisher(),
        create_service=lambda *_, **__: None,
        executor=SimpleNamespace(wake=lambda: None),
        get_logger=lambda: log,
    )
    return lambda submit: AskServices(node, submit)


def fill_answer(response, answer, *, include_frames):
    assert not include_frames
    response.success, response.answer = True, answer


def finished(*, answer=None, error=None):
    future = Future()
    if error is None:
        future.set_result(answer)
    else:
        future.set_exception(error)
    return future


def run(handler):
    """Run a handler to its end, as an executor does; return its result."""
    while True:
        try:
            handler.send(None)
        except StopIteration as end:
            return end.value
        time.sleep(0.001)


def ask(services):
    return run(services._on_request(AskScene.Request(question="What?"), AskScene.Response()))


def test_answer_that_cannot_be_published_reaches_its_client(make_services):
    assert ask(make_services(lambda *_: finished(answer="a box"))).answer == "a box"


def test_response_and_log_line_carry_the_request_id(make_services, log):
    services = make_services(lambda *_: finished(error=NoFramesError("nothing seen")))
    response = run(services._on_request(AskScene.Request(question="What?", request_id="trip-7"), AskScene.Response()))
    assert response.request_id == "trip-7"
    assert any("question trip-7 not answered: nothing seen" in line for line in log.lines)


def test_error_that_cannot_be_published_reaches_its_client(make_services):
    services = make_services(lambda *_: finished(error=NoFramesError("nothing seen")))
    assert ask(services).error_code == AskScene.Response.NO_FRAMES


def test_error_on_submission_reaches_its_client(make_services):
    def submit(*_):
        raise UnknownCameraError("unknown camera 'rear'")

    assert ask(make_services(submit)).error_code == AskScene.Response.UNKNOWN_CAMERA


def test_feedback_that_cannot_be_published_does_not_end_the_question(make_services):
    def submit(_message, _control, on_progress):
        on_progress(Progress(Stage.GENERATING, "a"))
        return finished(answer="a box")

    assert run(make_services(submit)._on_goal(Goal())).answer == "a box"


def test_handler_waits_without_a_thread_and_passes_progress_on(make_services, monkeypatch):
    # given a question that another thread answers
    published = []
    monkeypatch.setattr(Goal, "publish_feedback", lambda _, message: published.append((message.stage, message.text)))
    future, listeners = Future(), []

    def submit(_message, _control, on_progress):
        listeners.append(on_progress)
        return future

    goal = Goal()
    handler = make_services(submit)._on_goal(goal)
    # when nothing happens, each step returns at once
    for _ in range(3):
        handler.send(None)
    assert published == [(Stage.QUEUED, "")]
    # when the answer grows
    listeners[0](Progress(Stage.ENCODING))
    listeners[0](Progress(Stage.GENERATING, "a"))
    handler.send(None)
    assert published[1:] == [(Stage.ENCODING, ""), (Stage.GENERATING, "a")]
    # then the last progress is published before the end
    worker = threading.Thread(
        target=lambda: (listeners[0](Progress(Stage.GENERATING, "a box", 2)), future.set_result("a box"))
    )
    worker.start()
    worker.join()
    assert run(handler).answer == "a box"
    assert published[-1] == (Stage.GENERATING, "a box")
    assert goal.ends == ["succeeded"]


def test_goal_cancelled_by_cleanup_is_aborted(make_services, monkeypatch):
    # given a question that the closing worker cancels
    def submit(_message, control, _on_progress):
        control.cancel()
        return finished(error=AskCancelledError("the node is being cleaned up"))

    monkeypatch.setattr(ask_services, "is_cancelling", lambda _: pytest.fail("waited for a request to cancel"))
    goal = Goal()
    # when
    result = run(make_services(submit)._on_goal(goal))
    # then
    assert goal.ends == ["aborted"]
    assert result.error_code == AskSceneAction.Result.CANCELLED


def test_goal_cancelled_by_its_client_ends_as_cancelled(make_services):
    goal = Goal(is_cancel_requested=True)

    def submit(*_):
        services._on_cancel(goal)
        return finished(error=AskCancelledError("cancelled"))

    services = make_services(submit)
    run(services._on_goal(goal))
    assert goal.ends == ["cancelled"]


def test_goal_cancelled_before_its_handler_starts_is_cancelled(make_services):
    def submit(_message, control, _on_progress):
        assert control.is_cancelled
        return finished(error=AskCancelledError("cancelled"))

    goal = Goal(is_cancel_requested=True)
    services = make_services(submit)
    services._on_cancel(goal)
    run(services._on_goal(goal))
    assert goal.ends == ["cancelled"]


def test_controls_of_ended_goals_are_dropped(make_services):
    services = make_services(lambda *_: finished(answer="a box"))
    for number in range(5):
        goal = Goal(number=number)
        run(services._on_goal(goal))
        services._on_cancel(goal)  # too late
    assert services._controls == {}


@pytest.mark.parametrize(
    ("error", "level", "words"),
    [
        (BadRequestError("empty question"), "info", "rejected"),
        (AskTimeoutError("too late"), "info", "not answered"),
        (NonFiniteError("the logits are NaN"), "error", "failed"),
        (ZeroDivisionError("planted"), "error", "Traceback"),
    ],
)
def test_outcome_is_logged_by_its_cause(make_services, log, error, level, words):
    ask(make_services(lambda *_: finished(error=error)))
    (logged, text), *_ = log.lines
    assert logged == level
    assert words in text
    assert str(error) in text
