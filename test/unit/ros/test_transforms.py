"""Poses from TF, with a fake buffer: tf2_ros has no wheel, so the real one is not run here."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from geometry_msgs.msg import Quaternion, Vector3

from delayed_vlm_ros.errors import DependencyError
from delayed_vlm_ros.ros.input import transforms
from delayed_vlm_ros.ros.input.frame_headers import FrameHeader
from delayed_vlm_ros.ros.input.transforms import TransformLookup, TransformPoses, check_transforms_available

START_NS = 1_800_000_000 * 10**9


class Clock:
    """A monotonic clock that the test sets."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


class Buffer:
    """Knows the transforms up to a stamp: x is the number of seconds since the start."""

    def __init__(self):
        self.newest_ns = 0
        self.lookups = []
        self.closed = False
        self.cleared = 0

    def lookup_transform(self, target_frame, source_frame, time):
        self.lookups.append((target_frame, source_frame, time.nanoseconds))
        if time.nanoseconds > self.newest_ns:
            raise LookupError("extrapolation into the future")
        translation = Vector3(x=(time.nanoseconds - START_NS) / 1e9)
        return SimpleNamespace(transform=SimpleNamespace(translation=translation, rotation=Quaternion(z=1.0)))

    def clear(self):
        self.cleared += 1

    def close(self):
        self.closed = True


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(transforms, "time", clock)
    return clock


@pytest.fixture
def poses():
    return TransformPoses("map", "", 0.5)


def test_transform_is_looked_up_after_the_frame(clock, poses):
    # given a frame that arrives before its transform
    buffer, header = Buffer(), FrameHeader(START_NS + 10**9, "lens")
    poses.attach(header)
    assert buffer.lookups == []
    poses.look_up(buffer)
    assert header.pose is None
    # when the transform arrives
    buffer.newest_ns = header.stamp_ns
    clock.now += 0.4
    poses.look_up(buffer)
    # then
    assert buffer.lookups[-1] == ("map", "lens", header.stamp_ns)
    assert (header.pose.header.frame_id, header.pose.pose.position.x) == ("map", 1.0)
    assert header.pose.pose.orientation.z == 1.0
    assert (header.pose.header.stamp.sec, header.pose.header.stamp.nanosec) == (1_800_000_001, 0)
    assert (poses.received, poses.frames_without_pose, poses.warning) == (1, 0, "")
    # and it is not looked up again
    count = len(buffer.lookups)
    poses.look_up(buffer)
    assert len(buffer.lookups) == count


def test_frame_without_a_transform_is_counted_and_reported(clock, poses):
    buffer, header = Buffer(), FrameHeader(START_NS, "lens")
    poses.attach(header)
    poses.look_up(buffer)
    assert (poses.frames_without_pose, poses.warning) == (0, "")
    clock.now += 0.5
    poses.look_up(buffer)
    assert header.pose is None
    assert poses.frames_without_pose == 1
    assert "no transform from lens to map (extrapolation into the future)" in poses.warning
    # the next frame has one
    buffer.newest_ns = START_NS
    poses.attach(FrameHeader(START_NS, "lens"))
    poses.look_up(buffer)
    assert (poses.received, poses.frames_without_pose, poses.warning) == (1, 1, "")


def test_base_frame_replaces_the_frame_id(poses):
    buffer = Buffer()
    poses = TransformPoses("odom", "base_link", 0.5)
    poses.attach(FrameHeader(START_NS, "lens"))
    poses.look_up(buffer)
    assert buffer.lookups == [("odom", "base_link", START_NS)]


def test_image_without_frame_id_is_reported(clock, poses):
    poses.attach(FrameHeader(START_NS, ""))
    clock.now += 1.0
    poses.look_up(Buffer())
    assert "frame_id" in poses.warning


def test_reset_during_a_lookup_forgets_the_waiting_frames(poses):
    class ResettingBuffer(Buffer):
        def lookup_transform(self, *arguments):
            poses.reset()
            return super().lookup_transform(*arguments)

    poses.attach(FrameHeader(START_NS, "lens"))
    poses.look_up(ResettingBuffer())
    buffer = Buffer()
    poses.look_up(buffer)
    assert buffer.lookups == []


def test_transforms_are_forgotten_once_after_a_reset(clock, poses):
    # given a warning of an earlier frame
    buffer = Buffer()
    poses.attach(FrameHeader(START_NS, "lens"))
    clock.now += 1.0
    poses.look_up(buffer)
    assert poses.warning
    # when time went back
    poses.reset()
    poses.look_up(buffer)
    poses.look_up(buffer)
    # then
    assert (buffer.cleared, poses.warning) == (1, "")


def test_lookup_runs_in_a_timer_until_it_is_closed(poses):
    # given
    timers, buffer = [], Buffer()
    buffer.newest_ns = START_NS
    node = SimpleNamespace(
        create_timer=lambda period, call, **_: timers.append(call) or call, destroy_timer=timers.remove
    )
    lookup = TransformLookup(node, [poses], None, lambda _: buffer)
    header = FrameHeader(START_NS, "lens")
    poses.attach(header)
    # when
    lookup.start()
    timers[0]()
    # then
    assert header.pose is not None
    lookup.close()
    assert (timers, buffer.closed) == ([], True)


def test_missing_tf2_is_named_with_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2_ros", None)
    with pytest.raises(DependencyError, match=r"'pose.source' is tf, but tf2_ros .* ros-\$ROS_DISTRO-tf2-ros-py"):
        check_transforms_available()


def test_real_buffer_listens_until_it_is_closed(monkeypatch):
    # given a stand-in with the interface of tf2_ros
    closed = []
    listener = SimpleNamespace(unregister=lambda: closed.append(True))
    fake = SimpleNamespace(__spec__=object(), Buffer=Buffer, TransformListener=lambda buffer, node: listener)
    monkeypatch.setitem(sys.modules, "tf2_ros", fake)
    # when
    buffer = transforms._Tf2Buffer(None)
    with pytest.raises(LookupError):
        buffer.lookup_transform("map", "lens", SimpleNamespace(nanoseconds=START_NS))
    buffer.close()
    # then
    assert closed == [True]
