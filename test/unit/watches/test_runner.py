"""The runner of watches, with an engine, cameras and a clock under the test's control."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from fake_metrics import metrics_of_scores

from delayed_vlm_ros.errors import (
    AskCancelledError,
    BadRequestError,
    DeviceMemoryError,
    NonFiniteError,
    UnknownCameraError,
)
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.yes_no import UNKNOWN, ScoreResult, YesNo
from delayed_vlm_ros.memory import Activity
from delayed_vlm_ros.watches import Edge, Gate, Level, Watch, WatchRunner

DOOR = Watch("door", "Is the door open?", yes_checks=1)


class Camera:
    """A camera whose frames the test adds."""

    def __init__(self, name):
        self.name = name
        self.activity = Activity()
        self.silence = ""
        self.frames = []
        self.shown = 0

    def show(self, stamp, *, changed=True, event=False):
        before = self.activity
        self.activity = Activity(
            first=stamp if before.first is None else before.first,
            newest=stamp,
            view_changed=stamp if changed or before.view_changed is None else before.view_changed,
            star_entered=stamp if event else before.star_entered,
        )
        self.shown += 1
        self.frames = [SimpleNamespace(id=self.shown, stamps=(stamp, stamp))]

    def empty(self):
        self.activity, self.frames = Activity(), []


class Engine:
    """Answers from ``p_yes`` by question, and takes time for it."""

    def __init__(self, camera, world):
        self.camera, self.world = camera, world
        self.asked = []  # questions of each call
        self.windows = []  # lengths of each call
        self.kept = []  # arguments of keep_windows
        self.p_yes = {}
        self.cost_sec = 0.0
        self.during = lambda: None  # what happens while it works
        self.error = None
        self.outcome = None
        self.warnings = ()

    def score(self, questions, *, window_sec=None, control=None):
        self.asked.append(tuple(questions))
        self.windows.append(window_sec)
        frames = tuple(self.camera.frames)
        self.world.now += self.cost_sec
        self.during()
        control.check()
        if self.error is not None:
            raise self.error
        scores = tuple(self.outcome or _score(self.p_yes.get(question, 0.0)) for question in questions)
        return ScoreResult(scores, frames, metrics_of_scores(*self.warnings))

    def keep_windows(self, lengths):
        self.kept.append(set(lengths))


def _score(p_yes):
    return YesNo(p_yes, mass=0.99, margin=0.0, first_token="yes" if p_yes > 0.5 else "no")


class World:
    """A runner with two cameras."""

    def __init__(self, *, max_watches=32, max_duty=1.0, is_active=True):
        self.now = 500.0
        self.cameras = {name: Camera(name) for name in ("front", "rear")}
        self.engines = {name: Engine(camera, self) for name, camera in self.cameras.items()}
        self.front = self.cameras["front"]
        self.engine = self.engines["front"]
        self.alerts = []
        self.control = AskControl()
        self.runner = WatchRunner(
            self.cameras,
            max_watches=max_watches,
            max_duty=max_duty,
            on_alert=self.alerts.append,
            steady=lambda: self.now,
        )
        if is_active:
            self.runner.activate()

    def check(self):
        return self.runner.check(self.engines, self.control)

    def step(self, stamp=None, p_yes=None, seconds=2.0, **shown):
        """Show an image after some time, and check."""
        self.now += seconds
        self.front.show(self.now - 400.0 if stamp is None else stamp, **shown)
        if p_yes is not None:
            self.engine.p_yes[DOOR.question] = p_yes
        return self.check()

    def status(self, name="door"):
        return self.runner.status(name)

    def level(self, name="door"):
        return self.status(name).state.level


@pytest.fixture
def world():
    return World()


# Adding and removing --------------------------------------------------------------------------------------------------


def test_same_watch_again_changes_nothing_and_other_settings_are_refused(world):
    world.runner.add(DOOR)
    world.step(p_yes=0.9)
    again = world.runner.add(replace(DOOR, camera="front"))  # the camera that an empty name means
    assert again.state.level is Level.YES
    assert again.checks == 1
    with pytest.raises(BadRequestError, match="'door' exists with other settings"):
        world.runner.add(replace(DOOR, question="Is the door closed?"))
    with pytest.raises(BadRequestError, match="'door' exists"):
        world.runner.add(replace(DOOR, camera="rear"))
    assert len(world.runner.statuses()) == 1


def test_one_watch_more_than_the_maximum_is_refused_until_one_is_removed():
    world = World(max_watches=2)
    for name in ("a", "b"):
        world.runner.add(replace(DOOR, name=name))
    with pytest.raises(BadRequestError, match="already 2 watches"):
        world.runner.add(DOOR)
    world.runner.add(replace(DOOR, name="a"))  # it is there
    world.runner.remove("a")
    world.runner.add(DOOR)
    assert [status.watch.name for status in world.runner.statuses()] == ["b", "door"]


def test_unknown_camera_and_unknown_name_are_refused_with_the_known_ones(world):
    with pytest.raises(UnknownCameraError, match="no camera 'left': the cameras are front, rear"):
        world.runner.add(replace(DOOR, camera="left"))
    world.runner.add(DOOR)
    with pytest.raises(BadRequestError, match="no watch 'window': the watches are: door"):
        world.runner.remove("window")


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": " "},
        {"name": "x" * 65},
        {"name": "a\nb"},
        {"question": " "},
        {"period_sec": 0.05},
        {"period_sec": float("nan")},
        {"last_sec": -1.0},
        {"last_sec": float("inf")},
        {"hold_sec": 1e6},
        {"cooldown_sec": float("nan")},
        {"lifetime_sec": float("inf")},
        {"threshold": 1.0},
        {"release": 0.0},
        {"release": 0.7},
        {"threshold": float("nan")},
        {"yes_checks": 0},
        {"of_checks": 0},
        {"yes_checks": 4, "of_checks": 3},
        {"yes_checks": 1, "of_checks": 101},
    ],
)
def test_invalid_setting_is_refused_and_nothing_is_added(world, wrong):
    with pytest.raises(BadRequestError):
        world.runner.add(replace(DOOR, **wrong))
    assert world.runner.statuses() == ()


def test_watch_removed_during_a_check_causes_no_alert(world):
    world.runner.add(DOOR)
    world.engine.during = lambda: world.runner.remove("door")
    assert world.step(p_yes=0.9)
    assert world.alerts == []
    assert world.runner.statuses() == ()


def test_watch_replaced_during_a_check_does_not_get_its_outcome(world):
    world.runner.add(DOOR)

    def replace_it():
        world.runner.remove("door")
        world.runner.add(replace(DOOR, question="Is the window open?"))

    world.engine.during = replace_it
    world.step(p_yes=0.9)
    assert world.alerts == []
    assert world.status().checks == 0


# Alerts ---------------------------------------------------------------------------------------------------------------


def test_alerts_name_the_first_and_the_last_evidence(world):
    world.runner.add(replace(DOOR, hold_sec=4.0))
    world.engine.warnings = ("a limitation",)
    for stamp, p_yes in ((100.0, 0.1), (102.0, 0.9), (104.0, 0.8), (106.0, 0.7), (108.0, 0.1)):
        world.step(stamp, p_yes)
    rising, falling = world.alerts
    assert (rising.edge, rising.first_stamp, rising.stamp, rising.p_yes) == (Edge.RISING, 102.0, 106.0, 0.7)
    assert [pair.stamps[1] for pair in rising.evidence] == [102.0, 106.0]
    assert rising.metrics.warnings == ("a limitation",)
    assert (falling.edge, falling.first_stamp, falling.stamp, falling.p_yes) == (Edge.FALLING, 108.0, 108.0, 0.1)
    assert [pair.stamps[1] for pair in falling.evidence] == [108.0]


def test_watch_with_once_ends_with_its_first_rising_alert(world):
    world.runner.add(replace(DOOR, once=True))
    world.step(p_yes=0.1)
    world.step(p_yes=0.9)
    assert [alert.edge for alert in world.alerts] == [Edge.RISING]
    assert world.status().has_ended
    assert not world.runner.needs_model
    assert not world.step(p_yes=0.1)
    assert (world.status().state.reason, len(world.engine.asked)) == ("ended with its first alert", 2)


@pytest.mark.parametrize("is_active", [True, False])
def test_watch_ends_after_its_lifetime_even_where_nothing_is_checked(is_active):
    """The model may be loading, or the node inactive: a goal that waits must still end."""
    world = World(is_active=is_active)
    world.runner.add(replace(DOOR, lifetime_sec=10.0))
    world.now += 9.9
    assert not world.status().has_ended
    world.now += 0.2
    assert world.status().has_ended
    assert (world.level(), world.status().state.reason) == (Level.INACTIVE, "ended after its lifetime")
    world.runner.activate()
    assert not world.step(p_yes=0.9)


# Failures -------------------------------------------------------------------------------------------------------------


def test_cancelled_check_is_due_again_and_its_time_counts():
    world = World(max_duty=0.5)
    world.runner.add(DOOR)
    world.engine.cost_sec = 1.0
    world.engine.during = world.control.cancel
    with pytest.raises(AskCancelledError):
        world.step(p_yes=0.9)
    assert world.status().checks == 0
    world.control, world.engine.during = AskControl(), lambda: None
    world.now += 0.9
    assert not world.check()  # the device rests for as long as the cancelled check took
    world.now += 0.2
    assert world.check()
    assert world.level() is Level.YES


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (NonFiniteError("the model computed NaN: use another dtype"), "the model computed NaN: use another dtype"),
        (ValueError("shapes differ"), "internal error, ValueError: shapes differ"),
    ],
)
def test_failed_check_is_unknown_and_recovers(world, error, reason, caplog):
    world.runner.add(DOOR)
    world.step(p_yes=0.9)
    world.engine.error = error
    assert world.step()
    assert (world.level(), world.status().state.reason) == (Level.UNKNOWN, reason)
    assert ("Traceback" in caplog.text) == isinstance(error, ValueError)
    world.engine.error = None
    world.step(p_yes=0.1)
    assert world.level() is Level.NO
    assert [alert.edge for alert in world.alerts] == [Edge.RISING, Edge.FALLING]


def test_shortage_is_unknown_and_raised_for_the_worker(world):
    world.runner.add(DOOR)
    world.engine.error = DeviceMemoryError("out of memory: use fewer frames")
    with pytest.raises(DeviceMemoryError):
        world.step(p_yes=0.9)
    assert (world.level(), world.status().state.reason) == (Level.UNKNOWN, "out of memory: use fewer frames")


@pytest.mark.parametrize("gate", Gate)
def test_failed_check_of_a_still_scene_is_repeated(world, gate):
    """The gate must not stay closed: the watch would be unknown until something moves."""
    world.runner.add(replace(DOOR, gate=gate, last_sec=0.0))
    world.engine.error = DeviceMemoryError("out of memory")
    with pytest.raises(DeviceMemoryError):
        world.step(p_yes=0.1)
    world.engine.error = None
    assert world.step(changed=False)
    assert world.level() is Level.NO
    assert world.step(changed=False) == (gate is Gate.EVERY)


def test_question_that_is_not_answered_with_yes_or_no_is_unknown(world):
    world.runner.add(DOOR)
    world.engine.outcome = YesNo(p_yes=0.99, mass=0.2, margin=5.0, first_token="A")
    world.step()
    assert world.level() is Level.UNKNOWN
    assert "the answer starts with 'A'" in world.status().state.reason
    assert world.alerts == []


def test_outcome_where_the_model_was_not_asked_is_unknown_with_the_warning(world):
    world.runner.add(DOOR)
    world.engine.outcome, world.engine.warnings = UNKNOWN, ("the demo model knows no such images",)
    world.step()
    assert (world.level(), world.status().state.reason) == (Level.UNKNOWN, "the demo model knows no such images")


def test_probability_that_is_no_number_is_unknown(world):
    world.runner.add(DOOR)
    nan = float("nan")
    world.engine.outcome = YesNo(nan, nan, nan, "yes")
    world.step()
    assert world.level() is Level.UNKNOWN


# Cameras and time -----------------------------------------------------------------------------------------------------


def test_silent_camera_is_unknown_costs_nothing_and_hides_no_change(world):
    world.runner.add(DOOR)
    world.step(p_yes=0.9)
    world.front.silence = "no new image on /image"
    assert not world.step(p_yes=0.1)
    assert (world.level(), world.status().state.reason) == (Level.UNKNOWN, "no new image on /image")
    world.now += 1000.0
    assert not world.status().is_overdue
    world.front.silence = ""
    world.step(p_yes=0.9)
    assert [alert.edge for alert in world.alerts] == [Edge.RISING]
    world.step(p_yes=0.1)
    assert [alert.edge for alert in world.alerts] == [Edge.RISING, Edge.FALLING]


def test_silence_is_reported_while_nothing_checks(world):
    world.runner.add(DOOR)
    world.front.silence = "no image yet on /image"
    assert world.status().state.reason == "no image yet on /image"


@pytest.mark.parametrize(
    "stamps", [(20.0, 22.0, 24.0), (5000.0, 5002.0, 5004.0), (103.0, 105.0, 107.0), (95.0, 97.0, 99.0)]
)
def test_emptied_memory_starts_a_hold_again(world, stamps):
    """The time may have jumped in either direction, or not at all."""
    world.runner.add(replace(DOOR, hold_sec=4.0))
    world.step(99.0, 0.9)
    world.step(101.0, 0.9)
    world.front.empty()
    assert world.status().state.level is Level.UNKNOWN
    assert world.status().state.reason == "the memory was emptied"
    for stamp in stamps:
        assert world.alerts == []
        world.step(stamp, 0.9)
    assert [alert.first_stamp for alert in world.alerts] == [stamps[0]]


def test_memory_emptied_between_two_polls_is_noticed(world):
    world.runner.add(replace(DOOR, hold_sec=4.0))
    world.step(99.0, 0.9)
    world.front.empty()
    world.step(5000.0, 0.9)
    assert world.alerts == []
    assert world.level() is Level.NO


def test_memory_emptied_by_a_small_backward_jump_is_noticed(world):
    world.runner.add(replace(DOOR, hold_sec=20.0))
    for stamp in (90.0, 99.0):
        world.step(stamp, 0.9)
    world.front.empty()
    for stamp in (97.0, 111.0):
        world.step(stamp, 0.9)
    assert world.alerts == []  # yes for 14 s since then, not for 21 s
    world.step(117.0, 0.9)
    assert [alert.first_stamp for alert in world.alerts] == [97.0]


def test_memory_emptied_while_the_group_is_chosen_starts_no_check(world):
    world.runner.add(DOOR)
    world.front.show(100.0)
    activity = world.front.activity
    reads = iter((activity,) * 2)  # until the group is chosen

    class Emptied(Camera):
        @property
        def activity(self):
            return next(reads, Activity())

        @activity.setter
        def activity(self, _value):
            pass

    emptied = Emptied("front")
    world.cameras["front"] = emptied
    assert not world.check()
    assert world.engine.asked == []


def test_interruption_during_a_check_drops_its_outcome(world):
    world.runner.add(DOOR)
    world.engine.during = lambda: world.runner.interrupt("the memory was reset")
    world.step(p_yes=0.9)
    assert (world.level(), world.status().state.reason) == (Level.UNKNOWN, "the memory was reset")
    assert world.alerts == []
    world.engine.during = lambda: None
    assert world.step(p_yes=0.9, seconds=0.0)
    assert world.level() is Level.YES


def test_inactive_watches_are_kept_but_not_checked(world):
    world.runner.add(DOOR)
    world.step(p_yes=0.9)
    world.runner.deactivate()
    world.runner.add(replace(DOOR, name="other"))
    assert not world.runner.needs_model
    assert not world.step(p_yes=0.1)
    assert world.level() is world.level("other") is Level.INACTIVE
    world.runner.activate()
    assert world.level() is Level.UNKNOWN
    world.step(p_yes=0.9)
    assert world.level() is Level.YES
    assert [alert.edge for alert in world.alerts] == [Edge.RISING, Edge.RISING]
    assert [alert.watch.name for alert in world.alerts] == ["door", "other"]


def test_deactivation_during_a_check_drops_its_outcome(world):
    world.runner.add(DOOR)
    world.engine.during = world.runner.deactivate
    world.step(p_yes=0.9)
    assert world.level() is Level.INACTIVE
    assert world.alerts == []


# Cost -----------------------------------------------------------------------------------------------------------------


def test_still_scene_is_checked_until_the_window_has_passed_the_change_and_never_again():
    world = World()
    world.runner.add(replace(DOOR, gate=Gate.ON_CHANGE, last_sec=10.0))
    world.step(p_yes=0.9)
    while world.step(changed=False):
        pass
    checks = len(world.engine.asked)
    assert checks == 9  # at 0, 2, … 16 s: the window reaches back 15 s at most
    assert not any(world.step(changed=False, seconds=0.5) for _ in range(1200))
    assert world.level() is Level.YES
    assert world.status().warning == ""
    assert not world.status().is_overdue
    assert world.step()
    assert world.status().warning == ""  # it was checked at once, although the last check was long ago


def test_still_scene_confirms_a_hold_and_a_delayed_alert():
    world = World()
    still = replace(DOOR, gate=Gate.ON_CHANGE, last_sec=0.0, hold_sec=4.0)
    world.runner.add(still)
    world.step(p_yes=0.9)
    for _ in range(10):
        world.step(changed=False)
    assert [alert.edge for alert in world.alerts] == [Edge.RISING]
    assert len(world.engine.asked) == 3

    world = World()
    world.runner.add(replace(still, hold_sec=0.0, cooldown_sec=60.0))
    for p_yes in (0.9, 0.1, 0.9):
        world.step(p_yes=p_yes)
    for _ in range(100):
        world.step(changed=False)
    assert [alert.edge for alert in world.alerts] == [Edge.RISING, Edge.FALLING, Edge.RISING]
    assert len(world.engine.asked) == 4  # one check when the cool-down has ended


def test_one_call_serves_all_watches_of_a_window(world):
    for number in range(20):
        world.runner.add(replace(DOOR, name=f"w{number}", question=f"Is it {number}?"))
    world.runner.add(replace(DOOR, name="all", question="Is it all?", last_sec=0.0))
    world.engine.cost_sec = 1.0
    world.step()
    world.check()
    assert [len(asked) for asked in world.engine.asked] == [20, 1]
    assert world.engine.windows == [10.0, None]
    assert world.status("w3").device_sec == pytest.approx(0.05)
    assert world.status("all").device_sec == pytest.approx(1.0)


def test_windows_of_removed_and_ended_watches_are_dropped(world):
    world.runner.add(DOOR)
    world.runner.add(replace(DOOR, name="long", last_sec=60.0, lifetime_sec=10.0))
    world.step()
    world.check()
    assert world.engine.kept == [{10.0, 60.0}]
    world.step(seconds=10.0)
    world.step()
    assert world.engine.kept == [{10.0, 60.0}, {10.0}]
    world.runner.remove("door")
    world.step()
    assert world.engine.kept[-1] == set()
    assert world.engines["rear"].kept[-1] == set()


def test_slow_watch_is_reported_with_its_interval():
    world = World(max_duty=0.1)
    world.runner.add(DOOR)
    world.engine.cost_sec = 1.0
    for _ in range(40):
        world.step(seconds=0.5)
    assert "checked every 10." in world.status().warning
    assert "instead of 2 s" in world.status().warning


def test_slow_camera_is_not_reported_as_a_slow_watch(world):
    world.runner.add(DOOR)
    for _ in range(4):
        world.step(seconds=9.0)
        assert not world.check()
    assert world.status().interval_sec == 9.0
    assert world.status().warning == ""


def test_watch_that_is_not_checked_is_overdue(world):
    world.runner.add(DOOR)
    world.step()
    for _ in range(5):
        world.now += 2.0
        world.front.show(world.now - 400.0)
        assert not world.status().is_overdue
    world.now += 1.0
    assert world.status().is_overdue
    world.check()
    assert not world.status().is_overdue


def simulate(periods, costs, max_duty, checks):
    """Run watches with windows of their own; return the share of busy time and the stretch of each period."""
    world = World(max_duty=max_duty)
    for number, (name, period) in enumerate(periods.items()):
        world.runner.add(replace(DOOR, name=name, question=name, period_sec=period, last_sec=1.0 + number))
    began, busy_sec, times = world.now, 0.0, {name: [] for name in periods}
    while len(world.engine.asked) < checks:
        world.front.show(world.now)
        before, done = world.now, len(world.engine.asked)
        world.engine.during = lambda: setattr(world, "now", world.now + costs[world.engine.asked[-1][0]])
        if world.check():
            (name,) = world.engine.asked[done]
            times[name].append(before)
            busy_sec += costs[name]
        else:
            world.now += 0.05
    stretches = {name: (at[-1] - at[0]) / (len(at) - 1) / periods[name] for name, at in times.items()}
    return busy_sec / (world.now - began), stretches


def test_periods_are_kept_while_the_device_time_suffices():
    costs = dict.fromkeys("abc", 0.05)
    duty, stretches = simulate({"a": 1.0, "b": 2.0, "c": 5.0}, costs, 0.2, checks=150)
    assert duty == pytest.approx(0.05 * (1 + 0.5 + 0.2), rel=0.08)
    assert list(stretches.values()) == pytest.approx([1.0] * 3, abs=0.1)


@pytest.mark.parametrize("max_duty", [0.2, 1.0])
@pytest.mark.parametrize(
    ("periods", "costs"),
    [
        ({"a": 0.5, "b": 1.0, "c": 2.0, "d": 4.0, "e": 0.5}, {"a": 0.4, "b": 0.1, "c": 0.9, "d": 0.3, "e": 0.2}),
        ({"a": 1.0, "b": 10.0, "c": 30.0, "d": 1.0}, {"a": 0.9, "b": 0.3, "c": 2.0, "d": 0.4}),
    ],
)
def test_all_periods_stretch_by_the_same_factor_when_it_does_not_suffice(periods, costs, max_duty):
    demand = sum(costs[name] / periods[name] for name in periods)
    duty, stretches = simulate(periods, costs, max_duty, checks=400)
    assert 0.97 * max_duty <= duty <= max_duty + 0.005
    assert list(stretches.values()) == pytest.approx([demand / max_duty] * len(periods), rel=0.06)


def test_watch_whose_gate_was_closed_has_no_turns_in_arrears():
    """After an hour without images of one camera, its watch does not take all checks."""
    world = World(max_duty=0.5)
    world.runner.add(replace(DOOR, name="front", period_sec=1.0))
    world.runner.add(replace(DOOR, name="rear", camera="rear", period_sec=1.0))
    for engine in world.engines.values():
        engine.cost_sec = 2.0
    for _ in range(600):
        world.now += 1.0
        world.front.show(world.now)
        world.check()
    before = {name: world.status(name).checks for name in world.cameras}
    assert before["rear"] == 0
    for _ in range(100):
        world.now += 1.0
        for camera in world.cameras.values():
            camera.show(world.now)
        world.check()
    done = {name: world.status(name).checks - before[name] for name in world.cameras}
    assert abs(done["front"] - done["rear"]) <= 1


def test_watch_whose_gate_opens_after_a_long_time_is_checked_next():
    """Nothing was checked meanwhile, so turns have not advanced: those of slow watches are far away."""
    world = World()
    world.engine.cost_sec = 5.0  # more than the period of the fast watch
    fast = replace(DOOR, name="fast", period_sec=1.0, last_sec=0.0, gate=Gate.ON_CHANGE)
    world.runner.add(fast)
    world.runner.add(replace(fast, name="slow", question="slow?", period_sec=60.0, last_sec=1.0))
    for _ in range(10):
        world.step(changed=False)
    world.step(changed=False, seconds=3600.0)
    before = world.status("slow").checks
    for _ in range(2):
        world.step(seconds=0.0, stamp=world.now)
    assert world.status("slow").checks == before + 1
