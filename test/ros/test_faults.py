"""The faults of docs/reliability.md, one after another on one node with its real model.

After each fault the node runs, its kept frames are unchanged, and the next answer is correct. The diagnostics report
each fault within two seconds and clear it within two seconds of its end, in seconds of an idle machine.
"""

import itertools
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress

import pytest
import rclpy
from delayed_vlm_ros.srv import AskScene, GetFrames
from harness import CONTEXT, FAULTY_SCENE_MEMORY, ROOM_CAMERA, ROOT, NodeProcess, Spinning
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.qos import QoSProfile
from room_camera import room_images
from waiting import PATIENCE_SEC, Stopwatch, wait_until

RESPONSE = AskScene.Response
ROOM = {"colour": "red", "shape": "box", "home": 0.12, "width": 320, "height": 240}
QUESTION, ANSWER = "What is on the left?", "a red box"

LIMIT_SEC = 2.0
OK, WARN, ERROR, STALE = (bytes([level]) for level in range(4))


class Robot:
    """A camera process, a scene_memory process and a client."""

    def __init__(self, process, client):
        self.process, self.client = process, client
        self._cameras = itertools.count(1)
        self.start_camera()

    def start_camera(self):
        # A name of its own: a killed camera's services are listed for 20 s more, and would get the requests.
        self._camera_name = f"room_camera_{next(self._cameras)}"
        self.camera = NodeProcess(self.client.namespace, ROOM_CAMERA, ROOM, {"__node": self._camera_name}, {})

    def set_fault(self, fault):
        assert self.client.set_parameters({"fault": fault}, self._camera_name)[0]

    def kept(self):
        """Return headers and images of all kept pairs by id."""
        got = self.client.call(GetFrames, "scene_memory/get_frames", GetFrames.Request())
        frames = zip(got.key_frames, got.first_images, got.second_images, strict=True)
        return {frame.id: (frame.header, bytes(first.data), bytes(second.data)) for frame, first, second in frames}

    def check(self, kept):
        """Check that the node runs, the frames kept before are unchanged and a question is answered."""
        assert self.process.alive
        now = self.kept()
        both = [key for key in now if key in kept and kept[key][2]]  # without pairs that had no second image
        assert both, "no pair is left of those kept before"
        assert all(now[key] == kept[key] for key in both)
        response = self.client.ask(QUESTION)
        assert response.success, response.error_msg
        assert response.answer == ANSWER
        ids = [frame.id for frame in response.frames_used]
        assert len(set(ids)) == len(ids)

    @contextmanager
    def reported(self, name, words, level=WARN):
        """Check that the diagnostics report the fault of this block in time, and clear it in time."""
        kept = self.kept()
        with Stopwatch() as watch:
            began_ns = self.client.now_ns()
            fault = Fault(self.client)
            yield fault
            status, reported_ns = self.client.wait_for_report(name, lambda status: words in status.message, began_ns)
            assert status.level == level
            delay_sec = (reported_ns - (fault.began_ns or began_ns)) * 1e-9
            ended_ns = fault.end()
            _, cleared_ns = self.client.wait_for_report(name, lambda status: status.level == OK, ended_ns)
            clearing_sec = (cleared_ns - ended_ns) * 1e-9
        assert delay_sec / watch.slowdown < LIMIT_SEC
        assert clearing_sec / watch.slowdown < LIMIT_SEC
        self.check(kept)


class Fault:
    """Begin and end of a fault."""

    def __init__(self, client):
        self._client = client
        self.began_ns = 0
        self.end_by = lambda: None

    def begins(self):
        """Record that the fault begins now."""
        self.began_ns = self._client.now_ns()

    def end(self):
        """End the fault; return the time."""
        self.end_by()
        return self._client.now_ns()


@pytest.fixture(scope="module")
def robot(start_for_module):
    process, client = start_for_module(
        command=FAULTY_SCENE_MEMORY, memory__sample_fps=10.0, memory__stream__size=20, ask__queue_size=8
    )
    robot = Robot(process, client)
    client.wait_until_ready()
    client.wait_for_stats(lambda stats: stats.total_frames_added >= 8)
    client.wait_for_status("camera camera", lambda status: status.level == OK)
    yield robot
    robot.camera.close()


def test_camera_dies_and_returns(robot):
    def restart_camera():
        robot.camera.close()
        before = robot.client.wait_for_stats().images_received
        robot.start_camera()
        robot.client.wait_for_stats(lambda stats: stats.images_received > before)

    with robot.reported("camera camera", "check the camera", STALE) as fault:
        robot.camera.process.send_signal(signal.SIGKILL)
        robot.camera.process.wait()
        fault.begins()
        fault.end_by = restart_camera


