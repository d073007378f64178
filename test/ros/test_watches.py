"""Standing questions over DDS: services, states, alerts, goals, lifecycle and faults, with a fake engine."""

import math
import signal
import time

import pytest
from delayed_vlm_ros.action import WatchFor
from delayed_vlm_ros.msg import Alert, WatchSettings, WatchState
from delayed_vlm_ros.srv import AskScene, ListWatches
from harness import Client
from waiting import PATIENCE_SEC, wait_until

from delayed_vlm_ros.ros.action_client import SpunActionClient

ERROR = AskScene.Response
OK, WARN, ERROR_LEVEL, STALE = (bytes([level]) for level in range(4))


OPTIONS = {
    "memory__sample_fps": 50.0,
    "watches__max": 6,
    "watches__max_duty": 1.0,
    "diagnostics__stale_after_sec": 300.0,
    "watches__names": "[gloom]",
    "watches__gloom__question": "'file /no/such/file'",
    "watches__gloom__period_sec": 0.2,
}


@pytest.fixture(scope="module")
def shared_node(start_for_module):
    """A node with a fake engine, and a client."""
    process, client = start_for_module(**OPTIONS)
    client.wait_until_ready()
    return process, client


@pytest.fixture
def watched(shared_node):
    """The same node with a dark image in its memory, and without the watches and alerts of earlier tests."""
    process, client = shared_node
    for state in client.call(ListWatches, "scene_memory/list_watches", ListWatches.Request()).watches:
        if state.settings.name != "gloom":
            client.unwatch(state.settings.name)
    client.reset()
    show(client, 20)
    client.alerts.clear()
    return process, client


@pytest.fixture
def own_watched(start):
    """A node like that for one test, which changes its lifecycle."""
    process, client = start(**OPTIONS)
    client.wait_until_ready()
    show(client, 20)
    return process, client


def show(client, shade, count=2):
    """Publish images of a shade until the memory has so many more."""
    client.connect_images()
    before = client.wait_for_stats(lambda _: True).total_frames_added
    for _ in range(count):
        client.publish(client.image(shade=shade))
    client.wait_for_stats(lambda stats: stats.total_frames_added >= before + count)


def test_watch_reports_both_edges_with_evidence(watched):
    _, client = watched
    added = client.watch("light", "bright", last_sec=5.0)
    assert added.success, added.error_msg
    assert (added.state.settings.release, added.state.settings.threshold) == pytest.approx((0.4, 0.6))
    client.wait_for_watch("light", lambda state: state.level == WatchState.NO)
    assert client.alerts == []
    # when
    show(client, 240)
    alert = client.wait_for_alert()
    # then
    assert (alert.watch, alert.question, alert.edge, alert.camera) == ("light", "bright", Alert.RISING, "camera")
    assert alert.p_yes == pytest.approx(0.9)
    assert alert.header.frame_id == "lens"
    assert alert.evidence[-1].id in [frame.id for frame in client.ask().frames_used]
    state = client.wait_for_watch("light", lambda state: state.level == WatchState.YES)
    assert state.since == alert.header.stamp == alert.first_stamp
    assert state.reason == ""
    # when
    show(client, 20)
    assert client.wait_for_alert(after=1).edge == Alert.FALLING
    client.wait_for_watch("light", lambda state: state.level == WatchState.NO)
    assert client.alerts[1].id == alert.id + 1


def test_client_that_subscribes_later_receives_earlier_alerts_and_states(watched):
    _, client = watched
    client.watch("light", "bright")
    show(client, 240)
    client.wait_for_alert()
    late = Client(client.namespace)
    try:
        late.wait_for_alert(lambda alert: alert == client.alerts[0])
        late.wait_for_watch("light", lambda state: state.level == WatchState.YES)
    finally:
        late.close()


def test_watch_of_the_parameter_file_starts_with_the_node(watched, tmp_path):
    _, client = watched
    state = client.wait_for_watch("gloom", lambda state: state.level == WatchState.NO)
    assert state.settings.question == "file /no/such/file"
    assert state.settings.period_sec == pytest.approx(0.2)


