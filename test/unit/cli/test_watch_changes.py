"""Changes of a watch on the terminal: states and alerts in any order, and their text."""

from __future__ import annotations

import io
import math
from types import SimpleNamespace

import pytest
from command_line import run_here
from rich.console import Console

from delayed_vlm_ros.cli.watch_changes import WatchChanges, change_json, settings_text, show_change, show_watches
from delayed_vlm_ros.watches import Level
from delayed_vlm_ros.watches.runner import FIRST_ALERT

FALLING, RISING = 0, 1


def stamp(seconds):
    whole = int(seconds)
    return SimpleNamespace(sec=whole, nanosec=round((seconds - whole) * 1e9))


def state(level, *, since=0.0, p_yes=0.1, reason="", checks=1, name="door", **fields):
    settings = SimpleNamespace(name=name, question="Is it [open]?", camera="front", threshold=0.6)
    vars(settings).update(last_sec=10.0, period_sec=2.0, gate=0)
    values = {"warning": "", "checked_ago_sec": 0.5, "device_sec_per_hour": 12.0, **fields}
    return SimpleNamespace(
        settings=settings, level=level, since=stamp(since), p_yes=p_yes, reason=reason, checks=checks, **values
    )


def alert(edge, at, *, number=1, watch="door", first=None, pose=None, warnings=()):
    frames = [SimpleNamespace(id=41, header=SimpleNamespace(stamp=stamp(at - 0.5)), end_stamp=stamp(at))]
    return SimpleNamespace(
        id=number,
        watch=watch,
        edge=edge,
        p_yes=0.9 if edge == RISING else 0.1,
        header=SimpleNamespace(stamp=stamp(at)),
        first_stamp=stamp(at if first is None else first),
        evidence=frames,
        pose_valid=pose is not None,
        pose=pose,
        metrics=SimpleNamespace(warnings=list(warnings)),
    )


def shown(changes, now=0.0):
    return [(change.level, change.alert is not None) for change in changes.take(now)]


@pytest.fixture
def changes():
    """Changes of a watch that was no at 10 s."""
    made = WatchChanges("door")
    made.add_states([state(Level.NO, since=10.0)])
    assert shown(made) == [(Level.NO, False)]
    return made


def test_change_to_yes_waits_for_its_alert_and_is_shown_once(changes):
    changes.add_states([state(Level.YES, since=12.0, p_yes=0.9)])
    assert shown(changes, 1.0) == []
    changes.add_alert(alert(RISING, 12.0))
    assert shown(changes, 1.1) == [(Level.YES, True)]
    assert shown(changes, 9.0) == []


def test_change_to_yes_without_an_alert_is_shown_after_a_second(changes):
    changes.add_states([state(Level.YES, since=12.0, p_yes=0.9)])
    assert shown(changes, 1.0) == []
    assert shown(changes, 2.0) == [(Level.YES, False)]


def test_alert_before_its_state_is_shown_at_once(changes):
    changes.add_alert(alert(RISING, 12.0))
    assert shown(changes) == [(Level.YES, True)]
    assert shown(changes, 0.9) == []
    changes.add_states([state(Level.YES, since=12.0)])
    assert shown(changes, 5.0) == []


def test_falling_alert_is_a_no(changes):
    changes.add_alert(alert(RISING, 12.0))
    changes.add_alert(alert(FALLING, 14.0, number=2))
    assert shown(changes) == [(Level.YES, True), (Level.NO, True)]


def test_unknown_is_shown_at_once_with_each_new_reason(changes):
    changes.add_states([state(Level.UNKNOWN, reason="no new image on /image")])
    (change,) = changes.take(1.0)
    assert (change.level, change.reason) == (Level.UNKNOWN, "no new image on /image")
    changes.add_states([state(Level.UNKNOWN, reason="out of memory")])
    assert [one.reason for one in changes.take(1.1)] == ["out of memory"]


@pytest.mark.parametrize("order", [1, -1])
def test_alerts_of_an_earlier_watch_of_this_name_and_of_others_are_left_out(order):
    made = WatchChanges("door")
    messages = [lambda: made.add_alert(alert(RISING, 8.0)), lambda: made.add_states([state(Level.UNKNOWN, checks=0)])]
    for message in messages[::order]:
        message()
    made.add_alert(alert(RISING, 12.0, number=2, watch="window"))
    assert shown(made) == [(Level.UNKNOWN, False)]
    made.add_states([state(Level.NO, since=10.0)])
    assert shown(made, 5.0) == []
    assert shown(made, 6.0) == [(Level.NO, False)]


