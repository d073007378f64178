"""Error codes and error texts of the ROS interface."""

import inspect

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")


from delayed_vlm_ros.action import AskScene as AskSceneAction
from delayed_vlm_ros.srv import AskScene

from delayed_vlm_ros import errors
from delayed_vlm_ros.errors import ErrorCode
from delayed_vlm_ros.ros.output.messages import error_code, error_text

ALL_ERRORS = [
    error for _, error in inspect.getmembers(errors, inspect.isclass) if issubclass(error, errors.DelayedVlmError)
]


@pytest.mark.parametrize("interface", [AskScene.Response, AskSceneAction.Result], ids=["service", "action"])
def test_error_codes_equal_the_constants_of_the_interface(interface):
    constants = {name: getattr(interface, name) for name in dir(interface) if name.isupper()}
    numbers = {name: value for name, value in constants.items() if isinstance(value, int)}
    assert numbers == {code.name: int(code) for code in ErrorCode}


@pytest.mark.parametrize("error", ALL_ERRORS)
def test_error_code_and_text_of_every_error_class(error):
    assert isinstance(error.error_code, ErrorCode)
    assert error_code(error("why")) == error.error_code != ErrorCode.NONE
    assert error_text(error("why")) == "why"


def test_every_error_code_but_none_is_used():
    assert {error.error_code for error in ALL_ERRORS} == set(ErrorCode) - {ErrorCode.NONE}


def test_unexpected_error_is_internal_and_named():
    error = ZeroDivisionError("division by zero")
    assert error_code(error) == AskScene.Response.INTERNAL
    assert "ZeroDivisionError: division by zero" in error_text(error)
    assert "log" in error_text(error)
