"""``SceneMemoryClient``: blocking calls, calls on a spun node, and questions that a restarted node has lost."""

import signal
import time

import pytest
from delayed_vlm_ros.action import AskScene
from delayed_vlm_ros.msg import NodeStats
from delayed_vlm_ros.srv import AskScene as AskSceneService
from harness import FAKE_SCENE_MEMORY, Client, NodeProcess
from rclpy.action import ActionServer
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.task import Future
from waiting import PATIENCE_SEC, Stopwatch, wait_until

from delayed_vlm_ros.errors import AskTimeoutError, BadRequestError, NodeNotFoundError
from delayed_vlm_ros.ros import client as client_module
from delayed_vlm_ros.ros.client import SceneMemoryClient


@pytest.fixture(scope="module")
def connected(with_images):
    """A client with a node of its own."""
    with SceneMemoryClient.connect(with_images.namespace) as client:
        assert client.wait_until(client.action_is_ready, PATIENCE_SEC)
        assert client.wait_until(client.service_is_ready, PATIENCE_SEC)
        yield client


@pytest.fixture
def spun(with_images):
    """A client on a node that another thread spins."""
    client = SceneMemoryClient(with_images.node)
    wait_until(lambda: client.action_is_ready() and client.service_is_ready(), "service and action")
    yield client
    client.close()


def test_blocking_calls_spin_the_own_node(connected):
    response = connected.ask("What?", timeout_sec=PATIENCE_SEC)
    assert response.answer == "about What?"
    kept = connected.get_frames(image_format="jpeg")
    assert len(kept.key_frames) == len(kept.first_images) > 0
    marked = connected.mark(pair_id=kept.key_frames[0].id, label="door")
    assert (marked.success, marked.key_frame.label) == (True, "door")
    assert connected.mark(pair_id=marked.key_frame.id, unmark=True).success
    assert connected.wait_until(lambda: bool(connected.statistics and connected.diagnostics), PATIENCE_SEC)
    assert set(connected.statistics_by_camera) == {"camera"}
    connected.clear_reports()
    assert connected.statistics is None


def test_blocking_calls_wait_for_the_executor_of_a_spun_node(spun):
    assert spun.ask("What?", timeout_sec=PATIENCE_SEC).success
    feedback = []
    result = spun.stream(AskScene.Goal(question="say a b", timeout_sec=PATIENCE_SEC), feedback.append)
    assert result.answer == "about say a b"
    assert feedback[-1].text.startswith("a")
    assert list(spun.get_frames([10**6]).missing) == [10**6]


@pytest.mark.parametrize("client", ["connected", "spun"])
def test_cancelled_stream_returns_the_error_of_the_node(client, request):
    cancelling = []
    goal = AskScene.Goal(question="say", timeout_sec=PATIENCE_SEC)
    result = request.getfixturevalue(client).stream(goal, cancelling.append, cancelled=lambda: bool(cancelling))
    assert result.error_code == AskScene.Result.CANCELLED


def test_deadline_of_zero_is_rejected(connected):
    with pytest.raises(BadRequestError, match="timeout_sec"):
        connected.ask("What?", timeout_sec=0.0)
    with pytest.raises(BadRequestError, match="timeout_sec"):
        connected.stream(AskScene.Goal(question="What?"), print)


def test_missing_node_is_reported(ros):
    with SceneMemoryClient.connect("/nowhere") as client:
        with pytest.raises(NodeNotFoundError, match="nowhere"):
            client.stream(AskScene.Goal(question="What?", timeout_sec=PATIENCE_SEC), print)
        with pytest.raises(NodeNotFoundError, match="nowhere"):
            client.mark(timeout_sec=0.1)