def test_same_watch_again_changes_nothing_and_other_words_are_refused(watched):
    _, client = watched
    assert client.watch("light", "bright").success
    client.wait_for_watch("light", lambda state: state.checks > 0)
    again = client.watch("light", "bright")
    assert again.success
    assert again.state.checks > 0
    refused = client.watch("light", "another question")
    assert not refused.success
    assert refused.error_code == ERROR.BAD_REQUEST
    assert "other settings" in refused.error_msg


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"question": " "}, ERROR.BAD_REQUEST, "empty"),
        ({"name": ""}, ERROR.BAD_REQUEST, "name"),
        ({"name": "x" * 65}, ERROR.BAD_REQUEST, "name"),
        ({"camera": "rear"}, ERROR.UNKNOWN_CAMERA, "rear"),
        ({"period_sec": -1.0}, ERROR.BAD_REQUEST, "period_sec"),
        ({"last_sec": math.nan}, ERROR.BAD_REQUEST, "last_sec"),
        ({"threshold": 1.5}, ERROR.BAD_REQUEST, "threshold"),
        ({"gate": 7}, ERROR.BAD_REQUEST, "gate"),
        ({"yes_checks": 3, "of_checks": 2}, ERROR.BAD_REQUEST, "yes_checks"),
        ({"question": "x" * 5000}, ERROR.BAD_REQUEST, "too long"),
    ],
)
def test_invalid_settings_are_refused(with_images, fields, code, words):
    response = with_images.watch(**{"name": "light", "question": "bright", **fields})
    assert not response.success
    assert response.error_code == code
    assert words in response.error_msg


def test_number_of_watches_is_bounded_and_removed_ones_make_room(watched):
    _, client = watched
    for number in range(5):
        assert client.watch(f"light {number}", "bright").success
    refused = client.watch("one more", "bright")
    assert refused.error_code == ERROR.BAD_REQUEST
    assert "maximum" in refused.error_msg
    assert client.unwatch("light 3").success
    assert client.watch("one more", "bright").success
    listed = client.call(ListWatches, "scene_memory/list_watches", ListWatches.Request()).watches
    assert [state.settings.name for state in listed] == [
        "gloom",
        "light 0",
        "light 1",
        "light 2",
        "light 4",
        "one more",
    ]
    assert "no watch 'light 3'" in client.unwatch("light 3").error_msg


def test_unclear_outcome_and_errors_are_unknown_and_reported(watched):
    process, client = watched
    client.watch("strange", "strange")
    state = client.wait_for_watch("strange", lambda state: state.checks > 0)
    assert state.level == WatchState.UNKNOWN
    assert "perhaps" in state.reason
    assert math.isnan(state.p_yes)
    status = client.wait_for_status("watch strange", lambda status: status.level == WARN)
    assert "perhaps" in status.message
    client.unwatch("strange")
    # a defect and a shortage end neither the node nor other watches
    client.watch("light", "bright", period_sec=0.2, last_sec=3.0)
    client.watch("broken", "defect")
    show(client, 30)
    assert "ZeroDivisionError" in client.wait_for_watch("broken", lambda state: state.checks > 0).reason
    client.unwatch("broken")
    show(client, 240)
    client.wait_for_alert(lambda alert: alert.watch == "light")
    assert process.alive


def test_questions_come_before_checks(watched):
    _, client = watched
    client.watch("slow", "slow 30")
    client.wait_for_watch("slow", lambda state: state.level == WatchState.UNKNOWN)
    began = time.monotonic()
    for _ in range(3):
        assert client.ask().success
    assert time.monotonic() - began < 15.0  # half of one check
    assert client.wait_for_watch("slow", lambda _: True).checks == 0


def test_silent_camera_makes_watches_unknown_and_no_alert(start):
    process, client = start(memory__sample_fps=50.0, diagnostics__stale_after_sec=0.5)
    client.wait_until_ready()
    client.watch("light", "bright")
    state = client.wait_for_watch("light", lambda state: state.level == WatchState.UNKNOWN and "image" in state.reason)
    assert "/image" in state.reason
    show(client, 240)
    client.wait_for_alert()
    state = client.wait_for_watch("light", lambda state: state.level == WatchState.UNKNOWN and "no new" in state.reason)
    # and when it returns with the same view, no alert is repeated
    checks = state.checks
    show(client, 240)
    client.wait_for_watch("light", lambda state: state.level == WatchState.YES and state.checks > checks)
    assert len(client.alerts) == 1
    assert process.alive


def test_slow_camera_is_not_silent_between_its_images(start):
    _, client = start(memory__sample_fps=50.0, diagnostics__stale_after_sec=0.2)
    client.wait_until_ready()
    client.watch("light", "bright", yes_checks=3, of_checks=3)
    client.connect_images()
    for _ in range(12):  # the next image is late for the diagnostics, but as usual
        client.publish(client.image(shade=240))
        time.sleep(0.6)
    assert client.wait_for_alert().edge == Alert.RISING


