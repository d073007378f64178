"""Initialisation of rclpy: invalid arguments and parameter files, and a machine without a writable home folder."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from delayed_vlm_ros.errors import ConfigurationError
from delayed_vlm_ros.ros.initialisation import initialise, log_folder_error


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/**:\n  ros__parameters:\n    cameras: [front, 7]\n", "put texts in quotes"),
        ("/**:\n  ros__parameters:\n    mode:\n", 'give the parameter a value, "" for an empty text'),
        ("/**:\n  memory:\n    size: 5\n", "begin the file with the lines '/**:'"),
        ("memory: 5\n", "begin the file with the lines '/**:'"),
        ("/**:\n  ros__parameters:\n\tmode: x\n", "not YAML near that line"),
    ],
)
def test_file_that_ros_cannot_parse_is_an_error_with_a_remedy(tmp_path, text, expected):
    path = tmp_path / "my.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        initialise(["--ros-args", "--params-file", str(path)])
    assert "my.yaml" in str(caught.value)
    assert expected in str(caught.value)


def test_node_whose_file_ros_cannot_parse_ends_with_code_1_and_a_remedy(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text("/**:\n  ros__parameters:\n    mode:\n", encoding="utf-8")
    command = [sys.executable, "-m", "delayed_vlm_ros.ros.scene_memory.node", "--ros-args", "--params-file", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    (line,) = [one for one in (done.stdout + done.stderr).splitlines() if "[rcl]" not in one]
    assert done.returncode == 1
    assert line.startswith("cannot start: ")
    assert "my.yaml" in line
    assert 'give the parameter a value, "" for an empty text' in line


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--params-file", "/no/such.yaml"], "check the path"),
        (["-p", "a"], "'-p a'"),
        (["--paramsfile", "x"], "--paramsfile"),
    ],
)
def test_invalid_ros_argument_is_named(arguments, named):
    with pytest.raises(ConfigurationError, match="invalid ROS arguments") as caught:
        initialise(["--ros-args", *arguments])
    assert named in str(caught.value)


def test_log_folder_is_created(tmp_path):
    assert log_folder_error({"HOME": str(tmp_path)}) == ""
    assert (tmp_path / ".ros" / "log").is_dir()
    assert log_folder_error({"ROS_HOME": str(tmp_path / "ros")}) == ""
    assert (tmp_path / "ros" / "log").is_dir()
    assert log_folder_error({"HOME": "/proc/none", "ROS_LOG_DIR": str(tmp_path / "logs")}) == ""
    assert (tmp_path / "logs").is_dir()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "HOME is not set"),
        ({"HOME": ""}, "HOME is not set"),
        ({"HOME": "/proc/none"}, "cannot create /proc/none/.ros/log"),
        ({"HOME": "/tmp", "ROS_LOG_DIR": "/dev/null/log"}, "cannot create /dev/null/log"),
    ],
)
def test_log_folder_that_cannot_be_written_is_named(environment, expected):
    assert log_folder_error(environment).startswith(expected)


START_NODE = """
import rclpy
from delayed_vlm_ros.ros.initialisation import initialise
initialise()
rclpy.create_node("started")
"""


@pytest.mark.parametrize("home", [None, "/proc/none"])
def test_node_starts_without_a_writable_home_folder(home):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HOME", "ROS_", "XDG_"))}
    if home is not None:
        environment |= {"HOME": home}
    start = (
        "from delayed_vlm_ros.ros.initialisation import initialise; import rclpy; initialise(); rclpy.create_node('a')"
    )
    done = subprocess.run([sys.executable, "-c", start], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("no log file: ")
    assert "set ROS_LOG_DIR" in done.stderr
