"""``delayed-vlm ask`` and ``delayed-vlm status`` against a running node, as their user runs them."""

import json
import os
import subprocess
import sys

import pytest
from harness import ROOT


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "delayed_vlm_ros.cli", *arguments],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_ask_prints_the_answer(with_pictures):
    done = command("ask", "What is [bold]there[/]?", "--namespace", with_pictures.namespace, "--last", "60")
    assert done.returncode == 0, done.stderr
    assert "Q: What is [bold]there[/]?" in done.stdout
    assert "\nA: " in done.stdout


def test_ask_for_scripts(with_pictures):
    done = command("ask", "What is there?", "--namespace", with_pictures.namespace, "--json")
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed["success"]
    assert printed["answer"]
    assert len(printed["frames_used"]) >= 2


def test_refused_ask_is_one_sentence_and_an_exit_code(with_pictures):
    done = command("ask", "What is there?", "--namespace", with_pictures.namespace, "--camera", "attic")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "attic" in done.stderr
    assert "Traceback" not in done.stderr


def test_status_shows_what_the_node_says(with_pictures):
    done = command("status", "--namespace", with_pictures.namespace)
    assert done.returncode == 0, done.stderr
    for part in ("lifecycle: active", "camera camera", " frames kept", "model", "asks", "memory of camera camera: "):
        assert part in done.stdout


def test_status_for_scripts(with_pictures):
    done = command("status", "--namespace", with_pictures.namespace, "--json")
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed["statistics"]["camera"]["unique_frames"] >= 4
    assert {status["name"].split(": ")[1] for status in printed["diagnostics"]} >= {"lifecycle", "model", "asks"}


def test_status_tells_of_every_camera_by_its_name(start):
    # given
    _, client = start(cameras="[front, rear]")
    client.wait_until_ready()
    # when
    printed = command("status", "--namespace", client.namespace).stdout
    statistics = json.loads(command("status", "--namespace", client.namespace, "--json").stdout)["statistics"]
    # then
    assert printed.index("memory of camera front: total_frames_added 0") < printed.index("memory of camera rear: ")
    assert list(statistics) == ["front", "rear"]
    assert [one["camera"] for one in statistics.values()] == ["front", "rear"]


def test_status_of_a_node_that_is_not_configured(start):
    _, client = start(autostart="false")
    client.wait_for_status("lifecycle")
    done = command("status", "--namespace", client.namespace, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["statistics"] == {}


@pytest.mark.parametrize("words", [("ask", "Who?"), ("status",)])
def test_no_node_is_one_sentence_with_what_to_look_at(ros, words):
    done = command(*words, "--namespace", "/nowhere")
    assert done.returncode == 1
    assert "/nowhere" in done.stderr or "nowhere/scene_memory" in done.stderr
    assert "is scene_memory running in ROS domain" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_senseless_namespace_is_refused(ros):
    done = command("status", "--namespace", "/robot one")
    assert done.returncode == 1
    assert "'/robot one' is no namespace" in done.stderr
