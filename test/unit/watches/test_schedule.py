"""Schedule of watches: gates, groups, turns, and a share of the device's time."""

from dataclasses import replace

import pytest

from delayed_vlm_ros.memory import Activity
from delayed_vlm_ros.watches import Gate, Watch
from delayed_vlm_ros.watches.schedule import Candidate, is_due, is_open, next_group

PLAIN = Watch("door", "Is the door open?", camera="front")
NOW = 1000.0
NEW_IMAGE = Activity(newest=100.0)


def candidate(
    *,
    activity=NEW_IMAGE,
    checked_at=NOW - 2.0,
    checked_stamp=98.0,
    is_waiting=False,
    turn=0.0,
    **settings,
):
    return Candidate(replace(PLAIN, **settings), activity, checked_at, checked_stamp, is_waiting, turn)


# Gates ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gate", Gate)
@pytest.mark.parametrize("is_waiting", [False, True])
def test_no_gate_opens_without_a_new_image(gate, is_waiting):
    empty = candidate(gate=gate, activity=Activity(), is_waiting=is_waiting, checked_stamp=None)
    same = candidate(
        gate=gate,
        activity=Activity(newest=98.0, view_changed=98.0, star_entered=98.0),
        is_waiting=is_waiting,
    )
    assert not is_open(empty)
    assert not is_open(same)


@pytest.mark.parametrize("gate", Gate)
def test_first_check_and_a_check_after_a_backward_jump_need_no_event(gate):
    assert is_open(candidate(gate=gate, checked_at=None, checked_stamp=None))
    assert is_open(candidate(gate=gate, checked_stamp=500.0))


@pytest.mark.parametrize("gate", Gate)
def test_watch_that_waits_needs_only_new_images(gate):
    assert is_open(candidate(gate=gate, is_waiting=True))
    assert is_open(candidate(gate=gate)) == (gate is Gate.EVERY)


@pytest.mark.parametrize(("gate", "event"), [(Gate.ON_CHANGE, "view_changed"), (Gate.ON_EVENT, "star_entered")])
@pytest.mark.parametrize(
    ("last_sec", "happened", "expected"),
    [
        (10.0, None, False),
        (10.0, 99.0, True),  # since the last check at 98 s
        (10.0, 98.0, True),  # seen by the last check, but it leaves the window later: 10 s, or up to 15 s
        (10.0, 83.1, True),
        (10.0, 83.0, False),
        (0.0, 99.0, True),  # all kept frames: nothing leaves
        (0.0, 98.0, False),
    ],
)
def test_gate_is_open_until_the_window_has_passed_the_event(gate, event, last_sec, happened, expected):
    other = {"view_changed": 99.9, "star_entered": 99.9} | {event: happened}
    assert is_open(candidate(gate=gate, last_sec=last_sec, activity=Activity(newest=100.0, **other))) == expected


# Periods and groups ---------------------------------------------------------------------------------------------------


def test_watch_is_due_when_its_period_has_passed():
    assert is_due(candidate(checked_at=NOW - 2.0), NOW)
    assert not is_due(candidate(checked_at=NOW - 1.99), NOW)
    assert is_due(candidate(checked_at=None), NOW)
    assert not is_due(candidate(checked_at=None, activity=Activity()), NOW)


def test_watches_about_one_window_of_one_camera_are_checked_together():
    group = next_group(
        [
            candidate(name="due"),
            candidate(name="almost due", checked_at=NOW - 1.5),
            candidate(name="early", checked_at=NOW - 1.49),
            candidate(name="other window", last_sec=20.0),
            candidate(name="other camera", camera="rear"),
            candidate(name="closed", gate=Gate.ON_CHANGE),
        ],
        NOW,
    )
    assert [watch.name for watch in group] == ["due", "almost due"]


def test_turns_decide_among_due_watches_and_lateness_among_equal_turns():
    slow = candidate(name="slow", period_sec=10.0, checked_at=NOW - 15.0, turn=30.0)
    fast = candidate(name="fast", last_sec=5.0, period_sec=1.0, checked_at=NOW - 2.0, turn=29.0)
    new = candidate(name="new", last_sec=3.0, period_sec=60.0, checked_at=None)
    assert [watch.name for watch in next_group([slow, fast], NOW, turn=20.0)] == ["fast"]
    assert [watch.name for watch in next_group([slow, replace(fast, turn=31.0)], NOW, turn=20.0)] == ["slow"]
    assert [watch.name for watch in next_group([replace(slow, turn=28.0), fast], NOW, turn=40.0)] == [
        "fast"
    ]  # later by periods
    assert [watch.name for watch in next_group([slow, fast, new], NOW, turn=20.0)] == ["new"]
    assert next_group([], NOW) == ()
    assert next_group([candidate(checked_at=NOW - 1.9)], NOW) == ()
