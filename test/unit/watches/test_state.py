"""States of a watch: hysteresis, holds, cool-downs and interruptions, for any sequence of checks."""

from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delayed_vlm_ros.watches import Edge, Level, Observation, Watch, WatchState, advance, interrupted
from delayed_vlm_ros.watches.state import is_waiting

PLAIN = Watch("door", "Is the door open?", yes_checks=1)


@dataclass(frozen=True)
class Step:
    """What happens to a watch at one time, and what comes of it."""

    stamp: float
    p_yes: float | None  # None: a failed check
    state: WatchState
    edge: Edge | None


def play(watch, checks, state=None):
    """Return the steps of a watch through checks, given as stamp and probability; None fails, a level interrupts."""
    state = WatchState() if state is None else state
    steps = []
    for stamp, p_yes in checks:
        if isinstance(p_yes, Level):
            state, edge = interrupted(state, "silent", level=p_yes), None
        else:
            state, edge = advance(watch, state, Observation(stamp, p_yes, "" if p_yes is not None else "failed"))
        steps.append(Step(stamp, None if isinstance(p_yes, Level) else p_yes, state, edge))
    return steps


def every_second(*values):
    return [(100.0 + number, value) for number, value in enumerate(values)]


def levels(steps):
    return [step.state.level for step in steps]


def edges(steps):
    return [step.edge for step in steps if step.edge]


outcomes = st.one_of(
    st.sampled_from((0.0, 0.1, 0.39, 0.4, 0.5, 0.59, 0.6, 0.9, 1.0)),
    st.none(),
    st.sampled_from((Level.UNKNOWN, Level.INACTIVE)),
)
steps_of_time = st.sampled_from((0.5, 1.0, 2.0, 5.0))


@st.composite
def histories(draw):
    """Checks at increasing stamps."""
    stamp, checks = 100.0, []
    for outcome in draw(st.lists(outcomes, max_size=40)):
        stamp += draw(steps_of_time)
        checks.append((stamp, outcome))
    return checks


@st.composite
def watches(draw):
    """Watches with all kinds of confirmation."""
    threshold = draw(st.sampled_from((0.4, 0.6, 0.9)))
    watch = replace(
        PLAIN,
        threshold=threshold,
        release=draw(st.sampled_from([value for value in (0.1, 0.4, 0.6, 0.9) if value <= threshold])),
        cooldown_sec=draw(st.sampled_from((0.0, 3.0, 20.0))),
    )
    of_checks = draw(st.integers(1, 4))
    return replace(
        watch,
        hold_sec=draw(st.sampled_from((0.0, 0.0, 1.0, 4.0))),
        of_checks=of_checks,
        yes_checks=draw(st.integers(1, of_checks)),
    )


# Any history ----------------------------------------------------------------------------------------------------------


@given(watches(), histories())
def test_failed_check_is_unknown_and_never_a_change(watch, checks):
    for step in play(watch, checks):
        if step.p_yes is None:
            assert step.state.level in (Level.UNKNOWN, Level.INACTIVE)
            assert step.state.reason
            assert step.edge is None
        else:
            assert step.state.level in (Level.NO, Level.YES)
            assert step.state.reason == ""


