"""Time jumps and camera poses, over DDS."""

import pytest
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Pose, PoseStamped, PoseWithCovariance, PoseWithCovarianceStamped
from harness import nanoseconds, values_of
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Header
from waiting import wait_until


def at(nanoseconds_):
    return Time(sec=nanoseconds_ // 10**9, nanosec=nanoseconds_ % 10**9)


def jumps(client):
    status = client.newest_status("camera camera")
    return int(values_of(status)["time jumps"]) if status else None


@pytest.mark.parametrize("outcome", ["restart", "continue"])
def test_repeated_recording_restarts_or_continues_the_memory(start, outcome):
    # given a memory of a recording
    _, client = start(memory__sample_fps=20.0, memory__on_time_jump=outcome)
    client.wait_until_active()
    client.show_images(4)
    before = client.ask()
    beginning = nanoseconds(before.frames_used[0].header.stamp) - 3600 * 10**9
    # when it is repeated
    for number in range(10):
        client.publish(client.image(header=_header(beginning + number * 100_000_000)))
    wait_until(lambda: jumps(client) == 1, "the time jump")
    # then
    after = client.ask()
    new = [frame for frame in after.frames_used if nanoseconds(frame.header.stamp) < beginning + 10**9]
    if outcome == "restart":
        assert new == list(after.frames_used)
        assert not any("jumped back" in warning for warning in after.metrics.warnings)
    else:
        assert {frame.id for frame in before.frames_used[:1]} <= {frame.id for frame in after.frames_used}
        assert any("jumped back" in warning for warning in after.metrics.warnings)
    assert len(new) >= 3


def _header(stamp_ns):
    return Header(stamp=at(stamp_ns), frame_id="lens")


def test_jump_of_the_simulated_clock_empties_the_memory(start):
    # given
    process, client = start(memory__sample_fps=20.0, use_sim_time="true")

    def tick(seconds):
        client.publish(Clock(clock=Time(sec=seconds)), "/clock")

    def received_clock():
        tick(1000)
        return client.find_stats(lambda stats: stats.header.stamp.sec == 1000, 0)

    wait_until(received_clock, "the clock")
    client.show_images(2)
    # when the clock advances, the memory is kept
    for seconds in range(1001, 1005):
        tick(seconds)
    assert client.ask().success
    assert jumps(client) == 0
    # when the clock jumps ahead and back, the memory is emptied
    for count, (seconds, size) in enumerate(((2000, " 996.000 s"), (10, "-1990.000 s")), start=1):
        tick(seconds)
        wait_until(lambda count=count: jumps(client) == count, "the time jump")

        def reported(status, size=size):
            return size in status.message and status.level != b"\x00"

        wait_until(lambda reported=reported: client.find_status("camera camera", reported, 0), "its report")
        wait_until(lambda size=size: size not in client.newest_status("camera camera").message, "its end")
        assert not client.ask().success
        client.show_images(2)
        assert client.ask().success
    assert process.alive


def test_first_clock_message_after_images_keeps_the_memory(start):
    # given
    _, client = start(memory__sample_fps=20.0, use_sim_time="true")
    client.show_images(2)
    kept = client.ask().frames_used

    def received_clock():
        client.publish(Clock(clock=Time(sec=1000)), "/clock")
        return client.find_stats(lambda stats: stats.header.stamp.sec == 1000, 0)

    # when
    wait_until(received_clock, "the clock")
    client.show_images(2)
    # then
    assert [frame.id for frame in client.ask().frames_used][: len(kept)] == [frame.id for frame in kept]
    assert jumps(client) == 0


@pytest.mark.parametrize("source", ["PoseStamped", "PoseWithCovarianceStamped"])
def test_frame_has_the_pose_of_the_camera(start, source):
    # given
    _, client = start(memory__sample_fps=20.0, pose__source=source)
    client.wait_until_active()
    client.connect_images()
    client.reset()

    def stand_at(x, image):
        header = Header(stamp=image.header.stamp, frame_id="map")
        pose = Pose(position=Point(x=float(x)))
        if source == "PoseStamped":
            client.publish(PoseStamped(header=header, pose=pose), "pose")
        else:
            client.publish(PoseWithCovarianceStamped(header=header, pose=PoseWithCovariance(pose=pose)), "pose")

    def arrived():
        image = client.image()
        stand_at(1, image)
        client.publish(image)
        return any(frame.pose_valid for frame in client.ask().frames_used)

    # when
    wait_until(arrived, "a frame with a pose")
    # then
    frame = next(frame for frame in client.ask().frames_used if frame.pose_valid)
    assert frame.pose.header.frame_id == "map"
    assert frame.pose.pose.position.x == 1.0
    assert abs(nanoseconds(frame.pose.header.stamp) - nanoseconds(frame.header.stamp)) <= 500_000_000
