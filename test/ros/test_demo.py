"""The demo, as `make demo` runs it, and on a recording."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from delayed_vlm_ros.scenes.story import STORY_QUESTIONS

VIDEOS = Path(__file__).parents[3] / "shared" / "videos"


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "delayed_vlm_ros.cli.main", "demo", "--model", "demo", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)


def small_video(folder: Path) -> Path:
    file = folder / "bar.avi"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (160, 120))
    for index in range(30):
        image = np.full((120, 160, 3), 60, np.uint8)
        image[:, index * 5 : index * 5 + 10] = (20, 20, 220)
        writer.write(image)
    writer.release()
    return file


def test_the_demo_answers_questions_about_its_story_through_ros_and_ends_in_order():
    # when
    done = demo()
    # then
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    asked = [line[3:] for line in lines if line.startswith("Q: ")]
    answered = [line[3:] for line in lines if line.startswith("A: ")]
    assert asked == [one.text for one in STORY_QUESTIONS]
    right = [answer == one.answer for answer, one in zip(answered, STORY_QUESTIONS, strict=True)]
    assert [line.strip() == "right" for line in lines if line.strip().startswith(("right", "wrong"))] == right
    assert right == [True] * 6
    assert sum("frames encoded" in line for line in lines) == len(STORY_QUESTIONS)
    assert any("/diagnostics" in line for line in lines)
    assert "synthetic scenes only" in done.stdout
    assert lines[-1] == "nodes ended: demo_camera 0, scene_memory 0"


def test_the_demo_on_a_recording_gives_scripts_one_json_object(tmp_path):
    # given a short video, which must be played in a loop to fill the memory
    video = VIDEOS / "bikes.mp4" if VIDEOS.is_dir() else small_video(tmp_path)
    # when
    done = demo("--video", str(video), "--frames", "4", "--json", "-q", "What moves?")
    # then
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    (ask,) = printed["asks"]
    assert ask["question"] == "What moves?"
    assert ask["answer"]
    assert ask["metrics"]["frames_encoded"] >= 4
    assert printed["exit_codes"] == {"scene_memory": 0, "video_camera": 0}
    assert printed["statistics"]["asks_served"] == 1
    assert all(status["level"] < 2 for status in printed["diagnostics"]), printed["diagnostics"]


@pytest.mark.parametrize("name", ["nothing.mp4", "/dev/video77"])
def test_a_video_that_cannot_be_played_ends_the_demo_with_its_reason(name):
    # when
    done = demo("--video", name)
    # then
    assert done.returncode == 1
    words = " ".join(done.stderr.split())
    assert name in words
    assert "Traceback" not in words
