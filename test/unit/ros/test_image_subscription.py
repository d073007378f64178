import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from rclpy.qos import ReliabilityPolicy

from delayed_vlm_ros.ros.input.image_subscription import best_reliability

RELIABLE, BEST_EFFORT = ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT


@pytest.mark.parametrize(
    ("offers", "present", "expected"),
    [
        ([], BEST_EFFORT, BEST_EFFORT),
        ([], RELIABLE, RELIABLE),
        ([RELIABLE], BEST_EFFORT, RELIABLE),
        ([RELIABLE, RELIABLE], BEST_EFFORT, RELIABLE),
        ([RELIABLE, BEST_EFFORT], RELIABLE, BEST_EFFORT),
        ([ReliabilityPolicy.UNKNOWN], RELIABLE, BEST_EFFORT),
    ],
)
def test_best_reliability_receives_from_every_publisher(offers, present, expected):
    assert best_reliability(offers, present) == expected
