"""Images and asks through a configured node's parts, without a ROS graph."""

import array
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from builtin_interfaces.msg import Time
from delayed_vlm_ros.srv import AskScene
from rclpy.logging import get_logger
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image
from waiting import PATIENCE_SEC

from delayed_vlm_ros.errors import ConfigurationError, DeviceMemoryError, NoFramesError, UnknownCameraError
from delayed_vlm_ros.inference.metrics import AskMetrics
from delayed_vlm_ros.inference.request import AskResult, select_frames
from delayed_vlm_ros.memory import PairIds
from delayed_vlm_ros.ros.output.messages import fill_answer, memory_stats, scene_answer
from delayed_vlm_ros.ros.scene_memory import engines
from delayed_vlm_ros.ros.scene_memory.parameters import SceneMemoryParameters
from delayed_vlm_ros.ros.scene_memory.session import NodeContext, build_session

NOW_NS = 1_800_000_100_000_000_000
PARAMETERS = SceneMemoryParameters(model="demo", star_size=6, stream_size=6, sample_fps=2.0)


class CountingEngine:
    """Counts what is asked of it, and answers when it may."""

    def __init__(self, memory):
        self.memory = memory
        self.calls = 0
        self.ahead = []
        self.no_room_ahead = False
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.asked = threading.Event()

    def answer(self, request, control=None):
        self.calls += 1
        self.asked.set()
        snapshot = select_frames(self.memory.snapshot(), request)
        self.may_answer.wait(PATIENCE_SEC)
        metrics = AskMetrics(0.5, 0.2, 0.3, 0.25, 4, 0, 10, 20, 0, 5, (2, 4, 4), True, ("engine's note",))
        return AskResult(f"answer to {request.question}", metrics, snapshot)

    def precompute(self, control=None, *, prefill):
        self.ahead.append(prefill)
        if self.no_room_ahead:
            raise DeviceMemoryError("no room ahead")

    def cached_bytes(self):
        return SimpleNamespace(features=11, kv=22)

    def reset_cache(self):
        self.calls += 1

    def release(self):
        pass


def surroundings():
    return NodeContext(
        resolve_topic=lambda name: f"/{name}",
        now_ns=lambda: NOW_NS,
        simulated=False,
        pair_ids=PairIds(),
        device=threading.Lock(),
        logger=get_logger("test_session"),
    )


@pytest.fixture
def open_with(monkeypatch):
    """Gives sessions with their engines."""
    made, sessions = [], []

    def load(_checkpoint, _parameters, memories):
        by_camera = {name: CountingEngine(memory) for name, memory in memories.items()}
        made.extend(by_camera.values())
        return engines.Engines("cpu", by_camera)

    def open_one(**parameters):
        sessions.append(build_session(replace(PARAMETERS, **parameters), surroundings()))
        eventually(lambda: made)
        return sessions[-1], made[-1]

    monkeypatch.setattr(engines, "load_engines", load)
    yield open_one
    for engine in made:
        engine.may_answer.set()
    for session in sessions:
        assert session.close(PATIENCE_SEC)


@pytest.fixture
def opened(open_with):
    """A session and its engine."""
    session, engine = open_with()
    eventually(lambda: session.worker.status.model is not None)
    return session, engine


