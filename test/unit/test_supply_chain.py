"""Pinned packages, and the privileges of unit and container."""

import importlib.metadata
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import setuptools
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
# The extras that each file installs; None: all.
FILES = {"tools/constraints.txt": None, "tools/constraints-jazzy.txt": None, "docker/constraints.txt": ["vlm"]}
NOT_PINNED = {"pip"}  # comes with Python
NOT_INSTALLED = {"docs", "scenes"}  # extras that tools/setup leaves out


def pins(name):
    """Return the versions that a file pins for this Python, by canonical name."""
    lines = (ROOT / name).read_text("utf-8").splitlines()
    found = [Requirement(line.rstrip(" \\")) for line in lines if re.match(r"\w", line)]
    return {
        canonicalize_name(one.name): str(one.specifier).removeprefix("==")
        for one in found
        if one.marker is None or one.marker.evaluate()
    }


def requirements(monkeypatch, extras):
    """Return the requirements of setup.py with some extras; None: those that tools/setup installs."""
    given = {}
    monkeypatch.setattr(setuptools, "setup", given.update)
    monkeypatch.chdir(ROOT)
    runpy.run_path(str(ROOT / "setup.py"))
    by_extra = given["extras_require"]
    chosen = set(by_extra) - NOT_INSTALLED if extras is None else extras
    return [Requirement(line) for extra in chosen for line in by_extra[extra]] + [
        Requirement(line) for line in given["install_requires"]
    ]


@pytest.mark.skipif(
    "include-system-site-packages = true" in Path(sys.prefix, "pyvenv.cfg").read_text("utf-8"),
    reason="on a sourced ROS 2, its own versions are used",
)
def test_every_package_that_pip_installed_is_pinned_to_its_version():
    # The ROS wheels hold more distributions, without an INSTALLER; those are pinned with their wheel.
    installed = {
        canonicalize_name(one.metadata["Name"]): one.version
        for one in importlib.metadata.distributions(path=[sysconfig.get_paths()["purelib"]])
        if one.read_text("INSTALLER")
    }
    installed.pop("delayed-vlm-ros", None)
    pinned = pins("tools/constraints.txt")
    assert len(installed) > 100
    assert {name: version for name, version in installed.items() if pinned.get(name) != version}.keys() <= NOT_PINNED


@pytest.mark.parametrize(("name", "extras"), FILES.items())
def test_every_requirement_of_setup_py_is_pinned_and_fits(monkeypatch, name, extras):
    pinned = pins(name)
    for requirement in requirements(monkeypatch, extras):
        version = pinned.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement} is not in {name}: run tools/lock"
        assert version in requirement.specifier, f"{requirement} does not fit {version} in {name}: run tools/lock"


@pytest.mark.parametrize("name", FILES)
def test_every_pin_has_a_hash_and_no_file_names_a_registry(name):
    text = (ROOT / name).read_text("utf-8")
    for entry in re.split(r"\n(?=\w)", text)[1:]:
        assert re.match(r"[\w.\[\]-]+==\S+( ; [^\\]+)? \\\n    --hash=sha256:[0-9a-f]{64}", entry), entry[:80]
    assert "://" not in text


def test_docker_and_set_up_install_what_is_pinned():
    assert '--require-hashes --requirement "$PINS"' in (ROOT / "tools/setup").read_text("utf-8")
    dockerfile = (ROOT / "docker/Dockerfile").read_text("utf-8")
    assert "--require-hashes --requirement src/delayed_vlm_ros/docker/constraints.txt" in dockerfile
    assert "--no-deps" in dockerfile


def test_jazzy_differs_from_the_default_set_up_in_ros_packages_only():
    default, jazzy = pins("tools/constraints.txt"), pins("tools/constraints-jazzy.txt")
    others = {name: version for name, version in jazzy.items() if not name.startswith("ros-")}
    assert others == {name: version for name, version in default.items() if not name.startswith("ros-")}
    assert {jazzy[name].split(".")[0] for name in ("ros-rclpy", "ros-fastrtps")} == {"7", "2"}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("arguments", [["verify"], ["security", "--offline=yes", "--no-pager", "--threshold=40"]])
def test_unit_is_valid_and_its_exposure_is_at_most_four(arguments):
    done = subprocess.run(
        ["systemd-analyze", *arguments, "systemd/delayed-vlm.service"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-200:] + done.stderr


def test_container_has_no_capabilities_and_a_read_only_system():
    (service,) = yaml.safe_load((ROOT / "docker/compose.yaml").read_text("utf-8"))["services"].values()
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert "privileged" not in service
    assert "\nUSER delayed-vlm\n" in (ROOT / "docker/Dockerfile").read_text("utf-8")