def test_repeated_alert_of_a_restarted_node_is_shown_once(changes):
    changes.add_alert(alert(RISING, 12.0))
    changes.add_alert(alert(RISING, 12.0))
    assert shown(changes) == [(Level.YES, True)]


def test_alert_after_a_time_jump_back_is_shown(changes):
    changes.add_alert(alert(RISING, 2.0))
    assert shown(changes) == [(Level.YES, True)]


def test_watch_that_ends_with_its_first_check_has_its_own_alert():
    made = WatchChanges("door")
    made.add_states([state(Level.UNKNOWN, checks=0)])
    made.add_alert(alert(RISING, 8.0, number=1))
    assert shown(made) == [(Level.UNKNOWN, False)]
    made.add_alert(alert(RISING, 12.0, number=2))
    made.add_states([state(Level.INACTIVE, reason=FIRST_ALERT)])
    assert made.take(5.0) == []
    rising, ended = made.take(6.0)
    assert (rising.is_rising, rising.stamp_ns) == (True, 12_000_000_000)
    assert ended.level == Level.INACTIVE
    assert made.has_ended


def test_silence_is_unknown_and_the_known_state_is_shown_after_it(changes):
    changes.interruption = "no report"
    assert shown(changes, 1.0) == [(Level.UNKNOWN, False)]
    assert shown(changes, 2.0) == []
    changes.interruption = ""
    assert shown(changes, 3.0) == []
    assert shown(changes, 4.0) == [(Level.NO, False)]


def text_of(show, *arguments):
    console = Console(file=io.StringIO(), width=200)
    show(console, *arguments)
    return console.file.getvalue()


def test_text_of_an_alert_has_stamps_pose_and_new_warnings():
    half = math.sqrt(0.5)
    pose = SimpleNamespace(
        header=SimpleNamespace(frame_id="map"),
        pose=SimpleNamespace(
            position=SimpleNamespace(x=1.0, y=2.5, z=0.25), orientation=SimpleNamespace(x=0.0, y=0.0, z=half, w=half)
        ),
    )
    made = WatchChanges("door")
    made.add_states([state(Level.NO, since=5.0)])
    made.take(0.0)
    made.add_alert(alert(RISING, 12.0, first=10.0, pose=pose, warnings=["known", "[new]"]))
    (change,) = made.take(0.0)
    text = text_of(show_change, change, {"known"})
    assert "12.0 s  YES       p(yes) 0.90, first seen 10.0 s" in text
    assert "key frame 41, stamp 12.000 s" in text
    assert "camera at x 1.00 m, y 2.50 m, z 0.25 m, heading 90° in map" in text
    assert "warning: [new]" in text
    assert "known" not in text
    assert change_json(change)["pose"]["position"] == [1.0, 2.5, 0.25]


def test_held_back_yes_says_so():
    made = WatchChanges("door")
    made.add_states([state(Level.NO, since=5.0, p_yes=0.95)])
    (change,) = made.take(0.0)
    assert "p(yes) 0.95, not yes for long enough yet" in text_of(show_change, change, set())


def test_list_has_level_reason_settings_and_cost():
    states = [
        state(Level.UNKNOWN, reason="the [model] is loading", checks=0, checked_ago_sec=-1.0, p_yes=math.nan),
        state(Level.YES, since=12.0, p_yes=0.9, name="Is it [open]?", warning="checked every 9 s", checks=3),
    ]
    text = text_of(show_watches, states)
    assert "UNKNOWN   door: Is it [open]?\n          the [model] is loading\n" in text
    assert "p(yes) nan" not in text
    assert (
        "YES       Is it [open]?\n          p(yes) 0.90, since 12.0 s\n          warning: checked every 9 s\n" in text
    )
    assert "3 checks, the last one 0.5 s ago, 12.0 s of device time in an hour" in text
    assert text_of(show_watches, []) == "no watches\n"


def test_settings_name_the_gate_and_all_frames():
    settings = SimpleNamespace(camera="front", last_sec=-1.0, period_sec=0.5, gate=1)
    assert settings_text(settings) == "camera front, all kept frames, every 0.5 s, only after a change of the view"


@pytest.mark.parametrize("arguments", [(), ("bright", "--list"), ("--list", "--remove", "door")])
def test_command_requires_one_task(arguments, tmp_path):
    done = run_here("watch", *arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "error: give either a question, or --list, or --remove NAME\n"


@pytest.mark.parametrize("option", ["--every=0", "--threshold=0", "--last=-1", "--gate=never", "--confirm=2"])
def test_value_that_would_mean_a_default_is_refused(option, tmp_path):
    done = run_here("watch", "bright", option, cwd=tmp_path)
    assert done.returncode == 2
    assert option.partition("=")[0] in done.stderr
