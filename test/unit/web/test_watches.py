"""Standing questions on the page: requests, texts, messages, and the backend in this process."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from waiting import wait_until

pytest.importorskip("nicegui", reason="NiceGUI is not installed: make setup")

from fake_metrics import metrics_of_scores

from delayed_vlm_ros.errors import BadRequestError
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.yes_no import ScoreResult, YesNo
from delayed_vlm_ros.memory import SmartFrameManager
from delayed_vlm_ros.watches import Level, Watch
from delayed_vlm_ros.watches.watch import MIN_PERIOD_SEC, check_watch
from delayed_vlm_ros.web.backend import CameraState, Diagnostic, KeptFrame, SceneState, WatchAlert, WatchedQuestion
from delayed_vlm_ros.web.backend import Level as Severity
from delayed_vlm_ros.web.backends.in_process_watches import InProcessWatches
from delayed_vlm_ros.web.health_panel import _without_watches
from delayed_vlm_ros.web.page import status_line
from delayed_vlm_ros.web.watches_panel import facts, reasons, requested_watch

CAMERAS = (CameraState("front", input_rate_hz=10.0), CameraState("rear", input_rate_hz=10.0))
STATE = SceneState(connected=True, cameras=CAMERAS)
DOOR = "Is the door open?"


def watched(watch, level=Level.NO, **fields):
    values = {"since_ns": 0, "p_yes": 0.1, "reason": "", "warning": "", "device_sec_per_hour": 12.3, **fields}
    return WatchedQuestion(watch, level, **values)


def test_request_of_the_form_becomes_a_watch():
    watch = requested_watch([f" {DOOR} ", "rear", "0", "10"], STATE, 100)
    assert watch == Watch(DOOR, DOOR, "rear", last_sec=0.0, period_sec=10.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (None, "incomplete"),
        ("text", "incomplete"),
        ([DOOR], "incomplete"),
        (["", "", "5", "1"], "empty"),
        ([None, "", "5", "1"], "empty"),
        ([DOOR * 100, "", "5", "1"], "maximum is 100"),
        (["\ud800 there?", "", "5", "1"], "half of a character"),
    ],
)
def test_invalid_request_is_refused(values, message):
    with pytest.raises(BadRequestError, match=message):
        requested_watch(values, STATE, 100)


def test_unknown_values_of_a_request_become_defaults():
    assert requested_watch([DOOR, "attic", "1e9", "0.0001"], STATE, 100) == Watch(DOOR, DOOR)


def test_same_question_about_the_same_window_is_refused_and_another_window_gets_its_own_name():
    first = requested_watch([DOOR, "", "5", "1"], STATE, 100)
    state = replace(STATE, watches=(watched(replace(first, camera="front")),))
    with pytest.raises(BadRequestError, match="asked already"):
        requested_watch([DOOR, "front", "5", "10"], state, 100)
    assert requested_watch([DOOR, "front", "30", "1"], state, 100).name == f"{DOOR} 2"
    assert requested_watch([DOOR, "rear", "5", "1"], state, 100).name == f"{DOOR} 2"


@pytest.mark.parametrize("question", ["x" * 500, "a\tb?", "あ" * 80, "a" * 62 + " b?"])
def test_name_of_any_question_is_valid(question):
    watch = requested_watch([question, "", "5", "1"], STATE, 1000)
    check_watch(watch)
    state = replace(STATE, watches=(watched(replace(watch, last_sec=30.0, camera="front")),))
    second = requested_watch([question, "", "5", "1"], state, 1000)
    check_watch(second)
    assert second.name != watch.name


def test_facts_have_no_probability_while_it_is_unknown():
    watch = Watch(DOOR, DOOR, "front", last_sec=0.0)
    assert facts(watched(watch, since_ns=2 * 10**9), ["front"]) == (
        "probability 0.10 · since 2.0 s · all frames, every 2 s · 12 s of device time an hour"
    )
    unknown = watched(watch, since_ns=2 * 10**9).unknown("no image")
    assert facts(unknown, ["front", "rear"]) == "front · all frames, every 2 s · 12 s of device time an hour"
    assert (unknown.level, unknown.reason) == (Level.UNKNOWN, "no image")


@pytest.mark.parametrize(
    ("level", "p_yes", "shown"),
    [
        (Level.NO, 0.7, ("not yes for long enough yet", "checked every 9 s")),
        (Level.NO, 0.59, ("checked every 9 s",)),
        (Level.YES, 0.7, ("checked every 9 s",)),
    ],
)
def test_no_with_a_high_probability_and_rare_checks_are_explained(level, p_yes, shown):
    assert reasons(watched(Watch(DOOR, DOOR), level, p_yes=p_yes, warning="checked every 9 s")) == shown


def test_overdue_watch_is_not_the_state_of_the_scene():
    diagnostics = (Diagnostic(f"watch {DOOR}", Severity.STALE, "not checked for 20 s"),)
    state = replace(STATE, diagnostics=diagnostics)
    assert status_line(state, CAMERAS[0]) == (Severity.OK, "Live")
    assert _without_watches(diagnostics) == ()


def test_alerts_of_a_restarted_node_have_other_keys():
    frame = KeptFrame(1, "front", 5, 6, 0.5, "", in_star=False, in_stream=True)
    first = WatchAlert(1, "door", DOOR, "front", True, 0.9, 10, (frame,))
    assert first.key != replace(first, stamp_ns=20).key


# In process -----------------------------------------------------------------------------------------------------------


class Camera:
    """A camera with a memory and one shade."""

    name = "video"
    silence = ""

    def __init__(self) -> None:
        self.memory = SmartFrameManager()
        self._stamp = 0.0

    @property
    def activity(self):
        return self.memory.activity

    def show(self, shade):
        for _ in range(2):
            self._stamp += 0.5
            self.memory.add(np.full((28, 28, 3), shade, np.uint8), self._stamp)


class Engine:
    """Yes for a bright image."""

    def __init__(self, memory) -> None:
        self._memory = memory

    def score(self, questions, *, window_sec=None, control=None):
        snapshot = self._memory.snapshot()
        is_yes = snapshot[-1].pair.last.image.mean() > 128
        score = YesNo(0.9, 1.0, 2.2, "yes") if is_yes else YesNo(0.1, 1.0, -2.2, "no")
        return ScoreResult(tuple(score for _ in questions), snapshot, metrics_of_scores())

    def keep_windows(self, lengths):
        pass


def to_frame(kept):
    first, last = (round(frame.stamp * 1e9) for frame in (kept.pair.first, kept.pair.last))
    return KeptFrame(kept.id, "video", first, last, kept.importance, kept.reason, kept.in_star, kept.in_stream)


@pytest.fixture
def in_process():
    camera = Camera()
    watches = InProcessWatches(camera, to_frame)
    watches.start()
    engine = Engine(camera.memory)

    def check(shade, level):
        """Show images and check until the watch has a level."""

        def has_level():
            camera.show(shade)
            watches.check(engine, AskControl())
            return [one.level for one in watches.questions("")] == [level]

        wait_until(has_level, level.name)

    return watches, camera, check


def test_watch_in_this_process_changes_to_yes_with_evidence(in_process):
    watches, _, check = in_process
    watches.add(Watch("bright", "Is it bright?", period_sec=MIN_PERIOD_SEC))
    assert watches.needs_model
    check(20, Level.NO)
    assert watches.alerts == ()
    # when
    check(240, Level.YES)
    # then
    (question,) = watches.questions("")
    (alert,) = watches.alerts
    assert (question.level, question.watch.camera) == (Level.YES, "video")
    assert (alert.is_rising, alert.stamp_ns) == (True, question.since_ns)
    assert set(watches.evidence) == {frame.id for frame in alert.evidence}
    # when
    check(20, Level.NO)
    # then
    assert [one.is_rising for one in watches.alerts] == [True, False]
    watches.remove("bright")
    assert watches.questions("") == ()


def test_watch_in_this_process_is_unknown_without_a_model_or_image(in_process):
    watches, camera, check = in_process
    watches.add(Watch("bright", "Is it bright?", period_sec=MIN_PERIOD_SEC))
    check(240, Level.YES)
    (question,) = watches.questions("the model is loading")
    assert (question.level, question.reason, question.since_ns) == (Level.UNKNOWN, "the model is loading", 0)
    # when
    camera.silence = "the video has ended"
    check(240, Level.UNKNOWN)
    # then
    (question,) = watches.questions("")
    assert question.reason == "the video has ended"


def test_removal_of_an_unknown_watch_is_an_error(in_process):
    with pytest.raises(BadRequestError, match="'bright'"):
        in_process[0].remove("bright")
