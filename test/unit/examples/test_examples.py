"""The examples that need no ROS, as a user runs them, and the list of all examples."""

import re
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
from chat_server import MODEL, ChatServer
from hidden_packages import hide
from recorded_bag import regular_stamps, write_bag

from delayed_vlm_ros.scenes import render
from delayed_vlm_ros.scenes.story import story_scene

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Twelve seconds of the demo's room."""
    file = tmp_path_factory.mktemp("video") / "room.avi"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"MJPG"), 5.0, (160, 112))
    for number in range(60):
        writer.write(cv2.cvtColor(render(story_scene(), number / 5, 112, 160), cv2.COLOR_RGB2BGR))
    writer.release()
    return file


def run_example(name, *arguments, environment=None):
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=150, check=False)


@pytest.mark.heavy
def test_video_is_asked_twice_and_encoded_once(video):
    # when
    done = run_example("ask_video.py", video, "What is on the left?", "--model", "demo")
    # then
    assert done.returncode == 0, done.stderr
    assert "warning: demo model, synthetic scenes only" in done.stdout
    assert "\nQ: What is on the left?\nA: " in done.stdout
    encoded = re.findall(r"(\d+) frames encoded, (\d+) reused", done.stdout)
    assert encoded[0][1] == "0"
    assert encoded[1] == ("0", encoded[0][0])


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["ask_video.py", "show_kept.py"])
def test_missing_file_is_one_line(name, tmp_path):
    done = run_example(name, tmp_path / "none.mp4", "x")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.heavy
def test_server_receives_frames_once(video):
    # given
    server = ChatServer()
    try:
        # when
        done = run_example("ask_server.py", f"openai:{server.url}#{MODEL}", video, "What is it?")
    finally:
        server.close()
    # then
    assert done.returncode == 0, done.stderr
    first, second = map(int, re.findall(r"(\d+) bytes sent", done.stdout))
    assert first > 10 * second > 0


@pytest.mark.heavy
def test_kept_frames_of_a_bag_are_drawn_without_ros_and_torch(tmp_path):
    # given
    bag = write_bag(tmp_path / "drive", regular_stamps(100))
    # when
    environment = hide(tmp_path / "hidden", "rclpy", "torch", "transformers")
    done = run_example("show_kept.py", bag, tmp_path / "kept.png", environment=environment)
    # then
    assert done.returncode == 0, done.stderr
    pairs = int(re.match(r"(\d+) pairs of frames, 0 images skipped", done.stdout)[1])
    assert 2 <= pairs <= 20
    assert cv2.imread(str(tmp_path / "kept.png")).shape[2] == 3


def test_every_example_is_listed_with_its_own_command():
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    programs = sorted(file.name for file in EXAMPLES.iterdir() if file.suffix in (".ipynb", ".py", ".xml"))
    assert sorted(set(re.findall(r"^\| \[\w+\.\w+\]\((\w+\.\w+)\)", listed, re.MULTILINE))) == programs
    for name in programs:
        if name.endswith(".py"):
            assert f"`python3 examples/{name} " in listed
            assert f"python3 examples/{name} " in (EXAMPLES / name).read_text(encoding="utf-8"), "its docstring"
