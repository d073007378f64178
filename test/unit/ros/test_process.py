import threading
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from delayed_vlm_ros.ros.process import _FailureLog


@pytest.fixture
def logged():
    """Return a failure log and its lines."""
    lines = []
    node = SimpleNamespace(get_logger=lambda: SimpleNamespace(error=lines.append))
    return _FailureLog(node), lines


def fail(text):
    raise ZeroDivisionError(text)


def error_with_traceback(text):
    try:
        fail(text)
    except ZeroDivisionError as error:
        return error


def test_callback_exception_is_logged_once_with_traceback(logged):
    failures, lines = logged
    for text in ("first", "second"):
        failures.add("a callback failed", error_with_traceback(text))
    assert "Traceback" in lines[0]
    assert "in fail" in lines[0]
    assert "Traceback" not in lines[1]
    assert "ZeroDivisionError: second" in lines[1]


def test_thread_exception_is_logged_with_the_thread_name(logged, monkeypatch):
    failures, lines = logged
    monkeypatch.setattr(threading, "excepthook", failures.on_thread)
    thread = threading.Thread(target=lambda: 1 / 0, name="player")
    thread.start()
    thread.join()
    (line,) = lines
    assert "'player'" in line
    assert "Traceback" in line
    assert "ZeroDivisionError" in line