@given(watches(), histories())
def test_alerts_alternate_and_begin_with_a_rising_one(watch, checks):
    found = edges(play(watch, checks))
    assert found == [Edge.RISING, Edge.FALLING] * (len(found) // 2) + [Edge.RISING] * (len(found) % 2)


@given(watches(), histories())
def test_rising_alert_comes_at_yes_and_falling_one_at_no(watch, checks):
    for step in play(watch, checks):
        if step.edge is not None:
            assert step.state.level is (Level.YES if step.edge is Edge.RISING else Level.NO)


@given(watches(), histories())
def test_alerts_say_the_last_known_level_unless_a_cool_down_delays_it(watch, checks):
    alerted = False
    last_rising = None
    for step in play(watch, checks):
        if step.edge is not None:
            alerted = step.edge is Edge.RISING
            last_rising = step.stamp if alerted else last_rising
        if step.p_yes is None:
            continue
        cooling = last_rising is not None and step.stamp - last_rising < watch.cooldown_sec
        assert alerted == (step.state.level is Level.YES) or (cooling and not alerted)


@given(watches(), histories())
def test_changes_follow_threshold_release_and_confirmation(watch, checks):
    """Compare with the rules, computed from the whole history at each check."""
    was_yes = False
    counted = []  # stamp and whether it counts, of the known checks since the last interruption
    for step in play(watch, checks):
        if step.p_yes is None:
            counted = []
            continue
        counted.append((step.stamp, step.p_yes >= watch.threshold))
        if was_yes:
            is_yes = step.p_yes >= watch.release
        elif not counted[-1][1]:
            is_yes = False
        else:
            noes = [number for number, (_, yes) in enumerate(counted) if not yes]
            first = counted[noes[-1] + 1 if noes else 0][0]
            is_held = step.stamp - first >= watch.hold_sec
            is_yes = is_held and sum(yes for _, yes in counted[-watch.of_checks :]) >= watch.yes_checks
        assert step.state.level is (Level.YES if is_yes else Level.NO), step
        was_yes = is_yes


@given(watches(), histories())
def test_rising_alerts_keep_the_cool_down(watch, checks):
    rising = [step.stamp for step in play(watch, checks) if step.edge is Edge.RISING]
    assert all(later - earlier >= watch.cooldown_sec for earlier, later in pairwise(rising))


@given(watches(), histories(), st.data())
def test_interruption_repeats_and_loses_no_alert(watch, checks, data):
    """After any history, an interruption and a check with the same outcome cause no alert."""
    known = [check for check in checks if isinstance(check[1], float)]
    before = play(replace(watch, cooldown_sec=0.0), known)
    if not known:
        return
    state = before[-1].state
    broken = interrupted(state, "silent", level=data.draw(st.sampled_from((Level.UNKNOWN, Level.INACTIVE))))
    assert broken.was_yes == state.was_yes
    assert broken.is_alerted == state.is_alerted
    stamp = known[-1][0] + 100.0
    confirmed, opposite = (1.0, 0.0) if state.was_yes else (0.0, 1.0)
    unconfirmed = replace(watch, cooldown_sec=0.0, hold_sec=0.0, yes_checks=1)
    same, edge = advance(unconfirmed, broken, Observation(stamp, confirmed))
    assert edge is None
    assert same.level is state.level
    _, edge = advance(unconfirmed, broken, Observation(stamp, opposite))
    assert edge is (Edge.FALLING if state.was_yes else Edge.RISING)


@given(watches(), histories())
def test_since_is_the_first_check_at_a_level(watch, checks):
    since = level = None
    for step in play(watch, checks):
        if step.p_yes is None:
            assert step.state.since is None
            since = level = None
            continue
        if step.state.level is not level:
            since, level = step.stamp, step.state.level
        assert step.state.since == since


# Single rules ---------------------------------------------------------------------------------------------------------


def test_probability_between_release_and_threshold_keeps_the_level():
    found = play(PLAIN, every_second(0.5, 0.6, 0.5, 0.4, 0.39, 0.5, 0.59))
    assert levels(found) == [Level.NO, Level.YES, Level.YES, Level.YES, Level.NO, Level.NO, Level.NO]
    assert edges(found) == [Edge.RISING, Edge.FALLING]


def test_hold_counts_from_the_first_of_successive_checks():
    watch = replace(PLAIN, hold_sec=2.0)
    found = play(watch, every_second(0.9, 0.9, 0.1, 0.9, 0.9, 0.9, 0.9))
    assert levels(found) == [Level.NO] * 5 + [Level.YES] * 2
    assert found[5].edge is Edge.RISING
    assert found[5].state.yes_since == 103.0


@pytest.mark.parametrize("interruption", [None, Level.UNKNOWN, Level.INACTIVE])
def test_interruption_in_the_middle_of_a_hold_starts_it_again(interruption):
    watch = replace(PLAIN, hold_sec=2.0)
    found = play(watch, every_second(0.9, 0.9, interruption, 0.9, 0.9, 0.9))
    assert levels(found)[3:] == [Level.NO, Level.NO, Level.YES]


def test_restart_in_the_middle_of_a_hold_starts_it_again():
    """A restored state goes through an interruption: the node is inactive until it is activated."""
    watch = replace(PLAIN, hold_sec=2.0)
    restored = interrupted(
        play(watch, every_second(0.9, 0.9))[-1].state, "the node is not active", level=Level.INACTIVE
    )
    found = play(watch, [(5000.0, 0.9), (5001.0, 0.9), (5002.0, 0.9)], restored)
    assert levels(found) == [Level.NO, Level.NO, Level.YES]


def test_two_of_three_checks_confirm_and_the_last_one_must_be_yes():
    watch = replace(PLAIN, yes_checks=2, of_checks=3)
    assert levels(play(watch, every_second(0.9, 0.1, 0.9))) == [Level.NO, Level.NO, Level.YES]
    assert levels(play(watch, every_second(0.9, 0.1, 0.1, 0.9))) == [Level.NO] * 4
    assert levels(play(watch, every_second(0.9, 0.9, 0.1))) == [Level.NO, Level.YES, Level.NO]


def test_single_wrong_check_is_no_change_by_default():
    watch = Watch("door", "Is the door open?")
    assert levels(play(watch, every_second(0.1, 0.9, 0.1, 0.9, 0.9))) == [Level.NO] * 4 + [Level.YES]


def test_hold_and_counts_must_both_be_met():
    watch = replace(PLAIN, hold_sec=2.0, yes_checks=4, of_checks=5)
    assert levels(play(watch, every_second(0.9, 0.1, 0.9, 0.9, 0.9))) == [Level.NO] * 4 + [Level.YES]
    assert levels(play(watch, every_second(0.9, 0.9, 0.1, 0.9, 0.9))) == [Level.NO] * 5
    assert levels(play(watch, every_second(0.9, 0.9, 0.9, 0.9))) == [Level.NO] * 3 + [Level.YES]


@pytest.mark.parametrize("interruption", [None, Level.UNKNOWN, Level.INACTIVE])
def test_checks_before_an_interruption_confirm_nothing(interruption):
    watch = replace(PLAIN, yes_checks=2, of_checks=2)
    found = play(watch, every_second(0.9, interruption, 0.9, 0.9))
    assert levels(found)[2:] == [Level.NO, Level.YES]


def test_rising_alert_within_the_cool_down_comes_after_it():
    watch = replace(PLAIN, cooldown_sec=4.0)
    found = play(watch, every_second(0.9, 0.1, 0.9, 0.9, 0.9, 0.9))
    assert levels(found) == [Level.YES, Level.NO, *[Level.YES] * 4]
    assert [step.edge for step in found] == [Edge.RISING, Edge.FALLING, None, None, Edge.RISING, None]


def test_change_within_the_cool_down_and_back_causes_no_alert():
    watch = replace(PLAIN, cooldown_sec=10.0)
    found = play(watch, every_second(0.9, 0.1, 0.9, 0.1, 0.1))
    assert edges(found) == [Edge.RISING, Edge.FALLING]


def test_time_that_jumps_back_starts_hold_and_cool_down_again():
    watch = replace(PLAIN, hold_sec=2.0, cooldown_sec=5.0)
    found = play(watch, [(100.0, 0.9), (101.0, 0.9), (50.0, 0.9), (51.0, 0.9), (52.0, 0.9)])
    assert levels(found) == [Level.NO] * 4 + [Level.YES]
    again = play(watch, [(10.0, 0.1), (11.0, 0.9), (13.0, 0.9)], found[-1].state)
    assert edges(again) == [Edge.FALLING, Edge.RISING]  # the alert at 52 s is in the future now


# What a still scene must be checked for -------------------------------------------------------------------------------


def test_watch_waits_only_for_a_hold_or_the_end_of_a_cool_down():
    hold = replace(PLAIN, hold_sec=3.0)
    (first,) = play(hold, [(100.0, 0.9)])
    assert is_waiting(hold, first.state, 100.5)
    assert not is_waiting(hold, play(hold, every_second(0.9, 0.9, 0.9, 0.9))[-1].state, 104.0)
    assert not is_waiting(hold, play(hold, [(100.0, 0.1)])[-1].state, 100.5)

    cooling = replace(PLAIN, cooldown_sec=10.0)
    state = play(cooling, every_second(0.9, 0.1, 0.9))[-1].state
    assert not is_waiting(cooling, state, 109.9)
    assert is_waiting(cooling, state, 110.0)
