"""Service and action when the middleware has no room, and when it is not the client_id who cancels."""

from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from delayed_vlm_ros.action import AskScene as AskSceneAction
from delayed_vlm_ros.srv import AskScene
from rclpy.logging import get_logger

from delayed_vlm_ros.errors import AskCancelledError, NoFramesError
from delayed_vlm_ros.inference.progress import Progress, Stage
from delayed_vlm_ros.ros.services import ask_services
from delayed_vlm_ros.ros.services.ask_services import AskServices


class FullPublisher:
    """One whose middleware has no room."""

    def publish(self, _):
        raise RuntimeError("failed to publish: out of resources")


class Goal:
    """As much of a goal's handle as an ask needs; no feedback gets through."""

    def __init__(self, *, is_cancel_requested=False):
        self.request = AskSceneAction.Goal(question="What?")
        self.is_cancel_requested = is_cancel_requested
        self.ends = []

    def publish_feedback(self, _):
        raise RuntimeError("failed to publish: out of resources")

    def succeed(self):
        self.ends.append("succeeded")

    def canceled(self):
        self.ends.append("cancelled")

    def abort(self):
        self.ends.append("aborted")


@pytest.fixture
def make_services(monkeypatch):
    """Makes services of a node without a graph."""
    monkeypatch.setattr(ask_services, "ActionServer", lambda *_, **__: None)
    monkeypatch.setattr(ask_services, "fill_answer", lambda response, answer: setattr(response, "answer", answer))
    node = SimpleNamespace(
        create_publisher=lambda *_: FullPublisher(),
        create_service=lambda *_, **__: None,
        get_logger=lambda: get_logger("test_ask_services"),
    )
    return lambda ask: AskServices(node, ask)


def test_an_answer_that_cannot_be_published_reaches_its_client_id(make_services):
    services = make_services(lambda *_: "a box")
    assert services._on_request(AskScene.Request(question="What?"), AskScene.Response()).answer == "a box"


def test_an_error_that_cannot_be_published_reaches_its_client_id(make_services):
    def ask(*_):
        raise NoFramesError("nothing seen")

    response = make_services(ask)._on_request(AskScene.Request(question="What?"), AskScene.Response())
    assert response.error_code == AskScene.Response.NO_FRAMES


def test_feedback_that_cannot_be_published_does_not_end_the_ask(make_services):
    def ask(_message, _control, on_progress):
        on_progress(Progress(Stage.GENERATING, "a"))
        return "a box"

    assert make_services(ask)._on_goal(Goal()).answer == "a box"


def test_a_goal_that_is_cancelled_at_cleanup_ends_at_once(make_services, monkeypatch):
    # given an ask that the worker's end cancels
    def ask(_message, control, _told):
        control.cancel()
        raise AskCancelledError("the node is being cleaned up")

    monkeypatch.setattr(ask_services, "_is_cancelling", lambda _: pytest.fail("waited for a request to cancel"))
    goal = Goal()
    # when
    result = make_services(ask)._on_goal(goal)
    # then
    assert goal.ends == ["aborted"]
    assert result.error_code == AskSceneAction.Result.CANCELLED


def test_a_goal_whose_cancellation_was_requested_ends_as_cancelled(make_services):
    goal = Goal(is_cancel_requested=True)

    def ask(*_):
        services._on_cancel(goal)
        raise AskCancelledError("cancelled")

    services = make_services(ask)
    services._on_goal(goal)
    assert goal.ends == ["cancelled"]