def test_inactive_node_checks_nothing(own_watched):
    _, client = own_watched
    client.watch("light", "bright")
    client.wait_for_watch("light", lambda state: state.level == WatchState.NO)
    assert client.transition("deactivate")
    state = client.wait_for_watch("light", lambda state: state.level == WatchState.INACTIVE)
    assert "not active" in state.reason
    assert client.watch("another", "bright").state.level == WatchState.INACTIVE
    assert client.transition("activate")
    client.wait_until_active()
    show(client, 240)
    client.wait_for_alert(lambda alert: alert.watch == "another")
    assert client.transition("deactivate")
    assert client.transition("cleanup")
    wait_until(lambda: not client.watches, "an empty list of watches")
    refused = client.watch("light", "bright")
    assert refused.error_code == ERROR.MODEL_NOT_READY


def test_reset_forgets_what_was_seen(watched):
    _, client = watched
    client.watch("light", "bright")
    show(client, 240)
    client.wait_for_watch("light", lambda state: state.level == WatchState.YES)
    client.reset()
    client.wait_for_watch("light", lambda state: state.level == WatchState.UNKNOWN and "reset" in state.reason)
    show(client, 20)
    assert client.wait_for_alert(after=1).edge == Alert.FALLING


def test_watch_that_ends_is_inactive_and_says_why(watched):
    _, client = watched
    client.watch("first only", "bright", once=True)
    client.watch("short", "bright", lifetime_sec=0.3)
    show(client, 240)
    client.wait_for_alert(lambda alert: alert.watch == "first only")
    state = client.wait_for_watch("first only", lambda state: state.level == WatchState.INACTIVE)
    assert "first alert" in state.reason
    assert "lifetime" in client.wait_for_watch("short", lambda state: state.level == WatchState.INACTIVE).reason


def test_model_that_loads_makes_watches_unknown(start, tmp_path):
    loaded = tmp_path / "loaded"
    _, client = start(
        memory__sample_fps=50.0, diagnostics__stale_after_sec=60.0, environment={"FAKE_LOAD_UNTIL": str(loaded)}
    )
    client.wait_until_active()
    client.watch("light", "bright")
    state = client.wait_for_watch("light", lambda state: "loading" in state.reason)
    assert state.level == WatchState.UNKNOWN
    loaded.touch()
    show(client, 20)
    client.wait_for_watch("light", lambda state: state.level == WatchState.NO)


def test_model_stays_loaded_while_there_is_a_watch(start):
    _, client = start(memory__sample_fps=50.0, model__unload_after_idle_sec=0.5, diagnostics__stale_after_sec=60.0)
    client.wait_until_active()
    show(client, 20)
    client.wait_for_status("model", lambda status: "idle" in status.message)
    client.watch("light", "bright")
    client.wait_for_watch("light", lambda state: state.level == WatchState.NO)
    client.unwatch("light")
    client.wait_for_status("model", lambda status: "idle" in status.message)


def test_invalid_watches_in_the_parameter_file_fail_configure(start):
    _, client = start(watches__names="[light]", watches__light__period_sec=0.5)
    status = client.wait_for_status("lifecycle", lambda status: status.level == ERROR_LEVEL)
    assert "watches.light" in status.message
    assert "question" in status.message


# Goals --------------------------------------------------------------------------------------------------------------


class WatchGoal:
    def __init__(self, client, **settings):
        self._action = SpunActionClient(client.node, WatchFor, "scene_memory/watch_for")
        assert self._action.wait_for_server(timeout_sec=PATIENCE_SEC)
        self.feedback = []
        message = WatchFor.Goal(settings=WatchSettings(**{"period_sec": 0.1, "yes_checks": 1, **settings}))
        sent = self._action.send_goal_async(message, lambda got: self.feedback.append(got.feedback.state))
        wait_until(sent.done, "the goal to be accepted")
        self.handle = sent.result()
        self._result = self.handle.get_result_async()

    def result(self):
        wait_until(self._result.done, lambda: f"the goal's result; feedback {self.feedback[-1:]}")
        return self._result.result()

    def close(self):
        self._action.destroy()


@pytest.fixture
def watch_for(watched):
    goals = []

    def make(**settings):
        goals.append(WatchGoal(watched[1], **settings))
        return goals[-1]

    yield make
    for goal in goals:
        goal.close()


def test_goal_succeeds_at_the_first_yes(watched, watch_for):
    _, client = watched
    goal = watch_for(question="bright", name="lights")
    wait_until(lambda: goal.feedback and goal.feedback[-1].level == WatchState.NO, "feedback after a check")
    show(client, 240)
    got = goal.result()
    assert got.status == 4  # SUCCEEDED
    assert got.result.success
    assert got.result.alert.question == "bright"
    assert got.result.alert.evidence
    wait_until(lambda: [state.settings.name for state in client.watches] == ["gloom"], "the goal's watch to be removed")
    assert client.alerts == []


