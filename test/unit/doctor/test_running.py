"""A check that fails, hangs or crashes never hides the others."""

import os
import time

import pytest

from delayed_vlm_ros.doctor import clocks, compute, diagnosis, environment, self_test
from delayed_vlm_ros.doctor.finding import Level, ok
from delayed_vlm_ros.doctor.running import Answer, run_check, run_child
from delayed_vlm_ros.errors import ModelNotFoundError

PATIENCE_SEC = 60.0


def test_findings_of_a_check_are_returned():
    assert run_check("disk", lambda: [ok("disk", "free")]) == [ok("disk", "free")]


def test_defect_of_a_check_becomes_an_error_with_the_exception():
    (found,) = run_check("disk", lambda: [1 / 0])
    assert found.level is Level.ERROR
    assert "ZeroDivisionError: division by zero" in found.line


def test_error_of_this_package_becomes_an_error_with_its_text():
    def check():
        raise ModelNotFoundError("no model: download it")

    (found,) = run_check("model", check)
    assert found.line == "ERROR  model: no model: download it"


def test_check_that_hangs_becomes_an_error_after_its_time_limit():
    started = time.monotonic()
    (found,) = run_check("page", lambda: time.sleep(PATIENCE_SEC) or [], timeout_sec=0.1)
    assert time.monotonic() - started < PATIENCE_SEC / 2
    assert found.level is Level.ERROR
    assert "0.1 s" in found.text


@pytest.fixture
def fake_torch(tmp_path, monkeypatch):
    """Return a function that writes the source of a module ``torch``, which child processes import."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return (tmp_path / "torch.py").write_text


def test_library_that_aborts_is_reported_with_its_signal(fake_torch):
    fake_torch("import os; os.abort()")
    answer = run_child("compute:probe_torch", timeout_sec=PATIENCE_SEC)
    assert "died of SIGABRT" in answer.error
    assert compute.compute_findings(answer, "auto")[0].remedy


def test_library_that_raises_is_reported_with_its_error(fake_torch):
    fake_torch("raise RuntimeError('planted\\nin two lines')")
    assert "RuntimeError: planted in two lines" in run_child("compute:probe_torch", timeout_sec=PATIENCE_SEC).error


def test_library_that_hangs_is_ended(fake_torch):
    fake_torch("import time; time.sleep(600)")
    assert "no result within 1 s" in run_child("compute:probe_torch", timeout_sec=1.0).error


def test_library_that_prints_does_not_disturb_the_result(fake_torch):
    fake_torch(
        "print('hello')\n__version__ = '9'\n"
        "class version: cuda = None\n"
        "class cuda:\n    is_available = staticmethod(lambda: False)\n"
    )
    answer = run_child("compute:probe_torch", timeout_sec=PATIENCE_SEC)
    assert answer == Answer({"version": "9", "cuda": None, "devices": [], "warnings": []})


def test_child_finds_the_package_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "json.py").write_text("raise RuntimeError('a file of the user')")
    assert run_child("environment:probe_converter", timeout_sec=PATIENCE_SEC).value["name"]


@pytest.fixture
def idle_machine(monkeypatch):
    """On a busy machine the message exchange is a warning without the reason."""
    monkeypatch.setattr(environment, "load_per_processor", lambda: 0.1)


def test_failing_checks_hide_no_other_check(monkeypatch, idle_machine):
    # given every process fails, and one check of each kind
    monkeypatch.setattr(diagnosis, "run_child", lambda *_, **__: Answer(error="planted: process"))
    monkeypatch.setattr(self_test, "run_child", lambda *_, **__: Answer(error="planted: process"))
    monkeypatch.setattr(environment, "python_findings", lambda: [1 / 0])
    monkeypatch.setattr(clocks, "system_clock_findings", lambda: [1 / 0])
    # when
    found = diagnosis.diagnose()
    # then
    lines = [one.line for one in found.findings]
    assert sum("ZeroDivisionError" in line for line in lines) == 2
    assert sum("planted: process" in line for line in lines) == 4
    assert {"page", "log files", "ROS_DOMAIN_ID", "shared memory"} <= {one.subject for one in found.findings}
    assert found.has_error
    assert found.observation is None


@pytest.mark.parametrize(("load", "expected_sec"), [(0.1, 14.0), (2.0, 28.0), (50.0, 56.0)])
def test_time_limit_grows_with_the_load(monkeypatch, load, expected_sec):
    monkeypatch.setattr(environment, "load_per_processor", lambda: load)
    assert diagnosis.default_timeout_sec() == expected_sec


def test_process_that_cannot_be_started_is_an_error(monkeypatch, idle_machine):
    def fail(*_arguments, **_options):
        raise OSError(os.strerror(12))

    monkeypatch.setattr(diagnosis, "run_child", fail)
    monkeypatch.setattr(self_test, "run_child", fail)
    found = diagnosis.diagnose()
    assert sum("Cannot allocate memory" in one.line for one in found.findings) == 4
