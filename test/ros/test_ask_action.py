"""The action: an answer that grows under one's eyes, and can be cancelled; over DDS."""

import itertools

import pytest
from delayed_vlm_ros.action import AskScene
from delayed_vlm_ros.srv import AskScene as AskSceneService
from harness import HELD_SCENE_MEMORY
from waiting import wait_until

QUEUED, ENCODING, GENERATING = (AskScene.Feedback.QUEUED, AskScene.Feedback.ENCODING, AskScene.Feedback.GENERATING)
RESULT = AskScene.Result


@pytest.fixture(scope="module")
def two_cameras(start_for_module):
    """A node of two cameras, which both have seen something; its engine is a fake."""
    _, client = start_for_module(cameras="[front, rear]", memory__sample_fps=50.0, ask__queue_size=3)
    client.wait_until_ready()
    for camera in ("front", "rear"):

        def seen(camera=camera):
            client.publish(client.image(), f"{camera}/image")
            return client.find_stats(lambda stats: stats.camera == camera and stats.unique_frames >= 2, 0)

        wait_until(seen, f"images of {camera}")
    return client


def stages(goal):
    """The stages told, each once for each time that it began."""
    told = [got.stage for got in goal.feedback]
    return [stage for stage, before in zip(told, [None, *told], strict=False) if stage != before]


def test_text_grows_from_stage_to_stage(two_cameras):
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


def test_of_all_cameras_the_text_is_that_of_all(two_cameras):
    goal = two_cameras.start_goal("say a b c", camera="*")
    result = goal.result()
    assert result.answer == "front: about say a b c\nrear: about say a b c"
    texts = [got.text for got in goal.feedback if got.text]
    assert texts[0].startswith("front: a")
    assert texts[-1].startswith("front: about say a b c\nrear: a")
    assert stages(goal) == [QUEUED, ENCODING, GENERATING, ENCODING, GENERATING]


def test_service_and_action_say_the_same(two_cameras):
    response = two_cameras.ask("What?", camera="rear")
    result = two_cameras.start_goal("What?", camera="rear").result()
    for field in ("success", "error_code", "error_msg", "answer", "frames_used", "snapshot_stamp"):
        assert getattr(result, field) == getattr(response, field), field
    for fields in ({"question": ""}, {"camera": "attic"}, {"last_sec": -1.0}, {"question": "x" * 5000}):
        refused, goal = two_cameras.ask(**fields), two_cameras.start_goal(**fields)
        assert (goal.result().error_code, goal.result().error_msg) == (refused.error_code, refused.error_msg)
        assert goal.result().error_code != RESULT.NONE
        assert goal.status() == "ABORTED"


def test_cancelling_ends_what_runs_and_what_waits(two_cameras):
    running = two_cameras.start_goal("say")
    running.wait_for_feedback(lambda got: got.answer_tokens > 0)
    waiting = two_cameras.start_goal("say never")
    two_cameras.wait_for_stats(lambda stats: stats.asks_waiting == 1)
    # when the one that waits is cancelled, it need not wait for the other one
    assert len(waiting.cancel().goals_canceling) == 1
    assert waiting.result().error_code == RESULT.CANCELLED
    assert waiting.status() == "CANCELED"
    assert not running.done
    two_cameras.wait_for_stats(lambda stats: (stats.asks_running, stats.asks_waiting) == (1, 0))
    # when the one that runs is cancelled, the worker is free
    assert len(running.cancel().goals_canceling) == 1
    assert running.status() == "CANCELED"
    assert "cancelled" in running.result().error_msg
    assert running.result().answer == ""
    assert two_cameras.ask().success
    # and there is nothing left to cancel
    assert len(running.cancel().goals_canceling) == 0


def test_a_deadline_ends_it(two_cameras):
    goal = two_cameras.start_goal("say", timeout_sec=0.4)
    assert goal.result().error_code == RESULT.TIMEOUT
    assert goal.status() == "ABORTED"
    assert two_cameras.ask().success


def test_clients_share_the_queue_of_both(two_cameras):
    """One that asks a lot, by the service, and one that asks once, by the action; three may wait."""
    running = two_cameras.start_goal("say")
    running.wait_for_feedback(lambda got: got.answer_tokens > 0)
    many = [two_cameras.start_ask("say a", client_id="many") for _ in range(5)]
    wait_until(lambda: sum(future.done() for future in many) == 2, "two refusals")
    # when
    one = two_cameras.start_goal("say b", client_id="one")
    # then it is let in for one of theirs
    wait_until(lambda: sum(future.done() for future in many) == 3, "a third refusal")
    refused = [future.result() for future in many if future.done()]
    assert {response.error_code for response in refused} == {AskSceneService.Response.BUSY}
    assert sum("others who ask less" in response.error_msg for response in refused) == 1
    # and is answered in its turn
    running.cancel()
    assert one.result().success
    wait_until(lambda: all(future.done() for future in many), "all answers")
    assert sum(future.result().success for future in many) == 2
    answers = [answer.question for answer in two_cameras.answers if answer.success][-3:]
    assert answers.index("say b") <= 1


def test_a_node_that_is_not_active_says_so_in_the_result(start):
    _, client = start(autostart="false")
    goal = client.start_goal()
    assert goal.result().error_code == RESULT.MODEL_NOT_READY
    assert "configure and activate" in goal.result().error_msg
    assert goal.status() == "ABORTED"


def test_the_real_model_tells_and_stops_within_a_token(start, tmp_path):
    _, client = start(command=HELD_SCENE_MEMORY, memory__sample_fps=20.0, environment={"HELD_ANSWERS": str(tmp_path)})
    client.wait_until_ready()
    client.show_images(4)
    # given an ask that is held up behind its first token
    goal = client.start_goal("What is there?", max_new_tokens=50)
    first = goal.wait_for_feedback(lambda got: got.answer_tokens > 0)
    assert (first.stage, first.answer_tokens) == (GENERATING, 1)
    # when it is cancelled
    goal.cancel()
    # then the client_id hears at once, and the worker is free with the next token
    assert goal.status() == "CANCELED"
    assert client.wait_for_stats().asks_running == 1
    (tmp_path / "released").touch()
    client.wait_for_stats(lambda stats: stats.asks_running == 0)
    # and nothing of it is in the way
    second = client.start_goal("What is there?", max_new_tokens=50)
    assert second.result().success
    assert second.status() == "SUCCEEDED"
    assert stages(second) == [QUEUED, ENCODING, GENERATING]
    assert all(second.result().answer.startswith(got.text) for got in second.feedback)
