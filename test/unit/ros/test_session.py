"""Images and questions through a session, without a ROS graph."""

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

from delayed_vlm_ros.errors import (
    ConfigurationError,
    DeviceMemoryError,
    ModelNotFoundError,
    ModelNotReadyError,
    NoFramesError,
    UnknownCameraError,
    UnsupportedModelError,
)
from delayed_vlm_ros.inference.local.models.new_process import LoadResult
from delayed_vlm_ros.inference.metrics import AskMetrics
from delayed_vlm_ros.inference.request import AskResult, select_frames
from delayed_vlm_ros.memory import PairIds
from delayed_vlm_ros.ros.output.messages import fill_answer, memory_stats, scene_answer
from delayed_vlm_ros.ros.scene_memory import engines, local_model
from delayed_vlm_ros.ros.scene_memory.context import NodeContext
from delayed_vlm_ros.ros.scene_memory.parameters import SceneMemoryParameters
from delayed_vlm_ros.ros.scene_memory.session import build_session
from delayed_vlm_ros.ros.scene_memory.watches import AlertIds

NOW_NS = 1_800_000_100_000_000_000
PARAMETERS = SceneMemoryParameters(model="demo", star_size=6, stream_size=6, sample_fps=2.0)


class CountingEngine:
    """Counts questions and answers them while ``may_answer`` is set."""

    def __init__(self, memory):
        self.memory = memory
        self.calls = 0
        self.precomputed = []
        self.out_of_memory = False
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.asked = threading.Event()

    def answer(self, request, control=None, *, frames=None):
        self.calls += 1
        self.asked.set()
        snapshot = select_frames(self.memory.snapshot() if frames is None else frames, request)
        self.may_answer.wait(PATIENCE_SEC)
        metrics = AskMetrics(0.5, 0.2, 0.3, 0.25, 4, 0, 10, 20, 0, 5, (2, 4, 4), True, ("engine's note",))
        return AskResult(f"answer to {request.question}", metrics, snapshot)

    def precompute(self, control=None, *, prefill):
        self.precomputed.append(prefill)
        if self.out_of_memory:
            raise DeviceMemoryError("out of memory, planted")

    def cached_bytes(self):
        return SimpleNamespace(features=11, kv=22)

    def reset_cache(self):
        self.calls += 1

    def close(self):
        pass


def make_context():
    return NodeContext(
        resolve_topic=lambda name: f"/{name}",
        now_ns=lambda: NOW_NS,
        simulated=False,
        pair_ids=PairIds(),
        device_lock=threading.Lock(),
        logger=get_logger("test_session"),
        end_process=lambda _: None,
        stale_after_sec=lambda: 1.0,
        publish_alert=lambda _: True,
        alert_ids=AlertIds(),
    )


@pytest.fixture
def start_with(monkeypatch):
    """Return a function that starts a session and returns it with its engine; the fixture closes all of them."""
    made, sessions = [], []

    def load(_checkpoint, _parameters, memories):
        by_camera = {name: CountingEngine(memory) for name, memory in memories.items()}
        made.extend(by_camera.values())
        return engines.Engines("cpu", by_camera)

    def start(**parameters):
        sessions.append(build_session(replace(PARAMETERS, **parameters), make_context()))
        sessions[-1].start()
        eventually(lambda: made)
        return sessions[-1], made[-1]

    monkeypatch.setattr(engines, "load_engines", load)
    yield start
    for engine in made:
        engine.may_answer.set()
    for session in sessions:
        assert session.close(PATIENCE_SEC)


@pytest.fixture
def started(start_with):
    """Return a started session and its engine."""
    session, engine = start_with()
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
    return session.ask_handler.submit(message, PARAMETERS).result()


def question(**fields):
    return AskScene.Request(question="What?", **fields)


def test_model_code_runs_only_for_a_question(started):
    session, engine = started
    camera = show(session, 40)
    camera.report(receiving=True)
    session.memory_report(camera)
    session.model_report()
    assert camera.frame_manager.statistics().total_frames_added == 40
    assert engine.calls == 0
    ask(session, question())
    assert engine.calls == 1


def test_budget_below_one_pair_is_refused_before_the_model_is_loaded(monkeypatch):
    # given
    monkeypatch.setattr(engines, "load_engines", lambda *_: pytest.fail("loaded"))
    parameters = replace(PARAMETERS, budget_mb=0.5)
    # then
    with pytest.raises(ConfigurationError, match=r"memory\.budget_mb"):
        build_session(parameters, make_context())