@pytest.mark.parametrize(
    ("fault", "words"),
    [("corrupt", "images dropped: "), ("no stamps", "no stamps"), ("back", "jumped back by")],
)
def test_faulty_camera_is_reported_until_it_recovers(robot, fault, words):
    with robot.reported("camera camera", words) as injected:
        robot.set_fault(fault)
        injected.end_by = lambda: robot.set_fault("")


@pytest.mark.parametrize(("fault", "words"), [("frozen", "do not advance"), ("slow", "due by arrival time")])
def test_stamps_that_are_frozen_or_slow_are_reported(robot, fault, words):
    """These faults are detected over some seconds, so they are reported later than the others."""
    before = robot.client.wait_for_stats()
    # when
    robot.set_fault(fault)
    status = robot.client.wait_for_status("camera camera", lambda status: words in status.message)
    # then
    assert status.level == WARN
    stats = robot.client.wait_for_stats(lambda stats: any(words in warning for warning in stats.warnings))
    counter = {"frozen": "images_restamped", "slow": "images_missed"}[fault]
    assert getattr(stats, counter) > getattr(before, counter)
    response = robot.client.ask(QUESTION)
    assert response.answer == ANSWER
    assert any(words in warning for warning in response.metrics.warnings)
    if fault == "frozen":  # images are still sampled
        sampled = stats.images_sampled
        robot.client.wait_for_stats(lambda stats: stats.images_sampled > sampled + 10)
    # and correct stamps clear the warning
    robot.set_fault("")
    robot.client.wait_for_status("camera camera", lambda status: status.level == OK)
    robot.client.reset()
    robot.client.wait_for_stats(lambda stats: stats.unique_frames >= 8)
    assert robot.process.alive


def test_stamps_far_in_the_future_are_reported_until_they_are_right(robot):
    with Stopwatch() as watch:
        began_ns = robot.client.now_ns()
        robot.set_fault("future")
        _, reported_ns = robot.client.wait_for_report(
            "camera camera", lambda status: "jumped ahead by" in status.message, began_ns
        )
    assert (reported_ns - began_ns) * 1e-9 / watch.slowdown < LIMIT_SEC
    assert robot.client.ask(QUESTION).answer == ANSWER
    robot.client.wait_for_status("camera camera", lambda status: "ahead of the node's clock" in status.message)
    robot.set_fault("")
    robot.client.wait_for_status("camera camera", lambda status: status.level == OK)
    assert robot.client.ask(QUESTION).answer == ANSWER
    robot.check(robot.kept())


def test_burst_of_a_thousand_images_loses_no_kept_frame(robot):
    # given no camera, whose images would overtake those that wait to be received
    robot.camera.close()
    kept, before = robot.kept(), robot.client.wait_for_stats()
    images = room_images(**ROOM)
    for number in range(1000):
        image = images[number % len(images)]
        image.header.stamp = robot.client.node.get_clock().now().to_msg()
        with suppress(rclpy_implementation.RCLError):  # the publisher's history is full: the image was not published
            robot.client.publish(image, depth=100)

    def received():
        reports = [robot.client.wait_for_stats() for _ in range(4)]
        counts = {report.images_received for report in reports}
        return reports[-1] if len(counts) == 1 and min(counts) > before.images_received else None

    # then only due images were sampled and nothing is reported
    after = wait_until(received, "images of the burst to be received")
    passed_sec = after.header.stamp.sec + 1 - before.header.stamp.sec
    assert after.images_sampled - before.images_sampled <= 10 * (passed_sec + 1)
    assert after.images_dropped == before.images_dropped
    robot.check(kept)
    robot.start_camera()
    robot.client.wait_for_status("camera camera", lambda status: status.level == OK)


@pytest.mark.parametrize(
    ("question", "code", "words"),
    [
        ("defect", RESPONSE.INTERNAL, "ZeroDivisionError"),
        ("panic", RESPONSE.INTERNAL, "SystemExit"),
        ("out of memory", RESPONSE.OUT_OF_MEMORY, "out of memory"),
    ],
    ids=["defect", "panic", "out of memory"],
)
def test_failing_question_is_reported(robot, question, code, words):
    with robot.reported("questions", words) as fault:
        for response in (robot.client.ask(question), robot.client.start_goal(question).result()):
            assert response.error_code == code
            assert words in response.error_msg
            assert len(response.error_msg) < 2000
        fault.begins()


def test_question_of_a_million_characters_is_rejected(robot):
    before = robot.client.wait_for_node_stats()
    question = "x" * 1_000_000
    for response in (robot.client.ask(question), robot.client.start_goal(question).result()):
        assert response.error_code == RESPONSE.BAD_REQUEST
        assert "1000000 characters" in response.error_msg
        assert len(response.error_msg) < 2000
    after = robot.client.wait_for_node_stats(lambda stats: stats.questions_rejected == before.questions_rejected + 2)
    assert after.questions_failed == before.questions_failed