def eventually(condition):
    end = time.monotonic() + PATIENCE_SEC
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def serialised(stamp_ns, *, shade=100, **fields):
    message = Image(height=56, width=56, encoding="rgb8", step=168, data=array.array("B", [shade]) * (56 * 168))
    message.header.stamp = Time(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    message.header.frame_id = "lens"
    for name, value in fields.items():
        setattr(message, name, value)
    return serialize_message(message)


def show(session, count, *, start_ns=NOW_NS - 90 * 10**9, step_ns=500_000_000):
    camera = session.cameras["camera"]
    for number in range(count):
        camera.receive(serialised(start_ns + number * step_ns, shade=number * 40 % 256))
    return camera


def ask(session, message):
    return session.questions.submit(message, PARAMETERS).result()


def question(**fields):
    return AskScene.Request(question="What?", **fields)


def test_no_model_code_runs_until_somebody_asks(opened):
    session, engine = opened
    camera = show(session, 40)
    camera.report(receiving=True)
    session.memory_report(camera)
    session.model_report()
    assert camera.frame_manager.statistics().total_frames_added == 40
    assert engine.calls == 0
    ask(session, question())
    assert engine.calls == 1


def test_budget_that_holds_no_pair_is_refused_before_the_model_is_loaded(monkeypatch):
    # given
    monkeypatch.setattr(engines, "load_engines", lambda *_: pytest.fail("loaded"))
    parameters = replace(PARAMETERS, budget_mb=0.5)
    # then
    with pytest.raises(ConfigurationError, match=r"memory_budget_mb is 0\.5, but the images of 12 frames"):
        build_session(parameters, surroundings())


@pytest.mark.parametrize(("mode", "prefill"), [("vision", False), ("full", True)])
def test_encodes_ahead_once_it_is_quiet(open_with, mode, prefill):
    session, engine = open_with(precompute=mode, precompute_quiet_sec=0.0)
    eventually(lambda: len(engine.ahead) > 2)
    assert set(engine.ahead) == {prefill}
    assert session.model_report().warnings == session.checkpoint.warnings


def test_nothing_is_encoded_ahead_unless_it_is_wanted(opened):
    _, engine = opened
    time.sleep(0.3)
    assert engine.ahead == []


def test_budget_too_small_for_encoding_ahead_is_told(open_with):
    session, _ = open_with(precompute="full", budget_mb=0.7)
    assert session.model_report().warnings[-1].endswith("less is encoded ahead than precompute.mode full says")
    session, _ = open_with(precompute="full", budget_mb=100.0)
    assert session.model_report().warnings == session.checkpoint.warnings


def test_failure_ahead_is_reported_and_costs_no_ask(open_with):
    # given
    session, engine = open_with(precompute="full", precompute_quiet_sec=0.5)
    engine.no_room_ahead = True
    show(session, 4)
    # then
    eventually(lambda: engine.ahead)
    eventually(lambda: session.model_report().warnings[-1:] == ("nothing is encoded ahead any more: no room ahead",))
    assert ask(session, question()).text
    assert len(engine.ahead) == 1


def test_model_that_nobody_asks_is_unloaded_and_comes_back(open_with):
    # given
    session, engine = open_with(unload_after_idle_sec=0.2)
    show(session, 4)
    # when
    eventually(lambda: session.model_report().resting)
    # then
    assert session.model_report().state == "unloaded"
    assert session.memory_report(session.cameras["camera"]).statistics.unique_frames == 4
    assert ask(session, question()).parts[0].result.frames_used
    assert not session.model_report().resting
    assert engine.calls == 0  # it was another engine that has answered


def test_a_model_is_not_loaded_for_a_session_that_was_closed_while_it_waited(monkeypatch):
    # given a session that waits for the device
    loads = []
    monkeypatch.setattr(engines, "load_engines", lambda *_: loads.append(1))
    around = surroundings()
    around.device.acquire()
    session = build_session(PARAMETERS, around)
    assert not session.close(0.0)
    # when
    around.device.release()
    # then
    assert session.close(PATIENCE_SEC)
    assert not loads
    assert not around.device.locked()


def test_budget_is_reported(opened):
    session, _ = opened
    camera = show(session, 4)
    assert session.memory_report(camera).budget_bytes == 0
    assert replace(session, budget_bytes=7_000_000).memory_report(camera).budget_bytes == 7_000_000


def test_images_do_not_wait_for_a_running_ask(opened):
    session, engine = opened
    camera = show(session, 4)
    engine.may_answer.clear()
    asking = threading.Thread(target=ask, args=(session, question()))
    asking.start()
    assert engine.asked.wait(PATIENCE_SEC)
    # when
    show(session, 20, start_ns=NOW_NS - 88 * 10**9)
    # then they are in while the ask, which ends only when it is let go, still runs
    assert session.questions.report().running
    assert camera.report(receiving=True).images_sampled == 24
    engine.may_answer.set()
    asking.join()


def test_only_images_that_are_due_are_deserialised(opened, monkeypatch):
    session, _ = opened
    camera = session.cameras["camera"]
    deserialised = []
    original = camera._deserialise
    monkeypatch.setattr(camera, "_deserialise", lambda data: deserialised.append(data) or original(data))
    # when: two seconds at 30 Hz, but for the last images, which might pass for the next slot's
    for number in range(55):
        camera.receive(serialised(NOW_NS - 10**10 + number * 33_333_333))
    # then
    report = camera.report(receiving=True)
    assert report.images_received == 55
    assert report.images_sampled == len(deserialised) == 4


def test_stamps_come_back_to_the_nanosecond(opened):
    session, _ = opened
    start_ns = NOW_NS - 90 * 10**9 + 123_456_789
    show(session, 4, start_ns=start_ns, step_ns=500_000_001)
    response = AskScene.Response()
    fill_answer(response, ask(session, question()))
    stamps = [(frame.header.stamp, frame.end_stamp) for frame in response.frames_used]
    nanoseconds = [stamp.sec * 10**9 + stamp.nanosec for pair in stamps for stamp in pair]
    assert nanoseconds == [start_ns + number * 500_000_001 for number in range(4)]
    assert response.frames_used[0].header.frame_id == "lens"
    assert response.snapshot_stamp == response.frames_used[-1].end_stamp
    assert response.newest_frame_age_sec == pytest.approx(90 - 1.5, abs=0.2)
    assert response.metrics.encoding_latency == pytest.approx(0.2)
    assert "engine's note" in response.metrics.warnings
    published = scene_answer(question(), response)
    assert list(published.frame_ids) == [frame.id for frame in response.frames_used]
    assert published.header.stamp == response.snapshot_stamp


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (b"", "cut short"),
        (serialised(NOW_NS - 88 * 10**9)[:60], "cannot be read"),
        (serialised(NOW_NS - 88 * 10**9, step=3), "step is 3"),
        (serialised(NOW_NS - 88 * 10**9, encoding="32FC1"), "depth image"),
        (serialised(NOW_NS - 95 * 10**9), "out of sequence"),
        (serialised(NOW_NS), "out of sequence"),
    ],
    ids=["empty", "cut", "step", "depth", "older", "stray"],
)
def test_a_bad_message_is_counted_and_costs_no_frame(opened, bad, words):
    session, _ = opened
    camera = show(session, 4)
    before = [pair.id for pair in camera.frame_manager.snapshot()]
    camera.receive(bad)
    report = camera.report(receiving=True)
    assert (report.images_received, report.images_dropped) == (5, 1)
    assert words in report.last_drop_reason
    assert [pair.id for pair in camera.frame_manager.snapshot()] == before


