import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from geometry_msgs.msg import PoseStamped
from rclpy.serialization import serialize_message

from delayed_vlm_ros.ros.input.frame_headers import FrameHeader, TimedPose, header_from_dict, header_to_dict


def test_header_and_pose_survive_a_round_trip():
    pose = PoseStamped()
    pose.header.frame_id = "map"
    pose.pose.position.x = 0.1
    header = FrameHeader(1_700_000_000_123_456_789, "lens", TimedPose(5, bytes(serialize_message(pose))))
    restored = header_from_dict(header_to_dict(header))
    assert restored == header
    assert restored.pose.pose.position.x == 0.1
    assert header_from_dict(header_to_dict(FrameHeader(-1, "", None))) == FrameHeader(-1, "", None)


def test_overlong_frame_id_is_cut_and_overlong_pose_left_out():
    header = FrameHeader(1, "x" * 10**6, TimedPose(5, bytes(10**6)))
    restored = header_from_dict(header_to_dict(header))
    assert len(restored.frame_id) == 1000
    assert restored.nearest_pose is None


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (None, "object"),
        (7, "object"),
        ({}, "frame_id"),
        ({"stamp_ns": 1}, "frame_id"),
        ({"stamp_ns": 1.0, "frame_id": ""}, "stamp_ns"),
        ({"stamp_ns": True, "frame_id": ""}, "stamp_ns"),
        ({"stamp_ns": 2**80, "frame_id": ""}, "stamp_ns"),
        ({"stamp_ns": 1, "frame_id": "a\0b"}, "frame_id"),
        ({"stamp_ns": 1, "frame_id": "\ud800"}, "frame_id"),
        ({"stamp_ns": 1, "frame_id": "x" * 1001}, "frame_id"),
        ({"stamp_ns": 1, "frame_id": "", "pose": 7}, "pose"),
        ({"stamp_ns": 1, "frame_id": "", "pose": {"stamp_ns": 1, "message": "?"}}, "pose"),
        ({"stamp_ns": 1, "frame_id": "", "pose": {"stamp_ns": None, "message": ""}}, "stamp_ns"),
        ({"stamp_ns": 1, "frame_id": "", "pose": {"stamp_ns": 1, "message": "A" * 20_000}}, "pose"),
    ],
)
def test_invalid_header_is_rejected(value, named):
    with pytest.raises(ValueError, match=named):
        header_from_dict(value)