def test_cancelled_goal_ends_as_cancelled(watched, watch_for):
    _, client = watched
    goal = watch_for(question="bright")
    wait_until(lambda: goal.feedback, "feedback")
    cancelled = goal.handle.cancel_goal_async()
    wait_until(cancelled.done, "a response to the cancellation")
    got = goal.result()
    assert got.status == 5  # CANCELED
    assert got.result.error_code == ERROR.CANCELLED
    wait_until(lambda: len(client.watches) == 1, "the goal's watch to be removed")


def test_goal_whose_watch_a_client_removes_ends(watched, watch_for):
    _, client = watched
    goal = watch_for(question="bright")
    wait_until(lambda: len(client.watches) == 2, "the goal's watch")
    assert client.unwatch(client.watches[-1].settings.name).success
    got = goal.result()
    assert got.status == 6
    assert got.result.error_code == ERROR.CANCELLED
    assert "removed" in got.result.error_msg


def test_goal_is_aborted_after_its_lifetime(watched, watch_for):
    goal = watch_for(question="bright", lifetime_sec=0.3)
    got = goal.result()
    assert got.status == 6  # ABORTED
    assert got.result.error_code == ERROR.TIMEOUT
    assert "0.3 s" in got.result.error_msg


def test_goal_with_invalid_settings_is_aborted_with_the_reason(watch_for):
    got = watch_for(question="").result()
    assert got.status == 6
    assert got.result.error_code == ERROR.BAD_REQUEST


def test_goals_end_when_the_node_is_cleaned_up_or_ends(own_watched):
    process, client = own_watched
    goals = [WatchGoal(client, question="bright") for _ in range(2)]
    try:
        wait_until(lambda: all(goal.feedback for goal in goals), "feedback")
        client.transition("deactivate")
        client.transition("cleanup")
        for goal in goals:
            assert goal.result().result.error_code == ERROR.CANCELLED
        # and a node with waiting goals ends in time
        client.transition("configure")
        client.transition("activate")
        goals.append(WatchGoal(client, question="bright"))
        wait_until(lambda: len(client.watches) == 2, "the goal's watch")
        code, seconds = process.end()
        assert code == 0
        assert seconds < 2.0
    finally:
        for goal in goals:
            goal.close()


# Persistence --------------------------------------------------------------------------------------------------------


def test_killed_node_repeats_and_loses_no_alert(start, tmp_path):
    sign = tmp_path / "sign"
    folder = tmp_path / "memory"
    folder.mkdir()
    options = {**OPTIONS, "namespace": "/killed_watches", "persistence__folder": str(folder)}
    options |= {
        "watches__gloom__question": f"'file {sign}'",
        "watches__gloom__period_sec": 0.1,
        "watches__gloom__yes_checks": 1,
    }

    def restart():
        nonlocal process, client
        if process is not None:
            process.process.send_signal(signal.SIGKILL)
            process.process.wait()
            process.close()
            client.close()
        process, client = start(**options)
        client.wait_until_ready()
        show(client, 20)

    process = client = None
    restart()
    assert client.watch("of client", f"file {sign}", hold_sec=0.2).success
    assert client.watch("removed", f"file {sign}").success
    assert client.unwatch("removed").success
    # given an alert of each before the kill
    sign.touch()
    show(client, 20, count=10)  # the hold is measured in stamps
    first = {client.wait_for_alert(lambda alert, name=name: alert.watch == name).id for name in ("gloom", "of client")}
    assert first == {1, 2}
    # when the state is the same after it
    restart()
    assert {state.settings.name for state in client.watches} == {"gloom", "of client"}
    for name in ("gloom", "of client"):
        client.wait_for_watch(name, lambda state: state.level == WatchState.YES)
    assert client.alerts == []
    # when it changes while the node is away
    sign.unlink()
    restart()
    falling = [client.wait_for_alert(lambda alert, name=name: alert.watch == name) for name in ("gloom", "of client")]
    assert {alert.edge for alert in falling} == {Alert.FALLING}
    assert {alert.id for alert in falling} == {3, 4}
    # when it is killed in the middle of a hold
    client.unwatch("of client")
    client.watch("long hold", f"file {sign}", hold_sec=1.0)
    sign.touch()
    show(client, 20)
    client.wait_for_watch("long hold", lambda state: state.p_yes > 0.5)
    restart()
    assert not any(alert.watch == "long hold" for alert in client.alerts)
    show(client, 20, count=25)
    assert client.wait_for_alert(lambda alert: alert.watch == "long hold").edge == Alert.RISING


def test_unusable_file_of_watches_is_reported(start, tmp_path):
    (tmp_path / "watches.json").write_text("{")
    process, client = start(**OPTIONS, persistence__folder=str(tmp_path))
    client.wait_until_ready()
    assert "watches.json.aside" in process.log
    assert client.watch("light", "bright").success
    assert '"light"' in (tmp_path / "watches.json").read_text()
