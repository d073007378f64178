"""The action ``ask_scene_stream`` over DDS: growing answers, cancellation, deadlines and fairness."""

import itertools
import time

import pytest
import rclpy
from delayed_vlm_ros.action import AskScene
from delayed_vlm_ros.srv import AskScene as AskSceneService
from harness import CONTEXT, HELD_SCENE_MEMORY
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from waiting import wait_until

QUEUED, ENCODING, GENERATING = (AskScene.Feedback.QUEUED, AskScene.Feedback.ENCODING, AskScene.Feedback.GENERATING)
RESULT = AskScene.Result


@pytest.fixture(scope="module")
def two_cameras(start_for_module):
    """A node with a fake engine and two cameras that have frames."""
    _, client = start_for_module(cameras="[front, rear]", memory__sample_fps=50.0, ask__queue_size=3)
    client.wait_until_ready()
    for camera in ("front", "rear"):

        def has_frames(camera=camera):
            client.publish(client.image(), f"{camera}/image")
            return client.find_stats(lambda stats: stats.camera == camera and stats.unique_frames >= 2, 0)

        wait_until(has_frames, f"images of {camera}")
    return client


def stages(goal):
    """Return the stages of the feedback without consecutive repetitions."""
    reported = [got.stage for got in goal.feedback]
    return [stage for stage, before in zip(reported, [None, *reported], strict=False) if stage != before]


def test_feedback_has_all_stages_and_growing_text(two_cameras):
    words = [f"wörd{number}" for number in range(20)]
    # when
    goal = two_cameras.start_goal("say " + " ".join(words))
    result = goal.result()
    # then
    assert goal.status() == "SUCCEEDED"
    assert result.success
    assert result.error_code == RESULT.NONE
    assert result.answer == " ".join(["about", "say", *words])
    assert {frame.camera for frame in result.frames_used} == {"front"}
    assert stages(goal) == [QUEUED, ENCODING, GENERATING]
    texts = [got.text for got in goal.feedback if got.text]
    assert len(texts) > 2
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(texts))
    assert all(len(got.text.split()) == got.answer_tokens for got in goal.feedback)


def test_feedback_for_all_cameras_has_the_combined_text(two_cameras):
    goal = two_cameras.start_goal("say a b c", camera="*")
    result = goal.result()
    assert result.answer == "front: about say a b c\nrear: about say a b c"
    texts = [got.text for got in goal.feedback if got.text]
    assert texts[0].startswith("front: a")
    assert texts[-1].startswith("front: about say a b c\nrear: a")
    assert stages(goal) == [QUEUED, ENCODING, GENERATING, ENCODING, GENERATING]


def test_service_and_action_return_the_same(two_cameras):
    response = two_cameras.ask("What?", camera="rear")
    result = two_cameras.start_goal("What?", camera="rear").result()
    for field in ("success", "error_code", "error_msg", "answer", "frames_used", "snapshot_stamp"):
        assert getattr(result, field) == getattr(response, field), field
    for fields in ({"question": ""}, {"camera": "attic"}, {"last_sec": -1.0}, {"question": "x" * 5000}):
        refused, goal = two_cameras.ask(**fields), two_cameras.start_goal(**fields)
        assert (goal.result().error_code, goal.result().error_msg) == (refused.error_code, refused.error_msg)
        assert goal.result().error_code != RESULT.NONE
        assert goal.status() == "ABORTED"


def test_cancellation_ends_running_and_waiting_questions(two_cameras):
    running = two_cameras.start_goal("say")
    running.wait_for_feedback(lambda got: got.answer_tokens > 0)
    waiting = two_cameras.start_goal("say never")
    two_cameras.wait_for_node_stats(lambda stats: stats.questions_waiting == 1)
    # when the waiting question is cancelled, it ends before the running one
    assert len(waiting.cancel().goals_canceling) == 1
    assert waiting.result().error_code == RESULT.CANCELLED
    assert waiting.status() == "CANCELED"
    assert not running.done
    two_cameras.wait_for_node_stats(lambda stats: (stats.questions_running, stats.questions_waiting) == (1, 0))
    # when the running question is cancelled, the worker is free
    assert len(running.cancel().goals_canceling) == 1
    assert running.status() == "CANCELED"
    assert running.result().error_code == RESULT.CANCELLED
    assert running.result().answer == ""
    assert two_cameras.ask().success
    # and a second cancellation finds no goal
    assert len(running.cancel().goals_canceling) == 0


