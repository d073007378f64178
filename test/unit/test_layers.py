"""Imports point one way, and light modules import no heavy packages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "rclpy", "sensor_msgs", "cv_bridge")


def run(*command):
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def lint_imports(config):
    return run(sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()", "--config", config)


def test_imports_point_one_way():
    # when
    done = lint_imports(ROOT / "pyproject.toml")

    # then
    assert done.returncode == 0, done.stdout + done.stderr
    assert ", 0 broken" in done.stdout


def test_import_against_the_layers_is_detected(tmp_path):
    # given a rule that the code violates: inference imports the memory
    config = tmp_path / "reversed.toml"
    config.write_text(
        """
        [tool.importlinter]
        root_package = "delayed_vlm_ros"
        [[tool.importlinter.contracts]]
        name = "reversed layers"
        type = "layers"
        layers = ["delayed_vlm_ros.memory", "delayed_vlm_ros.inference"]
        """
    )

    # when
    done = lint_imports(config)

    # then
    assert done.returncode == 1
    assert "delayed_vlm_ros.inference.local.engine -> delayed_vlm_ros.memory" in done.stdout


@pytest.mark.parametrize(
    "module",
    [
        "",
        ".errors",
        ".memory",
        ".inference",
        ".inference.control",
        ".inference.local.models.checkpoint",
        ".inference.metrics",
        ".inference.request",
        ".inference.worker",
        ".benchmark.random_checkpoint",
        ".scenes.questions",
        ".scenes.story",
    ],
)
def test_module_imports_no_heavy_package(module):
    # given
    script = f"import sys, delayed_vlm_ros{module}; print([name for name in {HEAVY} if name in sys.modules])"

    # when
    done = run(sys.executable, "-c", script)

    # then
    assert done.stdout.strip() == "[]", done.stderr


def test_packages_without_ros_do_not_import_rclpy():
    # given all modules of these packages
    modules = [
        ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for part in ("benchmark", "inference", "replay", "scenes")
        for file in (ROOT / "delayed_vlm_ros" / part).rglob("*.py")
        if file.stem != "__init__"
    ]
    script = f"import sys, {', '.join(modules)}; print([name for name in sys.modules if name.startswith('rclpy')])"

    # when
    done = run(sys.executable, "-c", script)

    # then
    assert len(modules) > 10
    assert done.stdout.strip() == "[]", done.stderr
