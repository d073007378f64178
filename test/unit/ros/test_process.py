import threading
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from delayed_vlm_ros.errors import ConfigurationError
from delayed_vlm_ros.ros.process import _FailureLog, _initialise


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
        _initialise(["--ros-args", "--params-file", str(path)])
    assert "my.yaml" in str(caught.value)
    assert expected in str(caught.value)


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
        _initialise(["--ros-args", *arguments])
    assert named in str(caught.value)