def test_out_of_memory_once_is_answered_with_a_warning(robot):
    kept = robot.kept()
    response = robot.client.ask("out of memory once")
    assert response.answer == ANSWER
    assert any("memory" in warning for warning in response.metrics.warnings)
    robot.check(kept)


@contextmanager
def ten_clients(namespace):
    """Clients of the service by node name, all spun by one thread."""
    nodes = [rclpy.create_node(f"client_{n}", namespace=namespace, context=CONTEXT) for n in range(10)]
    # Replies go to all clients of a service: each receives a hundred.
    depth = QoSProfile(depth=200)
    clients = [node.create_client(AskScene, "ask_scene", qos_profile=depth) for node in nodes]
    spinning = Spinning(*nodes)
    try:
        # Each must have discovered the node, and the node each of them.
        for client in clients:
            assert client.wait_for_service(PATIENCE_SEC)
            wait_until(client.call_async(AskScene.Request(question="")).done, "a client's first answer")
        yield {node.get_name(): client for node, client in zip(nodes, clients, strict=True)}
    finally:
        spinning.close()
        for node in nodes:
            node.destroy_node()


def test_hundred_questions_of_ten_clients_share_the_queue(robot):
    with ten_clients(robot.client.namespace) as clients, robot.reported("questions", "BusyError") as fault:
        # given a busy worker
        goal = robot.client.start_goal("say")
        goal.wait_for_feedback(lambda got: got.answer_tokens > 0)
        # when
        fault.begins()
        sent = [
            (name, client.call_async(AskScene.Request(question=QUESTION, client_id=name, timeout_sec=PATIENCE_SEC)))
            for name, client in clients.items()
            for _ in range(10)
        ]
        wait_until(
            lambda: sum(future.done() for _, future in sent) == 92,
            lambda: f"all but eight to be refused; so far {sum(future.done() for _, future in sent)}",
        )
        assert {future.result().error_code for _, future in sent if future.done()} == {RESPONSE.BUSY}
        # then the waiting questions are of eight clients and are answered
        assert len({name for name, future in sent if not future.done()}) == 8
        # before the goal's own end becomes the last error
        robot.client.wait_for_report("questions", lambda status: "BusyError" in status.message, fault.began_ns)
        goal.cancel()
        wait_until(lambda: all(future.done() for _, future in sent), "all answers")
        answers = [future.result().answer for _, future in sent if future.result().success]
        assert answers == [ANSWER] * 8


def test_goal_of_a_killed_client_ends_at_its_deadline(robot):
    kept = robot.kept()
    command = [sys.executable, "-m", "delayed_vlm_ros.cli.main", "ask", "say", "--timeout", "4"]
    client = subprocess.Popen(
        [*command, "--namespace", robot.client.namespace], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    robot.client.wait_for_node_stats(lambda stats: stats.questions_running == 1)
    # when
    client.kill()
    client.communicate()
    # then its deadline ends the question
    robot.client.wait_for_status("questions", lambda status: "AskTimeoutError" in status.message)
    robot.client.wait_for_node_stats(lambda stats: stats.questions_running == 0)
    robot.client.wait_for_status("questions", lambda status: status.level == OK)
    robot.check(kept)


def test_parameter_storm_is_handled_during_a_question(robot):
    kept = robot.kept()
    storm = [
        {"ask.timeout_sec": 30.0},
        {"ask.timeout_sec": -1.0},
        {"memory.sample_fps": "often"},
        {"memory.star.size": 4},
        {"memory.sample_fps": 10.0, "ask.max_new_tokens": 64},
        {"no.such.parameter": 1},
        {"ask.timeout_sec": 60.0},
    ]
    answer, done = robot.client.start_ask(QUESTION), []
    for _ in range(60):  # the middleware queues this many requests of a client
        futures = [robot.client.start_setting(values) for values in storm]
        wait_until(lambda futures=futures: all(future.done() for future in futures), "all to be set or rejected")
        done += [future.result().result.successful for future in futures]
    assert done == [True, False, False, False, True, False, True] * 60
    wait_until(answer.done, "the answer")
    assert answer.result().answer == ANSWER
    robot.client.wait_for_status("lifecycle", lambda status: status.level == OK)
    robot.check(kept)


def test_second_node_with_the_same_name_is_reported(robot, start):
    with robot.reported("lifecycle", "another node") as fault:
        other, _ = start(namespace=robot.client.namespace, autostart="false")
        robot.client.wait_for_status("lifecycle", lambda status: "another node" in status.message)
        fault.begins()
        fault.end_by = other.end
