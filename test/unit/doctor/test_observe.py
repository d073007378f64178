"""What the doctor keeps of the messages that it receives."""

from unittest.mock import Mock

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from builtin_interfaces.msg import Time
from rosgraph_msgs.msg import Clock

from delayed_vlm_ros.doctor.observe import _is_remote, _Observer


def test_first_and_newest_time_of_a_fast_clock_are_kept():
    # given a simulation that publishes a thousand times a second
    observer = _Observer(Mock(), Mock(), 1.0)
    # when
    for second in range(8):
        for millisecond in range(1000):
            observer._on_clock(Clock(clock=Time(sec=second, nanosec=millisecond * 10**6)))
    # then
    assert observer._clock_times == [0, 7_999_000_000]


def test_single_time_of_a_clock_is_kept_once():
    observer = _Observer(Mock(), Mock(), 1.0)
    observer._on_clock(Clock(clock=Time(sec=5)))
    assert observer._clock_times == [5_000_000_000]


def test_service_gets_a_share_of_the_time_limit():
    node = Mock()
    node.create_client.return_value.wait_for_service.return_value = False
    assert _Observer(node, Mock(), 8.0)._call(Mock(), "/scene_memory/get_state", Mock()) is None
    node.create_client.return_value.wait_for_service.assert_called_once_with(8.0)


@pytest.mark.parametrize(
    ("gid", "expected"),
    [
        ("010f78fd5536a8c6", False),
        ("010f78fd1111a8c6", False),  # another process
        ("010f12345536a8c6", True),
        ("0110123455360000", False),  # another vendor: unknown
    ],
)
def test_publisher_of_another_machine_is_recognised(gid, expected):
    assert _is_remote(bytes.fromhex(gid), bytes.fromhex("010f78fd5536a8c6")) is expected
