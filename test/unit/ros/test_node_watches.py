"""The node's standing questions: which alerts are published, what is saved, and what comes back."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from fake_metrics import metrics_of_scores

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.yes_no import ScoreResult, YesNo
from delayed_vlm_ros.memory import SmartFrameManager
from delayed_vlm_ros.ros.input.frame_headers import FrameHeader
from delayed_vlm_ros.ros.scene_memory.watches import AlertIds, Watches
from delayed_vlm_ros.watches import Level, Watch
from delayed_vlm_ros.watches.store import WatchStore

LIGHT = Watch("light", "Is it bright?", period_sec=0.1, yes_checks=1, of_checks=1)


class Robot:
    """A camera that is always alive, an engine that answers ``p_yes``, and the node's watches."""

    def __init__(self, folder):
        self.memory = SmartFrameManager(4, 4)
        self.camera = SimpleNamespace(
            name="front",
            topic="/image",
            frame_manager=self.memory,
            silent_sec=0.0,
            unusually_silent_sec=0.0,
            header_of=lambda frame: frame.source,
            warnings=(),
        )
        self.store = WatchStore(str(folder))
        self.ids = AlertIds()
        self.p_yes, self.stamp, self.can_publish = 0.0, 0.0, True
        self.published, self.logged = [], []
        self.start()

    def start(self, *watches):
        self.watches = Watches(
            {"front": self.camera},
            max_watches=4,
            max_duty=1.0,
            stale_after_sec=lambda: 1.0,
            publish=self.publish,
            logger=SimpleNamespace(warning=self.logged.append, info=self.logged.append),
            store=self.store,
            alert_ids=self.ids,
        )
        self.watches.start(watches)
        self.watches.restore()
        self.watches.activate()

    def publish(self, message):
        if self.can_publish:
            self.published.append(message)
        return self.can_publish

    def score(self, questions, **_):
        score = YesNo(self.p_yes, 1.0, 0.0, "yes")
        return ScoreResult(tuple(score for _ in questions), self.memory.snapshot(), metrics_of_scores())

    def keep_windows(self, lengths):
        pass

    def check(self, p_yes):
        self.p_yes = p_yes
        self.stamp += 1.0
        pixels = np.full((28, 28, 3), int(self.stamp) % 256, np.uint8)
        self.memory.add(pixels, self.stamp, FrameHeader(round(self.stamp * 1e9), "lens"))
        for entry in self.watches.runner._entries.values():
            entry.checked_at = None  # due
        self.watches.runner.check({"front": self}, AskControl())


@pytest.fixture
def robot(tmp_path):
    return Robot(tmp_path)


def test_alert_that_was_not_published_is_due_after_a_restart(robot):
    robot.watches.add(LIGHT)
    robot.can_publish = False
    robot.check(0.9)
    assert robot.store.load().alerts == 0
    # when
    robot.can_publish = True
    robot.start()
    robot.check(0.9)
    # then
    assert [message.id for message in robot.published] == [1]
    robot.start()
    robot.check(0.9)
    assert len(robot.published) == 1


def test_ended_watch_that_is_added_again_does_not_come_back(robot):
    once = replace(LIGHT, once=True)
    robot.watches.add(once)
    robot.check(0.9)
    assert robot.watches.add(once).has_ended
    robot.start()
    assert robot.watches.runner.statuses() == ()


def test_alert_of_a_goal_that_was_cancelled_meanwhile_is_not_published(robot, monkeypatch):
    received = []
    robot.watches.add_for_goal(replace(LIGHT, name="of goal"), received.append)
    report = robot.watches.runner._on_alert
    monkeypatch.setattr(
        robot.watches.runner, "_on_alert", lambda alert: (robot.watches.remove("of goal"), report(alert))
    )
    robot.check(0.9)
    assert received == robot.published == []


def test_alert_of_a_goal_is_for_the_goal_only(robot):
    received = []
    robot.watches.add_for_goal(replace(LIGHT, name="of goal"), received.append)
    robot.check(0.9)
    assert [message.watch for message in received] == ["of goal"]
    assert robot.published == []


def test_ids_go_on_after_a_cleanup(robot):
    robot.watches.add(LIGHT)
    robot.check(0.9)
    robot.store._path.unlink()
    robot.start()
    robot.watches.add(LIGHT)
    robot.check(0.9)
    assert [message.id for message in robot.published] == [1, 2]


def test_watch_of_the_parameter_file_keeps_its_state_and_replaces_one_of_a_client(robot):
    robot.start(LIGHT)
    robot.check(0.9)
    robot.start(LIGHT)
    robot.check(0.9)
    assert len(robot.published) == 1
    assert robot.watches.runner.status("light").state.level is Level.YES
    # when a client's watch gets the name
    robot.start()
    robot.watches.add(replace(LIGHT, question="Is it dark?"))
    robot.start(LIGHT)
    # then
    assert robot.watches.runner.status("light").watch.question == "Is it bright?"
    assert "replaced" in robot.logged[-1]


def test_failing_report_of_one_alert_does_not_prevent_the_others(robot, monkeypatch):
    for name in ("a", "b", "c"):
        robot.watches.add(replace(LIGHT, name=name))
    publish = robot.publish

    def fail_once(message):
        if message.watch == "a":
            raise RuntimeError("planted")
        return publish(message)

    monkeypatch.setattr(robot.watches, "_publish", fail_once)
    robot.check(0.9)
    assert [message.watch for message in robot.published] == ["b", "c"]