@pytest.mark.parametrize(("mode", "prefill"), [("vision", False), ("full", True)])
def test_precompute_runs_when_idle(start_with, mode, prefill):
    session, engine = start_with(precompute=mode, precompute_quiet_sec=0.0)
    eventually(lambda: len(engine.precomputed) > 2)
    assert set(engine.precomputed) == {prefill}
    assert session.model_report().warnings == session.model.checkpoint.warnings


def test_precompute_has_a_share_of_the_device(start_with):
    session, _ = start_with(precompute="full", precompute_max_duty=0.25)
    assert [task.max_duty for task in session.model.idle_tasks] == [0.25]


def test_precompute_is_off_by_default(started):
    _, engine = started
    time.sleep(0.3)
    assert engine.precomputed == []


def test_budget_too_small_for_precompute_is_a_warning(start_with):
    session, _ = start_with(precompute="full", budget_mb=0.7)
    assert "memory.budget_mb" in session.model_report().warnings[-1]
    session, _ = start_with(precompute="full", budget_mb=100.0)
    assert session.model_report().warnings == session.model.checkpoint.warnings


def test_failed_precompute_is_a_warning_and_questions_are_answered(start_with):
    # given
    session, engine = start_with(precompute="full", precompute_quiet_sec=0.5)
    engine.out_of_memory = True
    show(session, 4)
    # then
    eventually(lambda: engine.precomputed)
    eventually(lambda: "out of memory, planted" in session.model_report().warnings[-1])
    assert ask(session, question()).text
    assert len(engine.precomputed) == 1


def test_idle_model_is_unloaded_and_loaded_again_for_a_question(start_with):
    # given
    session, engine = start_with(unload_after_idle_sec=0.2)
    show(session, 4)
    # when
    eventually(lambda: session.model_report().idle_unloaded)
    # then
    assert session.model_report().state == "unloaded"
    assert session.memory_report(session.cameras["camera"]).statistics.unique_frames == 4
    assert ask(session, question()).parts[0].result.frames_used
    assert not session.model_report().idle_unloaded
    assert engine.calls == 0  # a new engine answered


def test_model_is_not_loaded_for_a_session_closed_while_it_waits_for_the_device(monkeypatch):
    # given a session that waits for the device lock
    loads = []
    monkeypatch.setattr(engines, "load_engines", lambda *_: loads.append(1))
    context = make_context()
    context.device_lock.acquire()
    session = build_session(PARAMETERS, context)
    session.start()
    assert not session.close(0.0)
    # when
    context.device_lock.release()
    # then
    assert session.close(PATIENCE_SEC)
    assert not loads
    assert not context.device_lock.locked()


# --- a model server -------------------------------------------------------------------------------------------------

AWAY = "openai:http://127.0.0.1:9/v1#model"  # nobody listens there


def test_session_starts_while_the_model_server_is_away_and_names_it(start_with, monkeypatch):
    monkeypatch.setattr(engines, "load_engines", lambda *_: pytest.fail("loaded"))
    session = build_session(replace(PARAMETERS, model=AWAY, precompute="full"), make_context())
    session.start()
    show(session, 4)
    with pytest.raises(ModelNotReadyError, match=r"127\.0\.0\.1:9"):
        ask(session, question())
    report = session.model_report()
    assert (report.name, report.state) == (AWAY, "ready")
    assert "127.0.0.1:9" in report.error
    assert "precompute.mode" in report.warnings[-1]
    assert "127.0.0.1:9" in session.model_fault
    assert session.memory_report(session.cameras["camera"]).statistics.unique_frames == 4
    assert session.close(PATIENCE_SEC)


def test_fallback_answers_with_a_warning_and_frees_the_device_at_the_end(start_with):
    context = make_context()
    session = build_session(replace(PARAMETERS, model=AWAY, remote_fallback="demo"), context)
    session.start()
    show(session, 4)
    assert not context.device_lock.locked()
    # when
    answer = ask(session, question())
    # then
    assert answer.parts[0].result.answer.startswith("answer to")
    assert "demo" in answer.parts[0].result.metrics.warnings[0]
    assert "127.0.0.1:9" in answer.parts[0].result.metrics.warnings[0]
    assert context.device_lock.locked()
    assert session.close(PATIENCE_SEC)
    assert not context.device_lock.locked()


@pytest.mark.parametrize("fallback", ["openai:http://server/v1", "unknown/model"])
def test_fallback_that_cannot_be_used_is_refused_at_configure(fallback):
    with pytest.raises((ConfigurationError, ModelNotFoundError)):
        build_session(replace(PARAMETERS, model=AWAY, remote_fallback=fallback), make_context())


# --- a load that fails ----------------------------------------------------------------------------------------------


