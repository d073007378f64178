"""The ``scene_memory`` node with a model server that answers, misbehaves, dies and returns."""

import signal
import time
from pathlib import Path

import pytest
from chat_server import MODEL, ChatServer, Fault
from delayed_vlm_ros.msg import WatchState
from delayed_vlm_ros.srv import AskScene
from harness import values_of
from waiting import Stopwatch, wait_until

ERROR = AskScene.Response
ERROR_LEVEL = bytes([2])
QUESTION, ANSWER = "What is on the left?", "a red box"
KEY, KEY_ENV = "sk-node-71bd0e", "NODE_TEST_KEY"
CANCEL_SEC = 0.3
LATE_SEC = 0.5
REPORT_SEC = 10.0  # the server is checked every five seconds
GONE_TIMEOUT_SEC = 8.0


class Robot:
    """A node, its client and its server."""

    def __init__(self, start):
        self.server = ChatServer(api_key=KEY)
        self.host = f"127.0.0.1:{self.server.port}"
        self.process, self.client = start(
            fake=False,
            model__name=f"'openai:{self.server.url}#{MODEL}'",
            remote__api_key_env=KEY_ENV,
            memory__sample_fps=50.0,
            diagnostics__stale_after_sec=300.0,
            watches__max_duty=1.0,
            environment={KEY_ENV: KEY},
            new_interpreter=True,  # what it imports is tested
        )
        self.client.wait_until_ready()
        self.client.show_images(8)

    def ask(self, **fields):
        """Ask; return the response and the seconds on an idle machine."""
        with Stopwatch() as watch:
            began = time.monotonic()
            response = self.client.ask(QUESTION, **fields)
            seconds = time.monotonic() - began
        return response, seconds / watch.slowdown

    def check(self):
        """Check that the node answers."""
        response, _ = self.ask()
        assert (response.answer, response.error_msg) == (ANSWER, "")

    @property
    def questions(self):
        return [chat for chat in self.server.chats if chat.parts[-1]["text"] == QUESTION]

    def wait_for_model(self, *, is_away):
        """Wait until the diagnostics report that the server is away, or there; return the status and the seconds."""
        with Stopwatch() as watch:
            since_ns = self.client.now_ns()
            status, at_ns = self.client.wait_for_report(
                "model", lambda status: (self.host in status.message) == is_away, since_ns
            )
        return status, (at_ns - since_ns) * 1e-9 / watch.slowdown


@pytest.fixture(scope="module")
def shared_robot(start_for_module):
    robot = Robot(start_for_module)
    yield robot
    robot.server.close()


@pytest.fixture
def robot(shared_robot):
    """Return the robot with a server that behaves and has answered once."""
    server = shared_robot.server
    if not server.is_open:
        server.start()
    server.behave()
    server.answer, server.token_sec, server.yes = ANSWER, 0.0, 0.9
    shared_robot.client.ask(QUESTION)
    shared_robot.check()
    server.received.clear()
    return shared_robot


def test_answer_comes_from_the_server_and_says_so(robot):
    response, _ = robot.ask(include_frames=True)
    assert response.answer == ANSWER
    assert len(response.frames_used) == len(robot.questions[-1].items)
    assert not response.metrics.exact
    assert response.metrics.bytes_sent == sum(len(request.body) for request in robot.questions)
    assert any("remote engine" in warning for warning in response.metrics.warnings)
    assert robot.questions[-1].items_with_data == 0


def test_node_process_has_no_torch(robot):
    maps = Path(f"/proc/{robot.process.process.pid}/maps").read_text()
    assert "rclpy" in maps
    assert "libtorch" not in maps


def test_streamed_answer_grows_and_its_cancellation_closes_the_request(robot):
    robot.server.answer, robot.server.token_sec = "word " * 400, 0.05
    goal = robot.client.start_goal(QUESTION, max_new_tokens=256)
    goal.wait_for_feedback(lambda got: got.text.startswith("word word"))
    # when
    with Stopwatch() as watch:
        cancelled = time.monotonic()
        goal.cancel()
        assert goal.result().error_code == ERROR.CANCELLED
        number = robot.questions[-1].number
        left = wait_until(lambda: robot.server.disconnects.get(number), "the server to notice")
    # then
    assert goal.status() == "CANCELED"
    assert (left - cancelled) / watch.slowdown < CANCEL_SEC
    assert len(robot.questions) == 1


