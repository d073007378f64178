import inspect

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")


from delayed_vlm_ros.srv import AskScene

from delayed_vlm_ros import errors
from delayed_vlm_ros.ros.output.messages import ERROR_CODES, error_code, error_text

ALL_ERRORS = [error for _, error in inspect.getmembers(errors, inspect.isclass) if issubclass(error, Exception)]


@pytest.mark.parametrize("error", ALL_ERRORS)
def test_every_error_of_this_package_has_a_code(error):
    assert error in ERROR_CODES
    assert error_code(error("why")) == ERROR_CODES[error]
    assert error_text(error("why")) == "why"


def test_every_code_but_none_is_used():
    constants = {name: getattr(AskScene.Response, name) for name in dir(AskScene.Response) if name.isupper()}
    codes = {name: value for name, value in constants.items() if isinstance(value, int)}
    assert set(codes.values()) - {AskScene.Response.NONE} == set(ERROR_CODES.values())


def test_an_unexpected_error_is_internal_and_named():
    error = ZeroDivisionError("division by zero")
    assert error_code(error) == AskScene.Response.INTERNAL
    assert "ZeroDivisionError: division by zero" in error_text(error)
    assert "log" in error_text(error)