def library_error():
    error = UnsupportedModelError("cannot load the model: damaged")
    error.__cause__ = ValueError("damaged")
    return error


def tls_error():
    return ImportError("libgomp.so.1: cannot allocate memory in static TLS block")


def shortage():
    return MemoryError("no memory, planted")


@pytest.fixture
def load_with(monkeypatch):
    """Return a function that starts a session whose loads and new processes end as given."""
    made = []

    def start(loads, results=()):
        loads, results, ends = iter(loads), iter(results), []

        def load(_checkpoint, _parameters, memories):
            if error := next(loads):
                raise error
            return engines.Engines("cpu", {name: CountingEngine(memory) for name, memory in memories.items()})

        monkeypatch.setattr(engines, "load_engines", load)
        monkeypatch.setattr(local_model, "load_in_new_process", lambda *_, **__: next(results))
        made.append(build_session(PARAMETERS, replace(make_context(), end_process=ends.append)))
        made[-1].start()
        return made[-1], ends

    yield start
    for session in made:
        assert session.close(PATIENCE_SEC)


def settled(session):
    eventually(lambda: session.model_report().state != "loading")
    return session.model_report()


def test_model_whose_files_were_incomplete_is_loaded_once_more(load_with):
    session, ends = load_with([library_error(), None], [LoadResult.LOADS])
    report = settled(session)
    assert (report.state, report.error, ends) == ("ready", "", [])


@pytest.mark.parametrize("error", [library_error, tls_error])
def test_process_without_a_shortage_does_not_end(load_with, error):
    session, ends = load_with([error(), error()], [LoadResult.LOADS])
    report = settled(session)
    assert (report.state, ends) == ("failed", [])
    assert str(error()) in report.error


def test_process_ends_when_only_a_new_one_loads_the_model_after_a_shortage(load_with):
    session, ends = load_with([shortage(), library_error(), library_error()], [LoadResult.LOADS])
    assert settled(session).state == "unloaded"
    show(session, 4)
    with pytest.raises(ModelNotReadyError):
        ask(session, question())
    eventually(lambda: ends)
    assert "after a shortage" in ends[0]


def test_process_that_loads_the_model_after_a_shortage_does_not_end(load_with):
    session, ends = load_with([shortage(), library_error(), None], [LoadResult.LOADS])
    assert settled(session).state == "unloaded"
    show(session, 4)
    assert ask(session, question()).text
    assert ends == []


def test_load_that_fails_in_a_new_process_too_keeps_its_error(load_with):
    session, ends = load_with([library_error()], [LoadResult.FAILS])
    report = settled(session)
    assert (report.state, report.error, ends) == ("failed", "cannot load the model: damaged", [])


@pytest.mark.parametrize(
    ("first", "result", "state"),
    [
        ([], LoadResult.SHORTAGE, "unloaded"),
        ([], LoadResult.NOT_STARTED, "failed"),
        ([shortage()], LoadResult.NOT_STARTED, "unloaded"),
        ([shortage()], LoadResult.FAILS, "unloaded"),
    ],
)
def test_new_process_that_is_short_too_decides_nothing(load_with, first, result, state):
    session, ends = load_with([*first, library_error()], [result])
    settled(session)
    if first:
        show(session, 4)
        with pytest.raises(ModelNotReadyError):
            ask(session, question())
    assert (settled(session).state, ends) == (state, [])


def test_reason_is_reported_while_the_new_process_loads(load_with):
    finish = threading.Event()

    def results():
        finish.wait(PATIENCE_SEC)
        yield LoadResult.FAILS

    session, _ = load_with([library_error()], results())
    eventually(lambda: session.model_report().error)
    assert session.model_report().state == "loading"
    with pytest.raises(ModelNotReadyError, match="damaged"):
        session.worker.run(lambda *_: None, 0.05)
    finish.set()
    assert settled(session).state == "failed"


@pytest.mark.parametrize(("budget_mb", "budget_bytes"), [(0.0, 0), (7.0, 7_000_000)])
def test_memory_report_has_the_budget(start_with, budget_mb, budget_bytes):
    session, _ = start_with(budget_mb=budget_mb)
    assert session.memory_report(show(session, 4)).budget_bytes == budget_bytes


def test_images_do_not_wait_for_a_running_question(started):
    session, engine = started
    camera = show(session, 4)
    engine.may_answer.clear()
    asking = threading.Thread(target=ask, args=(session, question()))
    asking.start()
    assert engine.asked.wait(PATIENCE_SEC)
    # when
    show(session, 20, start_ns=NOW_NS - 88 * 10**9)
    # then they are in the memory while the question, which is blocked, still runs
    assert session.ask_handler.report().running
    assert camera.report(receiving=True).images_sampled == 24
    engine.may_answer.set()
    asking.join()


