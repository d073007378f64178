"""Evaluation with a model on a server: what is left out, what an outage does, and no torch."""

import json
import os
import subprocess
import sys
from contextlib import closing
from functools import partial

import cv2
import numpy as np
import pytest
from chat_server import MODEL, ChatServer, Fault
from command_line import run_here
from hidden_packages import hide

pytest.importorskip("openai", reason="the extra 'remote' is not installed")
pytest.importorskip("rosbags", reason="the extra 'evaluation' is not installed")
pytest.importorskip("sacrebleu", reason="the extra 'evaluation' is not installed")

from delayed_vlm_ros.replay import server_model
from delayed_vlm_ros.replay.job import Evaluator, ReplayJob, finished_result
from delayed_vlm_ros.replay.question_file import TimedQuestion
from delayed_vlm_ros.replay.runner import ReplaySettings

QUESTIONS = (TimedQuestion("What is red?", 1.0, ("a red box",)), TimedQuestion("What is next?", 3.0, ("a red box",)))
QUESTION_FILE = """
- ask: What is red?
  at: 2
  expect: a red box
- watch: is there a person?
  name: person
  last_sec: 2
"""


@pytest.fixture
def server():
    started = ChatServer()
    yield started
    started.close()


@pytest.fixture
def images(tmp_path):
    """A folder with five seconds of images."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(10):
        shades = np.random.default_rng(number).integers(0, 256, (4, 4, 3), np.uint8)
        image = shades.repeat(32, axis=0).repeat(32, axis=1)
        cv2.imwrite(str(folder / f"{1_700_000_000 + number / 2:.1f}.png"), image)
    return folder


@pytest.fixture
def evaluator():
    with closing(Evaluator()) as opened:
        yield opened


@pytest.fixture
def job(images, server, tmp_path):
    settings = ReplaySettings(model=address(server))
    return ReplayJob(str(images), str(tmp_path / "out"), QUESTIONS, settings)


def address(server):
    return f"openai:http://127.0.0.1:{server.port}/v1#{MODEL}"


def answers(result):
    return [one["answers"]["delayed"] for one in result["questions"]]


def test_command_names_server_encoding_bytes_and_what_is_left_out(images, server, tmp_path):
    (images / "questions.yaml").write_text(QUESTION_FILE)
    done = run_here("replay", "images", "--model", address(server), cwd=tmp_path, columns=250)
    assert done.returncode == 0, done.stdout + done.stderr
    left_out = "left out, because the model is on a server: delayed_uncached, native_kept, native_all, newest_4"
    assert done.stdout.count(left_out) == 1
    assert "MB sent" in done.stdout
    result = json.loads((tmp_path / "replay" / "images" / "result.json").read_text())
    assert result["complete"], result["warnings"]
    (asked,) = answers(result)
    assert (asked["answer"], asked["exact"], asked["scores"]["exact_match"]) == ("a red box", False, True)
    assert asked["bytes_sent"] == result["summary"]["delayed"]["bytes_sent"] > 1000
    assert [one for one in asked["warnings"] if one.startswith("remote engine")]
    assert result["settings"]["methods"] == "delayed"
    assert left_out in result["warnings"]
    environment = result["environment"]
    assert environment["model server"] == f"vLLM 0.33.0 at 127.0.0.1:{server.port}"
    assert (environment["encoding"], environment["exact"]) == ("timed_images", "false")
    assert result["watch_summary"]["checks"] > 0 == len(result["watch_summary"]["failures"])
    page = (tmp_path / "replay" / "report.html").read_text()
    assert environment["model server"] in page
    assert "bytes sent" in page


def test_methods_without_delayed_are_refused(images, server, tmp_path):
    (images / "questions.yaml").write_text(QUESTION_FILE)
    done = run_here("replay", "images", "--model", address(server), "--methods", "native_all", cwd=tmp_path)
    assert done.returncode == 2
    assert "must include delayed" in done.stderr
    assert not (tmp_path / "replay").exists()


def test_outage_is_a_missing_answer_and_the_recording_is_evaluated_again(job, server, evaluator, monkeypatch):
    monkeypatch.setattr(server_model, "_PAUSES_SEC", ())

    def kill_after_first_question(progress):
        if progress.asked:
            server.kill()

    result = evaluator.run(job, kill_after_first_question)
    first, second = answers(result)
    assert (result["complete"], first["answer"], second["answer"]) == (False, "a red box", "")
    assert "cannot reach the model server" in second["error"]
    assert second["scores"] is None
    assert finished_result(job) is None
    # when the server is back
    server.start()
    again = evaluator.run(job)
    # then
    assert again["complete"], again["warnings"]
    assert [one["answer"] for one in answers(again)] == ["a red box", "a red box"]
    assert finished_result(job) is not None


def test_server_that_is_away_at_the_start_fails_the_recording(job, server, evaluator):
    server.kill()
    result = evaluator.run(job)
    assert (result["complete"], "questions" in result) == (False, False)
    assert "cannot reach the model server" in result["error"]
    assert finished_result(job) is None


@pytest.mark.parametrize("fault", [Fault.UNAVAILABLE, Fault.TOO_MANY_REQUESTS])
def test_short_outage_is_waited_for(job, server, evaluator, monkeypatch, fault):
    monkeypatch.setattr(server_model, "_PAUSES_SEC", (0.01, 0.01))
    asked = []

    def fail_after_first_question(progress):
        if progress.asked and not asked:
            asked.append(1)
            server.plan(fault, fault)

    result = evaluator.run(job, fail_after_first_question)
    assert result["complete"], result["warnings"]
    assert [one["answer"] for one in answers(result)] == ["a red box", "a red box"]


def test_server_without_probabilities_makes_watches_incomplete(images, server, tmp_path):
    server.always(Fault.NO_LOGPROBS)
    (images / "questions.yaml").write_text(QUESTION_FILE)
    done = run_here("replay", "images", "--model", address(server), cwd=tmp_path, columns=250)
    assert done.returncode == 1
    result = json.loads((tmp_path / "replay" / "images" / "result.json").read_text())
    (reason,) = result["watch_summary"]["failures"]
    assert "probabilities" in reason
    assert result["watches"][0]["alerts"] == []


def test_evaluation_needs_neither_torch_nor_transformers(images, server, tmp_path):
    (images / "questions.yaml").write_text(QUESTION_FILE)
    run = partial(subprocess.run, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    command = [sys.executable, "-m", "delayed_vlm_ros.cli.main", "replay", "images", "--model", address(server)]
    done = run(command, env={**os.environ, **hide(tmp_path / "site", "torch", "transformers")})
    assert (done.returncode, "Task" in done.stderr) == (0, False), done.stdout + done.stderr
    assert json.loads((tmp_path / "replay" / "images" / "result.json").read_text())["complete"]
