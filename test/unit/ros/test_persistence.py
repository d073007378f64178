"""Star memories on disk, through a configured node's parts, without a ROS graph."""

import os
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from geometry_msgs.msg import PoseStamped
from rclpy.logging import get_logger
from rclpy.serialization import serialize_message
from waiting import wait_until

from delayed_vlm_ros.ingest.geometry import FrameGeometry
from delayed_vlm_ros.memory import PairIds, SmartFrameManager
from delayed_vlm_ros.ros.input.frame_headers import FrameHeader, TimedPose, header_from_dict, header_to_dict
from delayed_vlm_ros.ros.output.diagnostics import Level, persistence_status
from delayed_vlm_ros.ros.output.reports import PersistenceReport
from delayed_vlm_ros.ros.scene_memory.persistence import Persistence
from delayed_vlm_ros.storage import folder as folder_module
from delayed_vlm_ros.storage.file_format import star_of

LOGGER = get_logger("test_persistence")
SHAPE = (28, 28, 3)


class Camera:
    """As much of a camera as persistence needs."""

    def __init__(self, name="camera", ids=None):
        self.name = name
        self.frame_manager = SmartFrameManager(8, 4, pair_ids=ids or PairIds())
        self._shown = 0

    def restore(self, pairs):
        self.frame_manager.restore(pairs)

    def show(self, count, after=1000.0):
        for _ in range(count):
            self._shown += 1
            pixels = np.random.default_rng(self._shown).integers(20, 220, SHAPE, np.uint8)
            stamp = after + self._shown
            self.frame_manager.add(pixels, stamp, FrameHeader(round(stamp * 1e9), "lens"))


@pytest.fixture
def opened(tmp_path):
    """Opens persistence for cameras; all are ended."""
    made = []

    def open_one(*cameras, folder=tmp_path, period_sec=0.05, geometry=FrameGeometry()):  # noqa: B008  frozen
        named = {camera.name: camera for camera in cameras}
        made.append(Persistence(str(folder), period_sec, named, geometry, LOGGER))
        return made[-1]

    yield open_one
    for persistence in made:
        end(persistence)


def end(persistence):
    persistence.end(60.0)
    persistence.join()


def looks(snapshot):
    return [
        (kept.id, kept.content_key, kept.stamps, kept.reason, kept.importance, kept.label, kept.pair.first.source)
        for kept in snapshot
    ]


def written(persistence, times=1):
    wait_until(lambda: persistence.report().times_written >= times, "a file")


def test_a_restart_brings_key_frames_and_marks_back(opened):
    # given
    camera = Camera()
    persistence = opened(camera)
    camera.show(7)
    camera.frame_manager.mark(2, "keys")
    before = star_of(camera.frame_manager.snapshot())
    end(persistence)

    # when
    after = Camera()
    again = opened(after)

    # then
    assert looks(after.frame_manager.snapshot()) == looks(before)
    assert any(kept.label == "keys" for kept in before)
    assert again.report().restored_frames == sum(kept.frame_count for kept in before)
    # and life goes on
    after.show(2, after=2000.0)
    assert max(kept.id for kept in after.frame_manager.snapshot()) == max(kept.id for kept in before) + 1


def test_it_is_written_while_the_node_runs_and_only_when_something_has_changed(opened):
    camera = Camera()
    persistence = opened(camera)
    camera.show(2)
    written(persistence, 2)
    count = persistence.report().times_written
    time.sleep(0.3)  # six periods
    assert persistence.report().times_written == count
    camera.frame_manager.mark(1, "now")
    written(persistence, count + 1)


def test_it_is_written_no_more_often_than_allowed(opened, monkeypatch):
    camera = Camera()
    times = []
    real = folder_module.MemoryFolder.save
    monkeypatch.setattr(
        folder_module.MemoryFolder, "save", lambda *a, **k: (times.append(time.monotonic()), real(*a, **k))[1]
    )
    persistence = opened(camera, period_sec=0.2)
    for _ in range(40):
        camera.show(1)
        time.sleep(0.02)
    end(persistence)
    assert np.diff(times[:-1]).min() >= 0.2  # the last one is that of the end