def test_question_is_lost_when_the_node_restarts(start):
    # given a question that runs
    process, observer = start(namespace="/restarted", memory__sample_fps=50.0)
    observer.wait_until_ready()
    observer.show_images(2)
    client = SceneMemoryClient(observer.node)
    wait_until(client.action_is_ready, "the action")
    question = client.stream_async(AskScene.Goal(question="say", timeout_sec=PATIENCE_SEC), lambda _: None)
    wait_until(lambda: question.text, "feedback")
    # when the node is killed and started again
    process.process.send_signal(signal.SIGKILL)
    process.process.wait()
    restarted = NodeProcess("/restarted", FAKE_SCENE_MEMORY, {"model.name": "demo"}, {}, {})
    # then
    try:
        with pytest.raises(NodeNotFoundError, match="restarted"):
            question.future.result(PATIENCE_SEC)
    finally:
        restarted.close()
        client.close()


def test_answer_that_reports_of_an_idle_node_overtake_is_received(ros):
    server = Client("/overtaken")
    reports = server.node.create_publisher(NodeStats, "scene_memory/node_stats", 10)
    may_end = Future()

    async def answer_late(goal):
        await may_end
        goal.succeed()
        return AskScene.Result(answer="late")

    action = ActionServer(server.node, AskScene, "ask_scene_stream", answer_late)
    client = SceneMemoryClient(server.node)
    wait_until(client.action_is_ready, "the action")
    question = client.stream_async(AskScene.Goal(question="What?", timeout_sec=PATIENCE_SEC), lambda _: None)
    wait_until(lambda: question.is_accepted, "the acceptance")
    for _ in range(8):
        received = client.node_statistics
        reports.publish(NodeStats())
        wait_until(lambda received=received: client.node_statistics is not received, "the report")
    may_end.set_result(None)
    assert question.future.result(PATIENCE_SEC).answer == "late"
    client.close()
    action.destroy()
    server.close()


SCALE = 0.1  # of the client's limits, to save time
DEADLINE_SEC = 0.2
SILENT_END_SEC = DEADLINE_SEC + 2.0 * SCALE
BUSY_END_SEC = DEADLINE_SEC + 5.0 * SCALE


@pytest.fixture
def unresponsive(ros, monkeypatch):
    """A namespace whose service ask_scene never responds, and a client of it with shorter limits."""
    for name in ("_GRACE_SEC", "_BUSY_GRACE_SEC"):
        monkeypatch.setattr(client_module, name, getattr(client_module, name) * SCALE)
    server = Client("/unresponsive")

    async def wait_forever(request, response):
        await Future()
        return response

    server.node.create_service(AskSceneService, "ask_scene", wait_forever, callback_group=ReentrantCallbackGroup())
    with SceneMemoryClient.connect("/unresponsive") as client:
        assert client.wait_until(client.service_is_ready, PATIENCE_SEC)
        yield server, client
    server.close()


def test_missing_response_of_a_silent_node_is_reported(unresponsive):
    _, client = unresponsive
    with Stopwatch() as watch:
        started = time.monotonic()
        with pytest.raises(AskTimeoutError, match="no report of the node either: it hangs"):
            client.ask("What?", timeout_sec=DEADLINE_SEC)
        passed_sec = time.monotonic() - started
    assert passed_sec >= SILENT_END_SEC
    assert passed_sec / watch.slowdown < BUSY_END_SEC


def test_missing_response_of_a_busy_node_is_reported_as_such(unresponsive):
    server, client = unresponsive
    publisher = server.node.create_publisher(NodeStats, "scene_memory/node_stats", 10)
    stats = NodeStats(model_state="ready", questions_running=1, questions_waiting=3)
    server.node.create_timer(0.05, lambda: publisher.publish(stats))
    assert client.wait_until(lambda: client.node_statistics is not None, PATIENCE_SEC)
    started = time.monotonic()
    with pytest.raises(AskTimeoutError, match=r"alive \(model ready, 1 running and 3 waiting questions\)"):
        client.ask("What?", timeout_sec=DEADLINE_SEC)
    assert time.monotonic() - started >= BUSY_END_SEC