def test_after_a_reset_earlier_stamps_are_welcome(opened):
    session, _ = opened
    camera = show(session, 4)
    session.reset()
    with pytest.raises(NoFramesError, match="nothing in its memory"):
        ask(session, question())
    show(session, 4, start_ns=5 * 10**9)
    assert camera.frame_manager.statistics().total_frames_added == 4
    assert camera.report(receiving=True).images_dropped == 0


def test_a_camera_without_stamps_gets_the_times_of_arrival(opened):
    session, _ = opened
    camera = session.cameras["camera"]
    camera.receive(serialised(0))
    assert camera.frame_manager.newest_stamp == NOW_NS / 1e9
    assert "without time stamps" in camera.faults[0]
    assert camera.faults[0] in camera.warnings


def test_asks_are_counted(opened):
    session, _ = opened
    camera = show(session, 4)
    ask(session, question())
    with pytest.raises(UnknownCameraError):
        ask(session, question(camera="rear"))
    report = session.questions.report()
    assert (report.served, report.failed, report.waiting, report.running) == (1, 1, 0, False)
    assert "rear" in report.last_error
    assert (report.last_total_latency, report.last_time_to_first_token) == (0.5, 0.25)
    stats = memory_stats(
        camera.report(receiving=True), session.memory_report(camera), session.model_report(), report, Time(sec=7)
    )
    assert (stats.asks_served, stats.asks_failed) == (1, 1)
    assert (stats.feature_bytes, stats.kv_bytes) == (11, 22)
    assert (stats.model, stats.model_state, stats.device) == ("demo", "ready", "cpu")
    assert stats.header.stamp.sec == 7
    assert stats.unique_frames == 4
