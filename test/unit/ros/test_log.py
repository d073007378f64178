"""The logger of the nodes escapes control characters, and throttles each call by itself."""

from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from rclpy.impl import rcutils_logger

from delayed_vlm_ros.ros import log as log_module
from delayed_vlm_ros.ros.log import EscapingLogger


def test_control_characters_and_forged_lines_are_escaped(capfd):
    EscapingLogger("trial").warning("format 'jpeg\x1b[2J\x9b\u202e\udcff'\n[ERROR] [1.0] [trial]: forged")
    logged = capfd.readouterr().err
    assert "format 'jpeg\\x1b[2J\\x9b\\u202e\\udcff'\n    [ERROR] [1.0]" in logged


def test_each_call_is_throttled_by_itself(capfd):
    logger = EscapingLogger("trial")
    for _ in range(3):
        logger.warning("first", throttle_duration_sec=60.0)
        logger.warning("second", throttle_duration_sec=30.0)
        logger.error("third")
    logged = capfd.readouterr().err
    assert [logged.count(word) for word in ("first", "second", "third")] == [1, 1, 3]


def test_log_names_the_place_of_the_call(monkeypatch):
    places = []
    monkeypatch.setattr(rcutils_logger._rclpy, "rclpy_logging_rcutils_log", lambda *fields: places.append(fields[-2]))
    EscapingLogger("trial").info("here")
    assert [Path(place).name for place in places] == [Path(__file__).name]


@pytest.mark.parametrize("found", [None, (), {"a"}])
def test_rclpy_without_its_private_list_still_logs(monkeypatch, capfd, found):
    monkeypatch.setattr(rcutils_logger, "_internal_callers", found)
    log_module._log_places_of_callers()
    monkeypatch.undo()
    EscapingLogger("trial").warning("logged")
    assert "logged" in capfd.readouterr().err


def test_rclpy_without_the_name_of_its_private_list_is_no_error(monkeypatch):
    monkeypatch.delattr(rcutils_logger, "_internal_callers")
    log_module._log_places_of_callers()
