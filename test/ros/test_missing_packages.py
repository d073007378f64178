"""Models that cannot be loaded and packages that are not installed are reported with the remedy."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from command_line import run_here
from delayed_vlm_ros.srv import AskScene
from hidden_packages import ROOT, hide
from preloaded import preloaded, run_without
from waiting import PATIENCE_SEC, wait_until

DEMO_MODEL = ROOT / "delayed_vlm_ros" / "demo" / "tiny_scene"
ERROR = b"\x02"


def wait_for_load_failure(process, client, named):
    """Wait for the error in log and diagnostics, before any question."""

    def logged():
        return [line for line in process.log.splitlines() if "[ERROR]" in line and "cannot load model" in line]

    (line,) = wait_until(logged, lambda: f"an error in the log: {process.log}")
    status = client.wait_for_status("model", lambda status: status.level == ERROR)
    for text in named:
        assert text in line
        assert text in status.message
    assert "Traceback" not in process.log
    client.wait_until_active()
    client.show_images(2)
    response = client.ask()
    assert response.error_code == AskScene.Response.MODEL_NOT_READY
    assert all(text in response.error_msg for text in named)
    assert process.alive


def test_truncated_weights_are_logged_before_a_question(start, tmp_path):
    folder = tmp_path / "truncated"
    shutil.copytree(DEMO_MODEL, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    process, client = start(fake=False, model__name=str(folder), memory__sample_fps=50.0)
    wait_for_load_failure(process, client, (str(folder),))


def test_cuda_without_a_cuda_device_is_logged_before_a_question(start):
    process, client = start(
        fake=False, model__device="cuda", memory__sample_fps=50.0, environment={"CUDA_VISIBLE_DEVICES": ""}
    )
    wait_for_load_failure(process, client, ("'cuda'",))


def test_missing_torch_is_logged_and_not_reported_as_a_missing_device(start, tmp_path):
    process, client = start(
        fake=False, model__name="auto", memory__sample_fps=50.0, environment=hide(tmp_path / "hidden", "torch")
    )
    wait_for_load_failure(process, client, ("torch is not installed in this Python", sys.executable, "'.[vlm]'"))
    assert "there is no CUDA device" not in process.log


# --- programs -------------------------------------------------------------------------------------------------------


def run(environment, *command):
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd="/",
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SEC,
        check=False,
    )


def check_error(result, *named):
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert all(text in result.stderr for text in named), result.stderr


@pytest.mark.parametrize(
    ("script", "package"),
    [
        ("delayed-vlm", "typer"),
        ("delayed-vlm", "rich"),
        ("scene_memory", "rclpy"),
        ("scene_memory", "cv2"),
        ("bag_camera", "numpy"),
        ("demo_camera", "rclpy"),
        ("video_camera", "cv2"),
        ("web_dashboard", "rclpy"),
    ],
)
def test_program_without_a_required_package_reports_it(tmp_path, script, package):
    result = run(hide(tmp_path / "hidden", package), ROOT / "scripts" / script)
    check_error(result, f"{package} is not installed in this Python ({sys.executable})")


def test_module_without_typer_reports_it(tmp_path):
    result = run(hide(tmp_path / "hidden", "typer"), "-m", "delayed_vlm_ros", "--help")
    check_error(result, "typer is not installed", "pip install .")


@pytest.mark.parametrize("package", ["nicegui", "uvicorn"])
def test_page_without_its_extra_reports_it(ros, tmp_path, package):
    environment = hide(tmp_path / "hidden", package)
    for command in (
        (ROOT / "scripts" / "web_dashboard", "--ros-args", "-p", "port:=0"),
        (ROOT / "scripts" / "delayed-vlm", "web", "--port", "0"),
    ):
        check_error(run(environment, *command), f"{package} is not installed", "'.[web]'")


def test_command_without_torch_reports_it(tmp_path):
    environment = hide(tmp_path / "hidden", "torch")
    command = ROOT / "scripts" / "delayed-vlm"
    result = run(environment, command, "basic", "--video", make_video(tmp_path), "--model", "demo")
    check_error(result, "torch is not installed", "'.[vlm]'")
    check_error(run(environment, command, "bench", "ask"), "torch is not installed", "'.[vlm]'")


def test_command_without_ros_reports_it(tmp_path):
    result = run(hide(tmp_path / "hidden", "rclpy"), ROOT / "scripts" / "delayed-vlm", "status")
    check_error(result, "rclpy is not installed", "source your ROS workspace")


@pytest.fixture(scope="module")
def with_torch():
    with preloaded("delayed_vlm_ros.inference.local.engine") as context:
        yield context


@pytest.mark.parametrize("package", ["jinja2", "matplotlib", "sacrebleu", "ray"])
def test_replay_without_a_package_reports_it_before_it_starts(with_torch, tmp_path, package):
    video, questions, out = make_video(tmp_path), tmp_path / "questions.yaml", tmp_path / "out"
    assert run_here("replay", "--make-questions", "--questions", questions, cwd=tmp_path).returncode == 0
    on_ray = ("--ray", "local") if package == "ray" else ()
    result = run_without(with_torch, package, "replay", video, "--questions", questions, "--out", out, *on_ray)
    check_error(result, f"{package} is not installed", "'.[ray]'" if package == "ray" else "'.[evaluation]'")
    assert not any(tmp_path.glob("out/*"))


def test_bag_camera_without_rosbags_reports_it(ros, tmp_path):
    bag = tmp_path / "bag"
    bag.mkdir()
    (bag / "metadata.yaml").touch()
    environment = hide(tmp_path / "hidden", "rosbags")
    result = run(environment, ROOT / "scripts" / "bag_camera", "--ros-args", "-p", f"bag:={bag}")
    check_error(result, "rosbags is not installed", "'.[evaluation]'")


def make_video(folder: Path) -> Path:
    file = folder / "video.avi"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (160, 120))
    for shade in range(60):
        writer.write(np.full((120, 160, 3), shade * 4, np.uint8))
    writer.release()
    return file
