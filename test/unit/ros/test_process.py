"""What a node's process logs of defects in callbacks and threads."""

import threading
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from delayed_vlm_ros.ros.process import _FailureLog


@pytest.fixture
def logged():
    """A failure log and the lines that it writes."""
    lines = []
    node = SimpleNamespace(get_logger=lambda: SimpleNamespace(error=lines.append))
    return _FailureLog(node), lines


def fail(text):
    raise ZeroDivisionError(text)


def defect(text):
    try:
        fail(text)
    except ZeroDivisionError as error:
        return error


def test_defect_of_a_callback_is_logged_with_its_traceback_once(logged):
    failures, lines = logged
    for text in ("first", "second"):
        failures.add("a callback failed", defect(text))
    assert "Traceback" in lines[0]
    assert "in fail" in lines[0]
    assert "Traceback" not in lines[1]
    assert "ZeroDivisionError: second" in lines[1]


def test_defect_that_ends_a_thread_is_logged_with_the_name_of_the_thread(logged, monkeypatch):
    failures, lines = logged
    monkeypatch.setattr(threading, "excepthook", failures.on_thread)
    thread = threading.Thread(target=lambda: 1 / 0, name="player")
    thread.start()
    thread.join()
    (line,) = lines
    assert "'player'" in line
    assert "Traceback" in line
    assert "ZeroDivisionError" in line