def test_deadline_ends_the_question(two_cameras):
    goal = two_cameras.start_goal("say", timeout_sec=0.4)
    assert goal.result().error_code == RESULT.TIMEOUT
    assert goal.status() == "ABORTED"
    assert two_cameras.ask().success


def test_clients_share_one_queue_for_service_and_action(two_cameras):
    """One client asks often through the service, another once through the action; three may wait."""
    running = two_cameras.start_goal("say")
    running.wait_for_feedback(lambda got: got.answer_tokens > 0)
    many = [two_cameras.start_ask("say a", client_id="many") for _ in range(5)]
    wait_until(lambda: sum(future.done() for future in many) == 2, "two refusals")
    # when
    one = two_cameras.start_goal("say b", client_id="one")
    # then it takes the position of one of the others
    wait_until(lambda: sum(future.done() for future in many) == 3, "a third refusal")
    refused = [future.result() for future in many if future.done()]
    assert {response.error_code for response in refused} == {AskSceneService.Response.BUSY}
    assert sum("clients with fewer" in response.error_msg for response in refused) == 1
    # and is answered in its turn
    running.cancel()
    assert one.result().success
    wait_until(lambda: all(future.done() for future in many), "all answers")
    assert sum(future.result().success for future in many) == 2
    answers = [answer.question for answer in two_cameras.answers if answer.success][-3:]
    assert answers.index("say b") <= 1


def test_hundred_goals_of_a_client_with_the_default_qos_are_all_answered(two_cameras):
    # given a client with the default depth of 10, which reads nothing for a while after sending
    node = rclpy.create_node("many_goals", namespace=two_cameras.namespace, context=CONTEXT)
    action = ActionClient(node, AskScene, "ask_scene_stream")
    executor = SingleThreadedExecutor(context=CONTEXT)
    executor.add_node(node)
    results = []

    def fetch(sent):
        sent.result().get_result_async().add_done_callback(lambda got: results.append(got.result().result))

    try:
        assert action.wait_for_server(30)
        # when
        for number in range(100):
            action.send_goal_async(AskScene.Goal(question=f"say {number}")).add_done_callback(fetch)
        time.sleep(0.5)
        deadline = time.monotonic() + 60
        while len(results) < 100 and time.monotonic() < deadline:
            executor.spin_once(timeout_sec=0.1)
    finally:
        executor.shutdown()
        action.destroy()
        node.destroy_node()
    # then each has an answer, or an error that the client sees
    assert len(results) == 100
    assert {result.error_code for result in results} == {RESULT.NONE, RESULT.BUSY}


def test_goal_of_inactive_node_is_aborted_with_the_remedy(start):
    _, client = start(autostart="false")
    goal = client.start_goal()
    assert goal.result().error_code == RESULT.MODEL_NOT_READY
    assert "configure" in goal.result().error_msg
    assert goal.status() == "ABORTED"


def test_real_model_streams_and_stops_after_a_token(start, tmp_path):
    _, client = start(command=HELD_SCENE_MEMORY, memory__sample_fps=20.0, environment={"HELD_ANSWERS": str(tmp_path)})
    client.wait_until_ready()
    client.show_images(4)
    # given a question that is held after its first token
    goal = client.start_goal("What is there?", max_new_tokens=50)
    first = goal.wait_for_feedback(lambda got: got.answer_tokens > 0)
    assert (first.stage, first.answer_tokens) == (GENERATING, 1)
    # when it is cancelled
    goal.cancel()
    # then the client receives the result immediately, and the worker is free after the next token
    assert goal.status() == "CANCELED"
    assert client.wait_for_node_stats().questions_running == 1
    (tmp_path / "released").touch()
    client.wait_for_node_stats(lambda stats: stats.questions_running == 0)
    # and the next question is not affected
    second = client.start_goal("What is there?", max_new_tokens=50)
    assert second.result().success
    assert second.status() == "SUCCEEDED"
    assert stages(second) == [QUEUED, ENCODING, GENERATING]
    assert all(second.result().answer.startswith(got.text) for got in second.feedback)
