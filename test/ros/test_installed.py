"""The package as users install it: a wheel in a new environment without ROS, and modules as symlinks."""

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import urllib.request
import venv
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "delayed_vlm_ros"
ASSETS = PACKAGE / "web" / "assets"
NOT_SOURCES = (".*", "build", "install", "log", "docs", "test", "*.egg-info", "__pycache__", "*.pyc")
ROS_MODULES = ("rclpy", "ament_index_python")  # missing without ROS
LOCATE = (
    "import sys; from delayed_vlm_ros.resources import config_file; print(*map(config_file, sys.argv[1:]), sep='\\n')"
)


def files_below(folder: Path) -> set[str]:
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {str(file) for file in files if file.suffix != ".pyc"}


def environment(**changes: str) -> dict[str, str]:
    """Return this process's environment without its Python and ROS paths."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "AMENT_PREFIX_PATH")}
    return {**kept, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **changes}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Build the wheel from a copy outside the repository."""
    pytest.importorskip("setuptools", minversion="70.1", reason="setuptools 70.1 or newer is not installed: make setup")
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, folder / "tree", ignore=shutil.ignore_patterns(*NOT_SOURCES))
    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    command = [sys.executable, "-c", build, str(folder)]
    result = subprocess.run(
        command, cwd=folder / "tree", env=environment(), capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """Install the wheel in a new virtual environment with the other packages of this one, without ROS."""
    folder = tmp_path_factory.mktemp("environment").resolve()
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    result = subprocess.run(pip, env=environment(), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    modules = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    heavy = {str(Path(path)) for path in sys.path if Path(path).name in ("site-packages", "dist-packages")}
    (modules / "heavy.pth").write_text("\n".join(sorted(heavy)), encoding="utf-8")
    for name in ROS_MODULES:
        (modules / f"{name}.py").write_text(f"raise ModuleNotFoundError({name!r}, name={name!r})\n", encoding="utf-8")
    return folder


@pytest.fixture
def linked(tmp_path) -> Path:
    """Return a ``PYTHONPATH`` folder with a link for each file of the package, like a symlinked ROS build."""
    folder = tmp_path / "linked"
    for name in files_below(PACKAGE):
        link = folder / PACKAGE.name / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(PACKAGE / name)
    return folder


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("video") / "noise.avi"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (64, 64))
    generator = np.random.default_rng(3)
    for _ in range(20):
        writer.write(generator.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    writer.release()
    return file


@contextmanager
def served(command: list[str], video: Path, cwd: Path, variables: dict[str, str]) -> Iterator[str]:
    """Run ``web --video`` and yield the address of the page."""
    arguments = ["web", "--video", str(video), "--model", "demo", "--port", "0"]
    with subprocess.Popen(
        [*command, *arguments], cwd=cwd, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            lines = []
            for line in process.stdout:
                lines.append(line)
                if line.startswith("The page is at "):
                    break
            else:
                pytest.fail("".join(lines))
            yield line.split()[-1]
            process.send_signal(signal.SIGINT)
            rest, _ = process.communicate()
            assert process.returncode == 0, rest
        finally:
            process.kill()


def check_assets(link: str) -> None:
    with urllib.request.urlopen(link) as answer:
        page = answer.read().decode()
    for file in ASSETS.iterdir():
        with urllib.request.urlopen(f"{link}assets/{file.name}") as answer:
            assert answer.read() == file.read_bytes()
    assert {"/assets/page.css", "/assets/page.js"} <= set(page.split('"'))


def test_wheel_has_every_file_of_the_package_and_its_configuration(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    modules = {name.partition("/")[2] for name in names if name.startswith("delayed_vlm_ros/")}
    configuration = {name.rpartition("/")[2] for name in names if "/share/delayed_vlm_ros/config/" in name}
    assert modules == files_below(PACKAGE)
    assert configuration == files_below(ROOT / "config")


def test_wheel_finds_its_configuration_in_its_environment(installed, tmp_path):
    names = sorted(files_below(ROOT / "config"))
    command = [str(installed / "bin" / "python"), "-c", LOCATE, *names]
    result = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    folder = installed / "share" / "delayed_vlm_ros" / "config"
    assert result.stdout.splitlines() == [str(folder / name) for name in names]


def test_wheel_serves_the_page_with_its_assets(installed, video, tmp_path):
    pytest.importorskip("nicegui", reason="NiceGUI is not installed: make setup")
    with served([str(installed / "bin" / "delayed-vlm")], video, tmp_path, environment()) as link:
        check_assets(link)


def test_linked_modules_serve_the_page_with_its_assets(linked, video, tmp_path):
    pytest.importorskip("nicegui", reason="NiceGUI is not installed: make setup")
    command = [sys.executable, "-m", "delayed_vlm_ros.cli.main"]
    with served(command, video, tmp_path, environment(PYTHONPATH=str(linked))) as link:
        check_assets(link)
