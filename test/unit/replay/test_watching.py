"""Watches in a replay: simulated time, alerts with evidence, costs, and what the result says."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

pytest.importorskip("sacrebleu", reason="the extra 'evaluation' is not installed")

from fake_metrics import metrics_of_scores

from delayed_vlm_ros.cli.replay_watches import watch_table
from delayed_vlm_ros.errors import DeviceMemoryError
from delayed_vlm_ros.inference.yes_no import ScoreResult, YesNo
from delayed_vlm_ros.ingest.geometry import FrameGeometry
from delayed_vlm_ros.memory import MemoryConfig
from delayed_vlm_ros.replay.report.page import write_report
from delayed_vlm_ros.replay.runner import CONTINUE, RESTART, Replay, ReplaySettings
from delayed_vlm_ros.replay.watch_file import TimedWatch
from delayed_vlm_ros.replay.watching import WatchReplay
from delayed_vlm_ros.watches import Gate, Watch

SECOND = 10**9
START = 1_000 * SECOND
DOOR = Watch("door", "Is the door open?", period_sec=1.0, yes_checks=1, of_checks=1)


class Engine:
    """Answers yes to a question while the newest stamp is within given times; counts its calls."""

    def __init__(self, memory, yes):
        self.memory, self.yes = memory, yes
        self.calls = []  # newest stamp and questions
        self.error_at = {}

    def score(self, questions, *, window_sec=None, control=None):
        newest = self.memory.snapshot()[-1].stamps[1]
        self.calls.append((newest, tuple(questions)))
        error = self.error_at.pop(newest, None)
        if error is not None:
            raise error
        return ScoreResult(
            tuple(self._score(one, newest) for one in questions), self.memory.snapshot(), metrics_of_scores()
        )

    def _score(self, question, stamp):
        p_yes = 0.9 if any(begin <= stamp < end for begin, end in self.yes.get(question, ())) else 0.1
        return YesNo(p_yes, mass=0.9, margin=0.0, first_token="yes")

    def keep_windows(self, lengths):
        pass


class Recording(SimpleNamespace):
    """A recording of images at given stamps, in nanoseconds."""

    name, kind, topic, warnings = "drive", "bag", "/image", ()

    def images(self):
        for number, stamp in enumerate(self.stamps):
            shade = np.random.default_rng(number // 200).integers(0, 256, (24, 32, 3), np.uint8)
            arrival = self.arrivals[number] if self.arrivals else stamp
            yield SimpleNamespace(stamp_ns=stamp, arrival_ns=arrival, decode=lambda shade=shade: shade)


def at_10_hz(seconds, first=0.0):
    return [START + round((first + number / 10) * SECOND) for number in range(round(seconds * 10))]


def run_replay(watches, *, stamps, yes=None, arrivals=None, prepare=lambda engine: None, **settings):
    """Return the result of a replay with watches, and its engine. Times of ``yes`` are stamps."""
    memory = MemoryConfig(eviction_chunk=0).build()
    engine = Engine(memory, yes or {})
    prepare(engine)
    answerers = SimpleNamespace(cached_bytes=0, add=lambda frame: None, reset=lambda: None)
    run = Replay(
        Recording(stamps=stamps, arrivals=arrivals),
        (),
        memory,
        FrameGeometry(factor=4, min_pixels=16, max_pixels=64 * 48),
        answerers,
        ReplaySettings(**settings),
        WatchReplay(watches, engine, memory),
    )
    result = run.run()
    json.dumps(result)
    return result, engine


def levels(watch):
    return [(state["at"], state["level"]) for state in watch["states"]]


def test_alerts_come_in_the_recordings_time_with_evidence_and_verdict():
    # given the door is open from 5 s to 12 s, and from 20 s on
    yes = {DOOR.question: [(1005.0, 1012.0), (1020.0, 2000.0)]}
    timed = TimedWatch(replace(DOOR, hold_sec=2.0), ((5.0, 12.0), (15.0, 16.0)))
    # when
    result, engine = run_replay([timed], stamps=at_10_hz(30), yes=yes)
    # then
    (watch,) = result["watches"]
    assert [(one["at"], one["first_at"], one["edge"], one["verdict"]) for one in watch["alerts"]] == [
        (7.0, 5.0, "rising", "right"),
        (12.0, 12.0, "falling", ""),
        (22.0, 20.0, "rising", "false"),
    ]
    assert levels(watch) == [(0.0, "unknown"), (0.0, "no"), (7.0, "yes"), (12.0, "no"), (22.0, "yes")]
    scores = watch["scores"]
    assert (scores["precision"], scores["recall"], scores["delay_sec"]) == (0.5, 0.5, 2.0)
    assert scores["false_alarms_per_hour"] == pytest.approx(3600 / result["recording"]["duration_sec"])
    assert watch["checks"] == len(engine.calls) == 30
    assert watch["device_sec"] > 0
    for alert in watch["alerts"]:
        assert {*alert["evidence"]} <= result["pairs"].keys()
        assert result["pairs"][alert["evidence"][0]]["thumbnail"]
    assert result["complete"]


def test_alert_that_a_hold_delays_past_the_end_of_a_short_event_is_right():
    timed = TimedWatch(replace(DOOR, hold_sec=3.0), ((5.0, 6.0),))
    result, _ = run_replay([timed], stamps=at_10_hz(12), yes={DOOR.question: [(1005.0, 1009.0)]})
    rising, _ = result["watches"][0]["alerts"]
    assert (rising["at"], rising["verdict"]) == (8.0, "right")


def test_same_recording_has_the_same_states_alerts_and_checks():
    yes = {DOOR.question: [(1003.3, 1009.1)]}
    watches = [TimedWatch(DOOR), TimedWatch(Watch("slow", "Is it dark?", period_sec=7.0, gate=Gate.ON_CHANGE))]

    def outcome():
        result, engine = run_replay(watches, stamps=at_10_hz(60), yes=yes)
        timeless = [
            {key: value for key, value in one.items() if not key.startswith("device")} for one in result["watches"]
        ]
        return timeless, engine.calls

    assert outcome() == outcome()


@pytest.mark.parametrize("gap", ["slow images", "gap"])
def test_watches_are_unknown_while_there_are_no_images(gap):
    stamps = at_10_hz(5) + at_10_hz(5, first=65.0) if gap == "gap" else [START + 3 * SECOND * n for n in range(5)]
    result, _ = run_replay([TimedWatch(DOOR, ((0.0, 300.0),))], stamps=stamps, yes={DOOR.question: [(0.0, 1e9)]})
    (watch,) = result["watches"]
    known = [level for _, level in levels(watch)]
    if gap == "gap":
        assert known == ["unknown", "yes", "unknown", "yes"]
        assert watch["states"][2] == {"at": pytest.approx(6.0), "level": "unknown", "reason": "no new image"}
        assert watch["unknown_sec"] == pytest.approx(59.0, abs=0.2)
    else:
        assert known == ["unknown", "yes", "unknown", "yes"]  # the first gap may be an outage, later ones are usual
    assert [one["edge"] for one in watch["alerts"]] == ["rising"]  # an interruption repeats no alert


def test_gate_checks_only_after_changes():
    watches = [
        TimedWatch(DOOR),
        TimedWatch(Watch("gated", "Is it on?", period_sec=1.0, gate=Gate.ON_CHANGE, last_sec=2.0)),
    ]
    result, _ = run_replay(watches, stamps=at_10_hz(60))
    every, gated = result["watches"]
    assert every["checks"] == 60
    assert gated["checks"] == 3 * 4  # the view changes at 0, 20 and 40 s, and leaves the window of 2 s within 3 s


def test_watches_of_one_window_share_a_call_and_its_time():
    watches = [TimedWatch(Watch(name, f"Is it {name}?", period_sec=1.0)) for name in "abc"]
    result, engine = run_replay(watches, stamps=at_10_hz(10))
    assert {len(questions) for _, questions in engine.calls} == {3}
    times = [one["device_sec"] for one in result["watches"]]
    assert max(times) == pytest.approx(min(times))
    assert result["watch_summary"]["device_sec"] == pytest.approx(sum(times))


def test_failed_check_is_unknown_reported_and_incomplete():
    def fail(engine):
        engine.error_at = {1003.0: DeviceMemoryError("out of memory: use fewer frames"), 1006.0: ValueError("shapes")}

    result, _ = run_replay([TimedWatch(DOOR)], stamps=at_10_hz(10), prepare=fail)
    (watch,) = result["watches"]
    assert levels(watch) == [
        (0.0, "unknown"),
        (0.0, "no"),
        (3.0, "unknown"),
        (4.0, "no"),
        (6.0, "unknown"),
        (7.0, "no"),
    ]
    assert not result["complete"]
    assert "1 checks of watches failed: DeviceMemoryError: out of memory: use fewer frames" in result["warnings"]
    assert "1 checks of watches failed: ValueError: shapes" in result["warnings"]


@pytest.mark.parametrize("on_time_jump", [CONTINUE, RESTART])
def test_recording_whose_time_jumps_back_keeps_watching(on_time_jump):
    stamps = at_10_hz(10) * 2
    arrivals = at_10_hz(20)
    yes = {DOOR.question: [(1000.0, 2000.0)]}
    timed = TimedWatch(replace(DOOR, hold_sec=15.0))
    result, _ = run_replay([timed], stamps=stamps, arrivals=arrivals, yes=yes, on_time_jump=on_time_jump)
    (watch,) = result["watches"]
    reasons = [state["reason"] for state in watch["states"]]
    # An emptied memory starts the hold again, so that 15 s are not reached.
    assert ("the memory was emptied" in reasons) == (on_time_jump == RESTART)
    assert len(watch["alerts"]) == (0 if on_time_jump == RESTART else 1)


def test_expected_time_after_the_end_is_not_scored_and_reported():
    result, _ = run_replay([TimedWatch(DOOR, ((2.0, 4.0), (100.0, 110.0)))], stamps=at_10_hz(10))
    assert result["watches"][0]["scores"]["expected"] == 1
    assert any("1 expected times begin after the end" in text for text in result["warnings"])


def test_watch_that_is_no_question_is_reported():
    def unclear(engine):
        engine._score = lambda question, stamp: YesNo(0.9, 0.1, 1.0, "The")

    result, _ = run_replay([TimedWatch(DOOR)], stamps=at_10_hz(10), prepare=unclear)
    assert any("watch 'door' was unknown at the end" in text and "'The'" in text for text in result["warnings"])
    assert result["complete"]


# Output ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def watched():
    yes = {DOOR.question: [(1005.0, 1012.0), (1020.0, 1023.0)]}
    watches = [
        TimedWatch(DOOR, ((5.0, 12.0),)),
        TimedWatch(Watch("<b>evil</b>", "Is <script> there?")),
    ]
    return run_replay(watches, stamps=at_10_hz(30), yes=yes)[0] | {"error": ""}


def test_table_shows_each_watch_and_fits_80_characters(watched):
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(watch_table(watched))
    header, door, evil, both = console.export_text().splitlines()
    assert header.split() == [
        *("watch", "alerts", "precision", "recall", "delay", "false/h", "unknown", "checks", "device", "s/h"),
    ]
    assert door.split()[:4] == ["door", "2", "50%", "100%"]
    assert door.split()[7] == "30" or "30" in door.split()
    assert evil.split()[0] == "<b>evil</b>"
    assert both.split()[:2] == ["all", "2"]
    assert max(map(len, (header, door, evil, both))) <= 80


def test_report_shows_strip_alerts_and_scores_of_each_watch(watched, tmp_path):
    page = write_report([watched], tmp_path).read_text(encoding="utf-8")
    assert 'aria-label="door, rising alerts: 0:05, 0:20"' in page
    assert page.count('class="alert rising exact"') == 1
    assert page.count('class="alert rising mismatch"') == 1
    assert page.count('class="alert falling unscored"') == 2
    assert 'class="level yes" style="left: 16.722%; width: 23.411%" title="0:05 to 0:12, yes"' in page
    assert page.count('title="0:05 to 0:12, expected"') == 1
    assert 'class="level unknown" style' not in page  # unknown only before the first check, for no time
    assert "<script>" not in page
    assert "&lt;b&gt;evil&lt;/b&gt;" in page
    assert "The recording has no questions" not in page
    assert "2 watches" in page


def test_report_of_a_result_without_watches_has_no_section(watched, tmp_path):
    page = write_report([watched | {"watches": [], "watch_summary": None}], tmp_path).read_text(encoding="utf-8")
    assert "Watches" not in page