@pytest.mark.parametrize("fault", [Fault.HANG, Fault.HANG_IN_ANSWER, Fault.SLOW_LORIS], ids=lambda fault: fault.name)
def test_server_that_hangs_ends_the_question_at_its_deadline(robot, fault):
    robot.server.plan(fault)
    response, seconds = robot.ask(timeout_sec=1.0)
    assert response.error_code == ERROR.TIMEOUT
    assert seconds < 1.0 + LATE_SEC
    number = robot.questions[-1].number
    wait_until(lambda: number in robot.server.disconnects, "the server to notice")
    robot.check()


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault.TOO_MANY_REQUESTS_WAIT, ERROR.BUSY),
        (Fault.RESET_IN_ANSWER, ERROR.MODEL_NOT_READY),
        (Fault.BAD_GATEWAY, ERROR.MODEL_NOT_READY),
        (Fault.UNAUTHORIZED, ERROR.MODEL_NOT_READY),
        (Fault.GARBAGE, ERROR.MODEL_NOT_READY),
        (Fault.HTML_PAGE, ERROR.MODEL_NOT_READY),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_fault_is_an_error_with_the_host_and_the_next_question_is_answered(robot, fault, code):
    robot.server.plan(fault)
    response, seconds = robot.ask(timeout_sec=GONE_TIMEOUT_SEC)
    assert (response.success, response.error_code) == (False, code)
    assert robot.host in response.error_msg
    assert "\n" not in response.error_msg
    assert seconds < GONE_TIMEOUT_SEC
    robot.check()


def test_killed_server_is_reported_until_it_is_back(robot):
    kept = robot.ask()[0].frame_ids
    robot.server.kill()
    # when nobody asks
    status, seconds = robot.wait_for_model(is_away=True)
    # then
    assert status.level == ERROR_LEVEL
    assert seconds < REPORT_SEC
    response, seconds = robot.ask(timeout_sec=GONE_TIMEOUT_SEC)
    assert response.error_code == ERROR.MODEL_NOT_READY
    assert robot.host in response.error_msg
    assert seconds < GONE_TIMEOUT_SEC
    # when it is back, and nobody asks
    robot.server.start()
    _, seconds = robot.wait_for_model(is_away=False)
    # then
    assert seconds < REPORT_SEC
    response, _ = robot.ask()
    assert response.answer == ANSWER
    assert response.frame_ids == kept
    assert robot.questions[-1].items_with_data == len(kept)
    assert robot.process.alive


def test_watch_is_unknown_while_the_server_is_away_and_continues(robot):
    client, server = robot.client, robot.server
    assert client.watch("box", "Is there a box?").success

    def show_until(level):
        def reached():
            client.show_images(2)
            return any(state.settings.name == "box" and state.level == level for state in client.watches)

        wait_until(reached, f"level {level}; the last: {client.watches}")

    show_until(WatchState.YES)
    server.kill()
    show_until(WatchState.UNKNOWN)
    server.yes = 0.1
    server.start()
    show_until(WatchState.NO)
    assert client.unwatch("box").success
    assert server.conflicts == []


def test_key_is_in_no_log_report_or_parameter(robot):
    robot.server.plan(Fault.UNAUTHORIZED)
    robot.ask()
    robot.check()
    assert {request.headers["authorization"] for request in robot.server.received} == {f"Bearer {KEY}"}
    assert KEY not in robot.process.log
    statuses = [report.content for report in robot.client._statuses]
    assert not any(KEY in str((status.message, values_of(status))) for one in statuses for status in one.values())


def test_node_ends_in_time_while_the_server_hangs(start):
    robot = Robot(start)
    robot.check()
    robot.server.plan(Fault.HANG)
    future = robot.client.start_ask(QUESTION)
    wait_until(lambda: len(robot.questions) == 2, "the question")
    # when
    code, seconds = robot.process.end(signal.SIGINT)
    # then
    assert code == 0, robot.process.log
    assert seconds < 5.0
    assert future.done()
    robot.server.close()
