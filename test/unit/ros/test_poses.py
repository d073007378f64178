"""Poses of other message types, and frames without a pose."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Pose, PoseStamped, PoseWithCovariance, PoseWithCovarianceStamped
from rclpy.serialization import serialize_message
from std_msgs.msg import Header

from delayed_vlm_ros.errors import DependencyError
from delayed_vlm_ros.ros.input import frame_headers, poses
from delayed_vlm_ros.ros.input.frame_headers import FrameHeader, header_from_dict, header_to_dict
from delayed_vlm_ros.ros.input.poses import PoseBuffer, load_pose_type

START_NS = 1_800_000_000 * 10**9
SECOND_NS = 10**9


def header_at(stamp_ns):
    return Header(stamp=Time(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9), frame_id="map")


def pose_stamped(stamp_ns, x=1.0):
    return serialize_message(PoseStamped(header=header_at(stamp_ns), pose=Pose(position=Point(x=x))))


def with_covariance(stamp_ns, x=1.0):
    pose = PoseWithCovariance(pose=Pose(position=Point(x=x)))
    return serialize_message(PoseWithCovarianceStamped(header=header_at(stamp_ns), pose=pose))


def test_pose_with_covariance_is_kept_as_pose_stamped():
    # given
    buffer = PoseBuffer(1.0, load_pose_type("PoseWithCovarianceStamped"))
    header = FrameHeader(START_NS, "lens")
    # when
    buffer.attach(header)
    buffer.receive(with_covariance(START_NS, 7.5))
    # then
    assert isinstance(header.pose, PoseStamped)
    assert (header.pose.header.frame_id, header.pose.pose.position.x) == ("map", 7.5)
    assert header_from_dict(header_to_dict(header)).pose == header.pose
    assert header_to_dict(header) == header_to_dict(header)
    assert header.nearest_pose.pose_stamped is header.nearest_pose.pose_stamped


def test_odometry_is_kept_as_pose_stamped(monkeypatch):
    # given a stand-in for nav_msgs, which has no wheel: header, child_frame_id, pose, twist
    odometry = SimpleNamespace(header=header_at(START_NS), pose=PoseWithCovariance(pose=Pose(position=Point(x=7.5))))
    monkeypatch.setattr(frame_headers, "deserialize_message", lambda *_: odometry)
    buffer = PoseBuffer(1.0, SimpleNamespace)
    header = FrameHeader(START_NS, "lens")
    # when
    buffer.attach(header)
    buffer.receive(with_covariance(START_NS))
    # then
    assert isinstance(header.pose, PoseStamped)
    assert (header.pose.header.frame_id, header.pose.pose.position.x) == ("map", 7.5)


def test_missing_package_of_a_pose_type_is_named(monkeypatch):
    monkeypatch.setattr(poses, "is_installed", lambda _: False)
    with pytest.raises(DependencyError, match=r"'pose.source' is Odometry, but nav_msgs .* ros-\$ROS_DISTRO-nav-msgs"):
        load_pose_type("Odometry")


def test_frames_without_a_near_pose_are_counted():
    buffer = PoseBuffer(0.5)
    # without any pose, poses are not in use
    for number in range(3):
        buffer.attach(FrameHeader(START_NS + number * SECOND_NS, "lens"))
    assert (buffer.frames_without_pose, buffer.warning) == (0, "")
    # one pose near the last frame, then none
    buffer.receive(pose_stamped(START_NS + 2 * SECOND_NS))
    assert (buffer.frames_without_pose, buffer.warning) == (0, "")
    for number in range(3, 6):
        buffer.attach(FrameHeader(START_NS + number * SECOND_NS, "lens"))
    # the newest frame may still get a pose; a robot that does not move may publish none
    assert (buffer.frames_without_pose, buffer.warning) == (2, "")
    # poses arrive again
    buffer.receive(pose_stamped(START_NS + 5 * SECOND_NS))
    buffer.attach(FrameHeader(START_NS + 6 * SECOND_NS, "lens"))
    assert (buffer.frames_without_pose, buffer.warning) == (2, "")


def test_poses_of_another_clock_are_reported():
    buffer = PoseBuffer(0.5)
    for number in range(4):
        buffer.receive(pose_stamped(number * SECOND_NS + 1))
        buffer.attach(FrameHeader(START_NS + number * SECOND_NS, "lens"))
    assert buffer.frames_without_pose == 3
    assert "none within 0.5 s" in buffer.warning
    # the clocks agree again
    for number in range(10, 12):
        buffer.receive(pose_stamped(START_NS + number * SECOND_NS))
        buffer.attach(FrameHeader(START_NS + number * SECOND_NS, "lens"))
    assert buffer.warning == ""


def test_poses_that_resume_after_a_rest_are_no_fault():
    buffer = PoseBuffer(0.5)
    buffer.receive(pose_stamped(START_NS))
    for number in range(20):
        buffer.attach(FrameHeader(START_NS + number * SECOND_NS // 2, "lens"))
    for number in range(20, 25):
        stamp_ns = START_NS + number * SECOND_NS // 2
        buffer.receive(pose_stamped(stamp_ns))
        assert buffer.warning == ""
        buffer.attach(FrameHeader(stamp_ns, "lens"))
        assert buffer.warning == ""