def test_what_is_forgotten_on_purpose_is_soon_gone_from_the_disk(opened, tmp_path):
    camera = Camera()
    persistence = opened(camera, period_sec=3600.0)
    written(persistence)
    camera.show(4)
    persistence.hurry()
    wait_until(lambda: (tmp_path / "camera.star").stat().st_size > 5000, "key frames in the file")
    # when
    camera.frame_manager.reset()
    persistence.hurry()
    # then
    wait_until(lambda: (tmp_path / "camera.star").stat().st_size < 1000, "an empty file")


def test_at_the_end_writing_that_takes_too_long_is_given_up(opened, tmp_path, monkeypatch):
    camera = Camera()
    persistence = opened(camera, period_sec=3600.0)
    written(persistence)
    before = (tmp_path / "camera.star").read_bytes()
    camera.show(4)
    may_go_on = threading.Event()
    real = os.fstatvfs
    monkeypatch.setattr(os, "fstatvfs", lambda fd: (may_go_on.wait(60), real(fd))[1])
    # when, at the end of the process during a cleanup, whichever comes first
    persistence.end(0.1)
    persistence.end(60.0)
    began = time.monotonic()
    persistence.join()
    # then nobody waits, and the file is as it was
    assert time.monotonic() - began < 30
    may_go_on.set()
    persistence._thread.join(60)
    assert (tmp_path / "camera.star").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["camera.star"]
    assert "no time was left" in persistence.report().fault


def test_a_full_disk_is_a_fault_until_there_is_room(opened, monkeypatch):
    camera = Camera()
    persistence = opened(camera, period_sec=3600.0)
    camera.show(2)
    full = os.statvfs_result((4096, 4096, 100, 0, 0, 1, 1, 1, 0, 255))
    with monkeypatch.context() as patched:
        patched.setattr(os, "fstatvfs", lambda _: full)
        persistence.hurry()
        wait_until(lambda: persistence.report().fault, "a fault")
        status = persistence_status(persistence.report())
        assert status.level == Level.WARN
        assert "No space left on device" in status.message
    # then it is tried again long before the period is over
    wait_until(lambda: not persistence.report().fault, "no fault")
    assert persistence_status(persistence.report()).level == Level.OK


def test_a_disk_that_fills_up_is_told_long_before_the_next_writing(opened, monkeypatch):
    camera = Camera()
    camera.show(2)
    persistence = opened(camera, period_sec=3600.0)
    wait_until(lambda: persistence.report().times_written, "a file")
    full = os.statvfs_result((4096, 4096, 100, 0, 0, 1, 1, 1, 0, 255))
    with monkeypatch.context() as patched:
        patched.setattr(os, "fstatvfs", lambda _: full)
        began = time.monotonic()
        wait_until(lambda: persistence.report().fault, "a fault")
        assert time.monotonic() - began < 30  # a second, on a machine that has time for it
        assert "no space for" in persistence_status(persistence.report()).message
        # and it stands as long as there is none, though nothing has changed that would have to be written
        time.sleep(2.5)
        assert persistence.report().fault
    wait_until(lambda: not persistence.report().fault, "no fault")
    assert persistence.report().times_written == 1


def test_a_full_disk_is_told_after_a_restart_when_nothing_has_been_written_yet(opened, monkeypatch):
    camera = Camera()
    camera.show(2)
    before = opened(camera, period_sec=3600.0)
    wait_until(lambda: before.report().times_written, "a file")
    before.end(30.0)
    before.join()
    # when
    full = os.statvfs_result((4096, 4096, 100, 0, 0, 1, 1, 1, 0, 255))
    monkeypatch.setattr(os, "fstatvfs", lambda _: full)
    persistence = opened(Camera(), period_sec=3600.0)
    wait_until(lambda: "no space for" in persistence.report().fault, "a fault")
    assert persistence.report().times_written == 0


