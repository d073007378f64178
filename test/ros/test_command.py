"""The commands ``delayed-vlm ask`` and ``delayed-vlm status`` against a running node."""

import json
import signal

import pytest
from command_line import ForkedCommand, run_forked
from delayed_vlm_ros.srv import AskScene
from harness import Client
from waiting import wait_until


@pytest.fixture(scope="module", autouse=True)
def status_of_nowhere(ros):
    """A command that takes ten seconds, during the first tests."""
    started = ForkedCommand("status", "--namespace", "/nowhere")
    yield started
    started.close()


def test_ask_prints_the_answer(with_images):
    done = run_forked("ask", "What is [bold]there[/]?", "--namespace", with_images.namespace, "--last", "60")
    assert done.returncode == 0, done.stderr
    assert "Q: What is [bold]there[/]?" in done.stdout
    assert "\nA: " in done.stdout


def test_ask_with_json_prints_one_object(with_images):
    done = run_forked("ask", "What is there?", "--namespace", with_images.namespace, "--json")
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed["success"]
    assert printed["answer"]
    assert len(printed["frames_used"]) >= 2


def test_ask_shows_what_it_understood_about_time(with_images):
    done = run_forked("ask", "Who came today?", "--parse-time", "--now", "--namespace", with_images.namespace)
    assert done.returncode == 0, done.stderr
    assert "T: 'today': from 00:00:00 to now" in done.stdout
    done = run_forked("ask", "Who came yesterday?", "--parse-time", "--namespace", with_images.namespace)
    assert done.returncode == 1
    assert "'yesterday': from " in done.stderr


def test_ctrl_c_cancels_the_question(with_images):
    # given
    command = ForkedCommand("ask", "say", "--namespace", with_images.namespace)
    with_images.wait_for_node_stats(lambda stats: stats.questions_running == 1)
    # when
    command.process.send_signal(signal.SIGINT)
    # then
    done = command.wait()
    command.close()
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    with_images.wait_for_node_stats(lambda stats: stats.questions_running == 0)
    found = wait_until(lambda: [answer for answer in with_images.answers if answer.question == "say"], "the answer")
    assert found[0].error_code == AskScene.Response.CANCELLED


def test_node_without_the_action_is_asked_through_the_service(ros):
    # given
    client = Client("/older")

    def answer(request, response):
        response.success, response.answer = True, f"about {request.question}"
        return response

    client.node.create_service(AskScene, "ask_scene", answer)
    # when
    done = run_forked("ask", "What?", "--namespace", "/older")
    client.close()
    # then
    assert done.returncode == 0, done.stderr
    assert "A: about What?" in done.stdout
    assert "ask_scene_stream" in done.stderr


def test_rejected_question_prints_one_sentence_and_fails(with_images):
    done = run_forked("ask", "What is there?", "--namespace", with_images.namespace, "--camera", "attic")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "attic" in done.stderr
    assert "Traceback" not in done.stderr


def test_status_prints_diagnostics_and_statistics(with_images):
    done = run_forked("status", "--namespace", with_images.namespace)
    assert done.returncode == 0, done.stderr
    for part in (
        "lifecycle: active",
        "camera camera",
        " frames kept",
        "model",
        "questions",
        "memory of camera camera: ",
    ):
        assert part in done.stdout


def test_status_with_json_prints_one_object(with_images):
    done = run_forked("status", "--namespace", with_images.namespace, "--json")
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed["statistics"]["camera"]["unique_frames"] >= 4
    assert {status["name"].split(": ")[1] for status in printed["diagnostics"]} >= {"lifecycle", "model", "questions"}


def test_status_has_statistics_of_every_camera(start):
    # given
    _, client = start(cameras="[front, rear]")
    client.wait_until_ready()
    # when
    printed = run_forked("status", "--namespace", client.namespace).stdout
    statistics = json.loads(run_forked("status", "--namespace", client.namespace, "--json").stdout)["statistics"]
    # then
    assert printed.index("memory of camera front: total_frames_added 0") < printed.index("memory of camera rear: ")
    assert list(statistics) == ["front", "rear"]
    assert [one["camera"] for one in statistics.values()] == ["front", "rear"]


def test_status_of_a_node_that_is_not_configured(start):
    _, client = start(autostart="false")
    client.wait_for_status("lifecycle")
    done = run_forked("status", "--namespace", client.namespace, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["statistics"] == {}


@pytest.mark.parametrize(("words", "seconds"), [(("ask", "Who?", "--timeout", "1"), 1), (("status",), 10)])
def test_missing_node_prints_one_sentence_with_the_remedy(status_of_nowhere, words, seconds):
    done = status_of_nowhere.wait() if words == ("status",) else run_forked(*words, "--namespace", "/nowhere")
    assert done.returncode == 1
    assert "/nowhere" in done.stderr or "nowhere/scene_memory" in done.stderr
    assert f"within {seconds} s in ROS domain" in done.stderr
    assert "ROS_DOMAIN_ID" in done.stderr
    assert "Traceback" not in done.stderr


def test_invalid_namespace_is_rejected(ros):
    done = run_forked("status", "--namespace", "/robot one")
    assert done.returncode == 1
    assert "'/robot one'" in done.stderr
    assert "Traceback" not in done.stderr
