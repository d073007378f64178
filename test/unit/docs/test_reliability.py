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
