"""Error messages for missing and broken packages."""

import os
import re
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import setuptools
from packaging.requirements import Requirement

from delayed_vlm_ros.dependencies import _ROS, _SOURCES, dependency_error, explained_imports, is_installed, run_program
from delayed_vlm_ros.doctor.environment import _MODULES
from delayed_vlm_ros.errors import DependencyError

ROOT = Path(__file__).resolve().parents[2]
DEVELOPERS = {"docs", "test", "lint"}


@pytest.fixture
def importable(tmp_path, monkeypatch):
    """Return a function that writes an importable module, which hides an installed one of the same name."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name, text):
        for loaded in [one for one in sys.modules if one.partition(".")[0] == name]:
            monkeypatch.delitem(sys.modules, loaded)
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")

    return write


def import_error(name):
    """Import a module that fails; return the explained error."""
    with pytest.raises(ImportError) as caught:
        __import__(name)
    return dependency_error(caught.value)


@pytest.mark.parametrize(
    ("package", "remedy"),
    [
        ("torch", "'.[vlm]'"),
        ("nicegui", "'.[web]'"),
        ("uvicorn", "'.[web]'"),
        ("jinja2", "'.[evaluation]'"),
        ("matplotlib", "'.[evaluation]'"),
        ("rosbags", "'.[evaluation]'"),
        ("sacrebleu", "'.[evaluation]'"),
        ("ray", "'.[ray]'"),
        ("mcp", "'.[mcp]'"),
        ("scenedetect", "'.[scenes]'"),
        ("typer", "pip install ."),
        ("rclpy", "source your ROS workspace"),
    ],
)
def test_missing_package_is_reported_with_python_and_remedy(monkeypatch, package, remedy):
    monkeypatch.setitem(sys.modules, package, None)
    explained = str(import_error(package))
    assert f"{package} is not installed in this Python ({sys.executable})" in explained
    assert remedy in explained


@pytest.fixture
def declared(monkeypatch):
    """Import names of the packages that setup.py declares, by extra; empty for the package itself."""
    given = {}
    monkeypatch.setattr(setuptools, "setup", given.update)
    monkeypatch.chdir(ROOT)
    runpy.run_path(str(ROOT / "setup.py"))
    extras = {"": given["install_requires"], **given["extras_require"]}
    names = {extra: [Requirement(text).name for text in found] for extra, found in extras.items()}
    return {extra: {_MODULES.get(one, one.replace("-", "_")) for one in found} for extra, found in names.items()}


def test_sources_of_packages_are_those_that_setup_declares(declared):
    required = set().union(*(found for extra, found in declared.items() if extra not in DEVELOPERS))
    known = {name: source for name, source in _SOURCES.items() if source != _ROS}
    assert {name.partition(".")[0] for name in required} <= set(known)
    assert {name for name, source in known.items() if name not in declared[source]} == set()


def test_package_xml_names_the_packages_that_pip_installs(declared):
    comment = "".join(re.findall("<!--(.*?)-->", (ROOT / "package.xml").read_text(encoding="utf-8"), re.DOTALL))
    dependencies = set(re.findall(r"<exec_depend>python3-(\w+)</exec_depend>", (ROOT / "package.xml").read_text()))
    debian = {"cv2": "opencv", "PIL": "pil"}
    by_pip = {name for name in declared[""] if debian.get(name, name) not in dependencies}
    assert {name for name in by_pip if name not in comment} == set()


def test_package_with_a_missing_dependency_is_not_reported_as_missing(importable):
    importable("nicegui", "import no_such_package_for_nicegui")
    explained = str(import_error("nicegui"))
    assert "nicegui is installed" in explained
    assert "no_such_package_for_nicegui" in explained


def test_package_with_a_broken_library_is_reported_with_the_cause(importable):
    importable("torch", "raise OSError('libcudart.so.12: cannot open shared object file')")
    with pytest.raises(DependencyError) as caught, explained_imports():
        __import__("torch")
    assert "torch is installed" in str(caught.value)
    assert "libcudart.so.12" in str(caught.value)


def test_package_without_the_imported_name_is_not_reported_as_missing(importable):
    importable("sacrebleu", "")
    importable("uses_sacrebleu", "from sacrebleu import CHRF")
    explained = str(import_error("uses_sacrebleu"))
    assert "sacrebleu is installed" in explained
    assert "CHRF" in explained


@pytest.mark.parametrize("name", ["no_such_package", "delayed_vlm_ros.no_such_module"])
def test_error_of_an_unknown_package_is_not_converted(name):
    assert import_error(name) is None
    with pytest.raises(ModuleNotFoundError), explained_imports():
        __import__(name)
    with pytest.raises(ModuleNotFoundError):
        run_program(name)


def test_program_with_a_missing_package_prints_an_error_and_exits_with_1(importable, monkeypatch, capsys):
    importable("program", "import typer")
    monkeypatch.setitem(sys.modules, "typer", None)
    assert run_program("program") == 1
    assert "typer is not installed" in capsys.readouterr().err


def test_program_without_an_exit_code_exits_with_0(importable):
    importable("program", "def main(): pass")
    assert run_program("program") == 0


def test_hidden_package_counts_as_not_installed(monkeypatch):
    assert is_installed("json")
    assert not is_installed("no_such_package")
    monkeypatch.setitem(sys.modules, "json", None)
    assert not is_installed("json")


SLOW_IMPORT = """
import sys, time
try:
    print("importing", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    raise ImportError("a package that hides the interrupt")
"""
RUN = """
import signal, sys
from delayed_vlm_ros.dependencies import run_program
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
sys.exit(run_program("program"))
"""


@pytest.mark.parametrize("text", [SLOW_IMPORT, "def main():\n    print('importing', flush=True)\n    input()\n"])
def test_ctrl_c_ends_a_program_quietly(tmp_path, text):
    # given a program that imports its packages, or runs
    (tmp_path / "program.py").write_text(text)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        [sys.executable, "-c", RUN],
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout.readline() == "importing\n"

    # when
    process.send_signal(signal.SIGINT)

    # then
    assert process.communicate(timeout=30)[0] == ""
    assert process.returncode == 130


def test_interrupt_that_is_ignored_stays_ignored(importable, monkeypatch):
    importable("program", "def main(): pass")
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert run_program("program") == 0
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, previous)