def test_only_due_images_are_deserialized(started, monkeypatch):
    session, _ = started
    camera = session.cameras["camera"]
    deserialized = []
    original = camera._deserialize
    monkeypatch.setattr(camera, "_deserialize", lambda data: deserialized.append(data) or original(data))
    # when two seconds at 30 Hz arrive, without the last images, which may be due in the next slot
    for number in range(55):
        camera.receive(serialised(NOW_NS - 10**10 + number * 33_333_333))
    # then
    report = camera.report(receiving=True)
    assert report.images_received == 55
    assert report.images_sampled == len(deserialized) == 4


def test_answer_has_the_stamps_of_its_frames_to_the_nanosecond(started):
    session, _ = started
    start_ns = NOW_NS - 90 * 10**9 + 123_456_789
    show(session, 4, start_ns=start_ns, step_ns=500_000_001)
    response = AskScene.Response()
    answer = ask(session, question())
    fill_answer(response, answer, include_frames=True)
    stamps = [(frame.header.stamp, frame.end_stamp) for frame in response.frames_used]
    nanoseconds = [stamp.sec * 10**9 + stamp.nanosec for pair in stamps for stamp in pair]
    assert nanoseconds == [start_ns + number * 500_000_001 for number in range(4)]
    assert response.frames_used[0].header.frame_id == "lens"
    assert response.snapshot_stamp == response.frames_used[-1].end_stamp
    assert response.newest_frame_age_sec == pytest.approx(90 - 1.5, abs=0.2)
    assert response.metrics.encoding_latency == pytest.approx(0.2)
    assert "engine's note" in response.metrics.warnings
    published = scene_answer(question(), response, answer)
    assert list(published.frame_ids) == [frame.id for frame in response.frames_used]
    assert published.header.stamp == response.snapshot_stamp


BAD_MESSAGES = {
    "empty": (b"", "0 bytes"),
    "cut short": (serialised(NOW_NS - 88 * 10**9)[:60], "60 bytes"),
    "wrong step": (serialised(NOW_NS - 88 * 10**9, step=3), "step is 3"),
    "depth image": (serialised(NOW_NS - 88 * 10**9, encoding="32FC1"), "32FC1"),
    "older stamp": (serialised(NOW_NS - 95 * 10**9), "/image"),
    "outlier stamp": (serialised(NOW_NS), "/image"),
}


@pytest.mark.parametrize("kind", BAD_MESSAGES)
def test_bad_message_is_counted_and_keeps_all_frames(started, kind):
    bad, named = BAD_MESSAGES[kind]
    session, _ = started
    camera = show(session, 4)
    before = [pair.id for pair in camera.frame_manager.snapshot()]
    camera.receive(bad)
    report = camera.report(receiving=True)
    assert (report.images_received, report.images_dropped) == (5, 1)
    assert named in report.last_drop_reason
    assert [pair.id for pair in camera.frame_manager.snapshot()] == before


def test_earlier_stamps_are_accepted_after_a_reset(started):
    session, _ = started
    camera = show(session, 4)
    session.reset()
    with pytest.raises(NoFramesError):
        ask(session, question())
    show(session, 4, start_ns=5 * 10**9)
    assert camera.frame_manager.statistics().total_frames_added == 4
    assert camera.report(receiving=True).images_dropped == 0


def test_images_without_stamps_get_their_arrival_times(started):
    session, _ = started
    camera = session.cameras["camera"]
    camera.receive(serialised(0))
    assert camera.frame_manager.newest_stamp == NOW_NS / 1e9
    assert f"camera camera: {camera.input_warnings['stamps_missing']}" in camera.warnings


def test_questions_are_counted(started):
    session, _ = started
    camera = show(session, 4)
    ask(session, question())
    with pytest.raises(UnknownCameraError):
        ask(session, question(camera="rear"))
    report = session.ask_handler.report()
    assert (report.answered, report.rejected, report.waiting, report.running) == (1, 1, 0, False)
    assert (report.last_total_latency, report.last_time_to_first_token) == (0.5, 0.25)
    stats = memory_stats(camera.report(receiving=True), session.memory_report(camera), Time(sec=7))
    assert (stats.feature_bytes, stats.kv_bytes) == (11, 22)
    model = session.model_report()
    assert (model.name, model.state, model.device) == ("demo", "ready", "cpu")
    assert stats.header.stamp.sec == 7
    assert stats.unique_frames == 4
