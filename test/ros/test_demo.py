"""The demo with the synthetic camera, as in `make demo`, and with a video."""

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


def test_demo_answers_the_story_questions_through_ros_and_shuts_down_cleanly():
    # when
    done = demo("-v")
    # then
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    questions = [line[3:] for line in lines if line.startswith("Q: ")]
    answers = [line[3:] for line in lines if line.startswith("A: ")]
    assert questions == [one.text for one in STORY_QUESTIONS]
    verdicts = [line.strip() for line in lines if line.strip().startswith(("correct", "wrong"))]
    assert answers == [one.answer for one in STORY_QUESTIONS]
    assert verdicts == ["correct"] * 6
    assert sum("frames encoded" in line for line in lines) == len(STORY_QUESTIONS)
    assert any("/diagnostics" in line for line in lines)
    warnings = [number for number, line in enumerate(lines) if "synthetic scenes only" in line and "warning:" in line]
    assert len(warnings) == 1
    assert warnings[0] < next(number for number, line in enumerate(lines) if line.startswith("A: "))
    assert lines[-1] == "nodes ended: demo_camera 0, scene_memory 0"


def test_demo_with_a_video_prints_one_json_object(tmp_path):
    # given a short video that fills the memory only when played in a loop
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
    assert printed["node_statistics"]["questions_answered"] == 1
    assert all(status["level"] < 2 for status in printed["diagnostics"]), printed["diagnostics"]


@pytest.mark.parametrize("name", ["nothing.mp4", "/dev/video77"])
def test_demo_with_an_unusable_video_prints_an_error_that_names_it(name):
    # when
    done = demo("--video", name)
    # then
    assert done.returncode == 1
    assert name in done.stderr
    assert "Traceback" not in done.stderr
