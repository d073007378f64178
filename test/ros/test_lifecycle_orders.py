"""Lifecycle transitions in any order, as by nav2's lifecycle manager, during questions."""

import random
import signal

import pytest
from delayed_vlm_ros.srv import AskScene
from geometry_msgs.msg import PoseStamped
from lifecycle_msgs.msg import Transition
from sensor_msgs.msg import Image
from waiting import wait_until

RESPONSE = AskScene.Response

NEXT_STATE = {
    ("unconfigured", "configure"): "inactive",
    ("inactive", "activate"): "active",
    ("active", "deactivate"): "inactive",
    ("inactive", "cleanup"): "unconfigured",
}
TRANSITIONS = sorted({transition for _, transition in NEXT_STATE})


@pytest.fixture(scope="module")
def running(start_for_module):
    """An unconfigured node."""
    return start_for_module(autostart="false", memory__sample_fps=50.0)


def bring_down(client):
    for transition in ("deactivate", "cleanup"):
        client.transition(transition)
    assert client.state() == "unconfigured"


@pytest.mark.parametrize("seed", range(4))
def test_random_transitions_end_in_the_expected_state(running, seed):
    process, client = running
    bring_down(client)
    dice, state, goals = random.Random(seed), "unconfigured", []
    for _ in range(25):
        # valid transitions are twice as likely as the others
        likely = [transition for before, transition in NEXT_STATE if before == state]
        transition = dice.choice(likely * 4 + TRANSITIONS)
        done = client.transition(transition)
        assert done == ((state, transition) in NEXT_STATE), f"{transition} while {state}"
        state = NEXT_STATE.get((state, transition), state)
        assert client.state() == state
        code = client.ask(timeout_sec=5.0).error_code
        assert code == (RESPONSE.NO_FRAMES if state == "active" else RESPONSE.MODEL_NOT_READY)
        if state == "active" and dice.random() < 0.5:
            client.show_images(1)
            goals.append(client.start_goal("say"))
            goals[-1].wait_for_feedback(lambda _: True)
            client.reset()
    bring_down(client)
    # then every running question has ended with its memory
    assert all(goal.result().error_code in (RESPONSE.CANCELLED, RESPONSE.BUSY) for goal in goals)
    assert process.alive
    assert "Traceback" not in process.log


def test_unknown_transitions_are_rejected(running):
    _, client = running
    bring_down(client)
    assert client.transition("configure")
    for label, number in (("fly", 0), ("", 99), ("", 255), ("on_configure_success", 0), ("", 0), ("", 10)):
        assert not client.transition(label, number), (label, number)
        assert client.state() == "inactive"
    assert client.transition("activate")
    client.show_images(2)
    assert client.ask().success


def test_transitions_by_number_during_questions(start, tmp_path):
    process, client = start(autostart="false", memory__sample_fps=50.0)
    assert client.transition(number=Transition.TRANSITION_CONFIGURE)
    assert client.transition(number=Transition.TRANSITION_ACTIVATE)
    assert client.state() == "active"
    client.show_images(2)
    # when the node is deactivated, running and waiting questions are answered
    held = client.start_ask(f"hold {tmp_path / 'go'}")
    client.wait_for_node_stats(lambda stats: stats.questions_running == 1)
    waiting = client.start_goal("What else?")
    client.wait_for_node_stats(lambda stats: stats.questions_waiting == 1)
    assert client.transition(number=Transition.TRANSITION_DEACTIVATE)
    assert client.ask().error_code == RESPONSE.MODEL_NOT_READY
    (tmp_path / "go").touch()
    wait_until(held.done, "the answer")
    assert held.result().success
    assert waiting.result().success
    # when it is cleaned up, they are cancelled
    assert client.transition(number=Transition.TRANSITION_ACTIVATE)
    goal = client.start_goal("say")
    goal.wait_for_feedback(lambda got: got.answer_tokens > 0)
    assert client.transition(number=Transition.TRANSITION_DEACTIVATE)
    assert client.transition(number=Transition.TRANSITION_CLEANUP)
    assert goal.result().error_code == RESPONSE.CANCELLED
    assert goal.status() == "ABORTED", "its client has not cancelled it"
    # when it is shut down, it stays finalized and reports it
    assert client.transition(number=Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)
    assert client.state() == "finalized"
    assert not client.transition("configure")
    assert "finalized" in client.ask().error_msg
    client.wait_for_status("lifecycle", lambda status: "finalized" in status.message)
    assert process.end(signal.SIGINT)[0] == 0
    assert "Traceback" not in process.log


@pytest.mark.parametrize("state", ["INACTIVE", "ACTIVE"])
def test_shutdown_from_any_state(start, state):
    process, client = start(autostart="false", memory__sample_fps=50.0)
    assert client.transition("configure")
    if state == "ACTIVE":
        assert client.transition("activate")
        client.show_images(1)
        client.start_goal("say").wait_for_feedback(lambda got: got.answer_tokens > 0)
    assert client.transition(number=getattr(Transition, f"TRANSITION_{state}_SHUTDOWN"))
    assert client.state() == "finalized"
    assert process.end(signal.SIGTERM, times=2)[0] == 0
    assert "Traceback" not in process.log


def test_cleanup_while_the_model_loads(start, tmp_path):
    loaded = tmp_path / "loaded"
    _, client = start(memory__sample_fps=50.0, environment={"FAKE_LOAD_UNTIL": str(loaded)})
    client.wait_until_active()
    client.show_images(2)
    goal = client.start_goal()
    client.wait_for_node_stats(lambda stats: stats.questions_waiting == 1)
    # when
    assert client.transition("deactivate")
    assert client.transition("cleanup")
    # then
    assert goal.result().error_code == RESPONSE.CANCELLED
    # and the next session loads the model after the first load has ended
    assert client.transition("configure")
    assert client.transition("activate")
    client.show_images(2)
    goal = client.start_goal()
    goal.wait_for_feedback(lambda _: True)
    assert client.wait_for_node_stats().model_state == "loading"
    loaded.touch()
    assert goal.result().success


def test_defect_in_configure_is_reported_and_recovered_from(start, tmp_path):
    defect = tmp_path / "defect"
    defect.touch()
    process, client = start(memory__sample_fps=50.0, environment={"FAKE_DEFECT_WHILE": str(defect)})
    status = client.wait_for_status("lifecycle", lambda status: status.level == b"\x02")
    assert "planted by the test" in status.message
    assert client.state() == "unconfigured"
    assert "planted by the test" in client.ask().error_msg
    assert not client.transition("configure")
    assert client.state() == "unconfigured"
    # when
    defect.unlink()
    # then
    assert client.transition("configure")
    assert client.transition("activate")
    client.wait_for_status("lifecycle", lambda status: status.level == b"\x00")
    client.show_images(2)
    assert client.ask().success
    assert process.alive


def test_fifty_clean_ups_under_load_log_no_error(start):
    # given a camera and poses that do not pause
    process, client = start(autostart="false", memory__sample_fps=50.0)
    images = client.node.create_publisher(Image, "image", 10)
    poses = client.node.create_publisher(PoseStamped, "pose", 10)
    client.node.create_timer(0.002, lambda: poses.publish(PoseStamped()))
    client.node.create_timer(0.002, lambda: images.publish(Image()))

    # when
    for _ in range(50):
        for label in ("configure", "activate", "deactivate", "cleanup"):
            assert client.transition(label)

    # then
    assert process.end(signal.SIGINT)[0] == 0
    assert "[ERROR]" not in process.log
    assert "Traceback" not in process.log