def test_a_disk_too_full_for_the_larger_file_does_not_hurry_the_smaller_one(opened, monkeypatch):
    # given a disk on which the smaller camera's file fits and the larger one's would not
    large, small = Camera("large"), Camera("small")
    large.show(2)
    persistence = opened(large, small, period_sec=3600.0)
    wait_until(lambda: persistence.report().times_written == 2, "two files")
    little = os.statvfs_result((1, 1, 10_000, 3000, 3000, 1, 1, 1, 0, 255))
    monkeypatch.setattr(os, "fstatvfs", lambda _: little)
    wait_until(lambda: "no space for" in persistence.report().fault, "a fault")
    # when
    small.show(2)
    time.sleep(2.5)
    # then its period holds
    assert persistence.report().times_written == 2


@pytest.mark.parametrize("folder", ["/nonexistent/folder", "/dev/null"])
def test_a_folder_that_is_none_is_a_fault_and_not_the_end(opened, folder):
    camera = Camera()
    persistence = opened(camera, folder=folder)
    camera.show(2)
    assert "looking in the folder" in persistence.report().fault
    assert "then configure again" in persistence.report().fault
    persistence.hurry()


def test_a_damaged_file_is_told_and_the_memory_is_empty(opened, tmp_path):
    (tmp_path / "camera.star").write_bytes(b"DVLMSTAR and no more")
    camera = Camera()
    persistence = opened(camera)
    report = persistence.report()
    assert camera.frame_manager.snapshot() == ()
    assert "camera.star" in report.notices[0]
    assert persistence_status(report).level == Level.WARN
    written(persistence)
    assert persistence_status(persistence.report()).level == Level.WARN
    # and once there is something on the disk again, that is over
    camera.show(2)
    wait_until(lambda: persistence_status(persistence.report()).level == Level.OK, "an end of the warning")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["camera.star", "camera.star.aside-1"]


def test_a_file_that_was_set_aside_is_told_until_one_of_the_same_camera_is_written(opened, tmp_path):
    # given
    (tmp_path / "front.star").write_bytes(b"bad")
    front, rear = Camera("front"), Camera("rear")
    persistence = opened(front, rear)
    assert persistence.report().begun_anew
    # when / then
    rear.show(4)
    wait_until(lambda: persistence.report().written_bytes > 5000, "key frames of the other one")
    assert persistence.report().begun_anew
    front.show(4)
    wait_until(lambda: not persistence.report().begun_anew, "key frames of its own")


def test_a_file_that_can_be_neither_used_nor_moved_is_not_overwritten(opened, tmp_path, monkeypatch):
    (tmp_path / "camera.star").write_bytes(b"precious")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", refuse)
        camera = Camera()
        persistence = opened(camera)
    camera.show(2)
    persistence.hurry()
    end(persistence)
    assert "camera.star" in persistence.report().fault
    assert (tmp_path / "camera.star").read_bytes() == b"precious"
    # and the folder is free for another
    assert not opened(Camera()).report().fault


def test_key_frames_sized_by_other_rules_are_set_aside(opened):
    camera = Camera()
    persistence = opened(camera)
    camera.show(2)
    end(persistence)
    after = Camera()
    again = opened(after, geometry=replace(FrameGeometry(), max_pixels=100_352))
    assert "another memory.max_pixels" in again.report().notices[0]
    assert after.frame_manager.snapshot() == ()


def test_a_file_of_another_camera_is_set_aside(opened, tmp_path):
    camera = Camera("front")
    persistence = opened(camera)
    camera.show(2)
    end(persistence)
    (tmp_path / "front.star").rename(tmp_path / "rear.star")
    (notice,) = opened(Camera("rear")).report().notices
    assert "rear.star" in notice
    assert "another camera, front" in notice


