"""README.md and docs/architecture.md match the code."""

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
from chat_server import ChatServer
from hidden_packages import hide

from delayed_vlm_ros.scenes import render
from delayed_vlm_ros.scenes.story import story_scene

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "delayed_vlm_ros"


def test_figures_of_the_readme_are_those_of_the_results():
    file = ROOT / "docs" / "scripts" / "make_readme.py"
    spec = importlib.util.spec_from_file_location(file.stem, file)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.PAGE.read_text(encoding="utf-8") == script.page(), f"run .venv/bin/python {file.relative_to(ROOT)}"


def test_paths_in_the_architecture_page_exist():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    known = [path.relative_to(ROOT) for path in (*ROOT.glob("*.*"), *PACKAGE.rglob("*.py"))]
    # A sentence that has named a folder names files relative to it, such as `cache/encoding.py`.
    named = re.findall(r"`([a-z_0-9/]+\.(?:py|txt|toml))`", text)
    missing = [name for name in named if not any(f"/{path}".endswith(f"/{name}") for path in known)]
    assert named
    assert not missing


def test_folders_in_the_architecture_page_are_those_of_the_package():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = [line for line in text.splitlines() if line.startswith("| `")]
    named = {name for line in table for name in re.findall(r"`([a-z]+)/`", line.split("|")[1])}
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert named == folders | {"lab"}


@pytest.mark.heavy
@pytest.mark.parametrize("page", ["README.md", "README.zh-CN.md"])
def test_command_with_a_model_server_answers_without_torch_and_ros(page, tmp_path):
    # given
    writer = cv2.VideoWriter(str(tmp_path / "room.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 5.0, (160, 112))
    for number in range(60):
        writer.write(cv2.cvtColor(render(story_scene(), number / 5, 112, 160), cv2.COLOR_RGB2BGR))
    writer.release()
    (command,) = re.findall(r"^light/bin/delayed-vlm (.+)$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    server = ChatServer()
    arguments = shlex.split(command.replace("http://server:8000/v1", server.url))
    # when
    try:
        done = subprocess.run(
            [sys.executable, "-m", "delayed_vlm_ros", *arguments],
            cwd=tmp_path,
            env=hide(tmp_path / "hidden", "torch", "transformers", "rclpy"),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        server.close()
    # then
    assert done.returncode == 0, done.stdout + done.stderr
    assert "What is on the table?" in done.stdout
