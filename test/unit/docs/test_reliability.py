"""Short versions of what ``make soak`` runs: they complete, and their counts are consistent."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def run(name, *options):
    command = [sys.executable, "-m", "lab", "bench", name, "--json", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.timeout(700)
def test_short_soak_answers_marks_and_writes_after_every_question():
    found = run("soak", "--frames", "500", "--ask-every", "20")
    assert (found["frames"], found["questions"]) == (500, 25)
    assert found["files_written"] == 25
    assert found["frames_reused"] > 0
    assert found["marks"] > 10
    low, high = found["slope_interval_mb_per_day"]
    assert low <= found["slope_mb_per_day"] <= high


@pytest.mark.ros
@pytest.mark.timeout(700)
def test_short_load_drops_no_image_and_fails_no_question():
    pytest.importorskip("rclpy", reason="ROS 2 is not installed")
    found = run("load", "--seconds", "3")
    assert found["questions_failed"] == 0
    assert 0 < found["received"] <= found["published"]  # test/ros/test_load.py shows that all arrive, given time
    assert found["dropped"] == 0
    assert found["largest_gap_between_sampled_sec"] > 0.0
    for spread in (found["published_to_callback_ms"], found["callback_ms"], found["question_ms"]):
        assert 0 < spread["p50"] <= spread["p99"] <= spread["max"]


@pytest.mark.ros
@pytest.mark.timeout(700)
def test_short_outage_loses_no_image_and_every_question_ends():
    pytest.importorskip("rclpy", reason="ROS 2 is not installed")
    found = run("outage", "--robots", "1", "--seconds", "10", "--pause", "0.1")
    assert found["nodes_died"] == 0
    assert found["answered"] > 3
    assert sum(found["errors"].values()) == found["questions"] - found["answered"] > 0
    assert all(error.startswith("MODEL_NOT_READY: cannot reach the model server") for error in found["errors"])
    for mistake in ("without_response", "without_sentence", "later_than_deadline", "images_dropped"):
        assert found[mistake] == 0, mistake
    assert found["images_received"] == found["images_published"] > 30
    assert [outage["robots_with_an_answer_after_it"] for outage in found["outages"]] == [1, 1]