def test_ids_stay_unique_among_cameras(opened, tmp_path):
    # given two cameras' files, of which one is of another time
    ids = PairIds()
    front, rear = Camera("front", ids), Camera("rear", ids)
    persistence = opened(front, rear)
    front.show(2)
    rear.show(2)
    end(persistence)
    content = (tmp_path / "front.star").read_bytes()
    lone = Camera("rear")
    (tmp_path / "rear.star").unlink()
    persistence = opened(lone)
    lone.show(2)
    end(persistence)
    (tmp_path / "front.star").write_bytes(content)
    # when
    ids = PairIds()
    front, rear = Camera("front", ids), Camera("rear", ids)
    again = opened(front, rear)
    # then
    assert "ids also occur in the file of another camera" in again.report().notices[0]
    rear.show(2)
    assert [kept.id for camera in (front, rear) for kept in camera.frame_manager.snapshot()] == [1, 2]


def test_where_it_was_is_kept_too():
    pose = PoseStamped()
    pose.header.frame_id = "map"
    pose.pose.position.x = 0.1
    header = FrameHeader(1_700_000_000_123_456_789, "lens", TimedPose(5, bytes(serialize_message(pose))))
    revived = header_from_dict(header_to_dict(header))
    assert revived == header
    assert revived.pose.pose.position.x == 0.1
    assert header_from_dict(header_to_dict(FrameHeader(-1, "", None))) == FrameHeader(-1, "", None)


def test_a_name_of_megabytes_is_no_reason_to_lose_the_file():
    header = FrameHeader(1, "x" * 10**6, TimedPose(5, bytes(10**6)))
    revived = header_from_dict(header_to_dict(header))
    assert len(revived.frame_id) == 1000
    assert revived.nearest_pose is None


@pytest.mark.parametrize(
    "described",
    [
        None,
        7,
        {},
        {"stamp_ns": 1},
        {"stamp_ns": 1.0, "frame_id": ""},
        {"stamp_ns": True, "frame_id": ""},
        {"stamp_ns": 2**80, "frame_id": ""},
        {"stamp_ns": 1, "frame_id": "a\0b"},
        {"stamp_ns": 1, "frame_id": "\ud800"},
        {"stamp_ns": 1, "frame_id": "x" * 1001},
        {"stamp_ns": 1, "frame_id": "", "pose": 7},
        {"stamp_ns": 1, "frame_id": "", "pose": {"stamp_ns": 1, "message": "?"}},
        {"stamp_ns": 1, "frame_id": "", "pose": {"stamp_ns": None, "message": ""}},
        {"stamp_ns": 1, "frame_id": "", "pose": {"stamp_ns": 1, "message": "A" * 20_000}},
    ],
)
def test_nonsense_is_no_header(described):
    with pytest.raises(ValueError, match=r"no object|without|pose|base64|surrogates"):
        header_from_dict(described)


def test_the_status_tells_how_it_goes():
    report = PersistenceReport("/kept", "", ("a file",), False, 6, 2, 1000, 3.0)
    status = persistence_status(report)
    values = dict(status.values)
    assert status.message == "key frames are kept in /kept"
    assert (values["restored frames"], values["last file"], values["last written"]) == ("6", "1000 B", "3.00 s old")
    assert values["set aside 1"] == "a file"


def test_a_defect_is_told_and_the_thread_lives(opened, monkeypatch):
    camera = Camera()
    persistence = opened(camera)

    def fail(*_, **__):
        raise ZeroDivisionError("planted")

    with monkeypatch.context() as patched:
        patched.setattr(folder_module.MemoryFolder, "save", fail)
        camera.show(2)
        wait_until(lambda: "ZeroDivisionError: planted" in persistence.report().fault, "the defect")
    wait_until(lambda: not persistence.report().fault, "no fault any more")


def test_defect_that_ends_the_thread_is_reported(opened, monkeypatch):
    # given
    def defect(_folder):
        raise ZeroDivisionError("planted by the test")

    monkeypatch.setattr(folder_module.MemoryFolder, "check_free_space", defect)

    # when
    persistence = opened(Camera())

    # then
    wait_until(lambda: persistence.report().fault, "a fault")
    assert "planted by the test" in persistence.report().fault
    assert persistence_status(persistence.report()).level == Level.WARN
