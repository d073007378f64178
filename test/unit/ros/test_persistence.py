"""Star memories on disk, through `Persistence` and fake cameras, without a ROS graph."""

import fcntl
import os
import shutil
import subprocess
import threading
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from rclpy.logging import get_logger
from waiting import wait_until

from delayed_vlm_ros.errors import MemoryFileError
from delayed_vlm_ros.ingest.geometry import FrameGeometry
from delayed_vlm_ros.memory import PairIds, SmartFrameManager
from delayed_vlm_ros.ros.input.frame_headers import FrameHeader
from delayed_vlm_ros.ros.output.diagnostics import Level, persistence_status
from delayed_vlm_ros.ros.scene_memory import persistence as persistence_module
from delayed_vlm_ros.ros.scene_memory.persistence import Persistence
from delayed_vlm_ros.storage import folder as folder_module
from delayed_vlm_ros.storage.file_format import star_of

LOGGER = get_logger("test_persistence")
SHAPE = (28, 28, 3)


class Camera:
    """The parts of a camera that persistence uses."""

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
def started(tmp_path):
    """Return a function that starts persistence for cameras; the fixture closes all of them."""
    made = []

    def start(*cameras, folder=tmp_path, period_sec=0.05, geometry=FrameGeometry()):  # noqa: B008  frozen
        named = {camera.name: camera for camera in cameras}
        made.append(Persistence(str(folder), period_sec, named, geometry, LOGGER))
        made[-1].start()
        return made[-1]

    yield start
    for persistence in made:
        persistence.close(60.0)


@pytest.fixture
def wait_for_calls(monkeypatch):
    """Return a function that waits until a method of the folder was called more often, as it is with short pauses."""
    ended = Counter()
    monkeypatch.setattr(persistence_module, "_MIN_PERIOD_SEC", 0.05)

    def count(name, real):
        def counted(*arguments, **options):
            try:
                return real(*arguments, **options)
            finally:
                ended[name] += 1

        monkeypatch.setattr(folder_module.MemoryFolder, name, counted)

    def wait(name, calls=2):  # the last one began after this
        expected = ended[name] + calls
        wait_until(lambda: ended[name] >= expected, f"{calls} calls of {name}")

    for name in ("check", "save"):
        count(name, getattr(folder_module.MemoryFolder, name))
    return wait


def contents(snapshot):
    return [
        (kept.id, kept.content_key, kept.stamps, kept.reason, kept.importance, kept.label, kept.pair.first.source)
        for kept in snapshot
    ]


def wait_for_files(persistence, times=1):
    wait_until(lambda: persistence.report().times_written >= times, "a file")


def test_key_frames_and_marks_survive_a_restart(started):
    # given
    camera = Camera()
    persistence = started(camera)
    camera.show(7)
    camera.frame_manager.mark(2, "keys")
    before = star_of(camera.frame_manager.snapshot())
    persistence.close(60.0)

    # when
    after = Camera()
    again = started(after)

    # then
    assert contents(after.frame_manager.snapshot()) == contents(before)
    assert any(kept.label == "keys" for kept in before)
    assert again.report().restored_frames == sum(kept.frame_count for kept in before)
    # and new pairs get new ids
    after.show(2, after=2000.0)
    assert max(kept.id for kept in after.frame_manager.snapshot()) == max(kept.id for kept in before) + 1


def test_changes_are_saved_while_the_node_runs_and_nothing_else(started):
    camera = Camera()
    persistence = started(camera)
    camera.show(2)
    wait_for_files(persistence, 2)
    count = persistence.report().times_written
    time.sleep(0.3)  # six periods
    assert persistence.report().times_written == count
    camera.frame_manager.mark(1, "now")
    wait_for_files(persistence, count + 1)


def test_saves_keep_the_shortest_period(started, monkeypatch):
    camera = Camera()
    times = []
    real = folder_module.MemoryFolder.save
    monkeypatch.setattr(
        folder_module.MemoryFolder, "save", lambda *a, **k: (times.append(time.monotonic()), real(*a, **k))[1]
    )
    persistence = started(camera, period_sec=0.2)
    for _ in range(40):
        camera.show(1)
        time.sleep(0.02)
    persistence.close(60.0)
    assert np.diff(times[:-1]).min() >= 0.2  # the last save is the one of close


def test_requested_save_after_a_reset_empties_the_file_soon(started, tmp_path):
    others = [tmp_path / "camera.star.aside-1", tmp_path / "former_camera.star"]
    for file in others:
        file.write_bytes(b"kept")
    camera = Camera()
    persistence = started(camera, period_sec=3600.0)
    wait_for_files(persistence)
    camera.show(4)
    persistence.request_save()
    wait_until(lambda: (tmp_path / "camera.star").stat().st_size > 5000, "key frames in the file")
    # when
    camera.frame_manager.reset()
    persistence.request_save()
    # then
    wait_until(lambda: (tmp_path / "camera.star").stat().st_size < 1000, "an empty file")
    # and files that were set aside or of other cameras stay
    assert [file.read_bytes() for file in others] == [b"kept", b"kept"]


def test_close_gives_up_a_slow_save_and_keeps_the_file(started, tmp_path, monkeypatch):
    camera = Camera()
    persistence = started(camera, period_sec=3600.0)
    wait_for_files(persistence)
    before = (tmp_path / "camera.star").read_bytes()
    camera.show(4)
    proceed = threading.Event()
    real = os.fstatvfs
    monkeypatch.setattr(os, "fstatvfs", lambda fd: (proceed.wait(60), real(fd))[1])
    # when a cleanup and the end of the process overlap: the shorter timeout counts
    persistence.request_close(0.1)
    began = time.monotonic()
    persistence.close(60.0)
    # then close returns, and the file is unchanged
    assert time.monotonic() - began < 30
    proceed.set()
    persistence._thread.join(60)
    assert (tmp_path / "camera.star").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["camera.star"]
    assert persistence.report().error


def test_full_disk_is_an_error_until_it_has_space(started, monkeypatch):
    camera = Camera()
    persistence = started(camera, period_sec=3600.0)
    camera.show(2)
    full = os.statvfs_result((4096, 4096, 100, 0, 0, 1, 1, 1, 0, 255))
    with monkeypatch.context() as patched:
        patched.setattr(os, "fstatvfs", lambda _: full)
        persistence.request_save()
        wait_until(lambda: persistence.report().error, "an error")
        status = persistence_status(persistence.report())
        assert status.level == Level.WARN
        assert "No space left on device" in status.message
    # then the save is repeated long before the period ends
    wait_until(lambda: not persistence.report().error, "no error")
    assert persistence_status(persistence.report()).level == Level.OK


def test_full_disk_is_reported_before_the_next_save(wait_for_calls, started, monkeypatch):
    camera = Camera()
    camera.show(2)
    persistence = started(camera, period_sec=3600.0)
    wait_until(lambda: persistence.report().times_written, "a file")
    full = os.statvfs_result((4096, 4096, 100, 0, 0, 1, 1, 1, 0, 255))
    with monkeypatch.context() as patched:
        patched.setattr(os, "fstatvfs", lambda _: full)
        began = time.monotonic()
        wait_until(lambda: persistence.report().error, "an error")
        assert time.monotonic() - began < 30  # one second on an idle machine
        assert persistence_status(persistence.report()).level == Level.WARN
        # and remains while there is no space, although nothing has to be saved
        wait_for_calls("check")
        assert persistence.report().error
    wait_until(lambda: not persistence.report().error, "no error")
    assert persistence.report().times_written == 1


def test_full_disk_is_reported_after_a_restart_before_the_first_save(started, monkeypatch):
    camera = Camera()
    camera.show(2)
    before = started(camera, period_sec=3600.0)
    wait_until(lambda: before.report().times_written, "a file")
    before.close(30.0)
    # when
    full = os.statvfs_result((4096, 4096, 100, 0, 0, 1, 1, 1, 0, 255))
    monkeypatch.setattr(os, "fstatvfs", lambda _: full)
    persistence = started(Camera(), period_sec=3600.0)
    wait_until(lambda: persistence.report().error, "an error")
    assert persistence.report().times_written == 0


def test_missing_space_for_the_larger_file_does_not_shorten_the_period_of_the_smaller(
    wait_for_calls, started, monkeypatch
):
    # given a disk with space for the file of the smaller camera only
    large, small = Camera("large"), Camera("small")
    large.show(2)
    persistence = started(large, small, period_sec=3600.0)
    wait_until(lambda: persistence.report().times_written == 2, "two files")
    little = os.statvfs_result((1, 1, 10_000, 3000, 3000, 1, 1, 1, 0, 255))
    monkeypatch.setattr(os, "fstatvfs", lambda _: little)
    wait_until(lambda: persistence.report().error, "an error")
    # when
    small.show(2)
    wait_for_calls("check", 5)
    # then the smaller camera keeps its period
    assert persistence.report().times_written == 2


@pytest.mark.parametrize("folder", ["/nonexistent/folder", "/dev/null"])
def test_missing_folder_is_reported_and_does_not_raise(started, folder):
    camera = Camera()
    persistence = started(camera, folder=folder)
    camera.show(2)
    assert folder in persistence.report().error
    persistence.request_save()


def test_corrupt_file_is_set_aside_and_reported_until_key_frames_are_saved(started, tmp_path):
    (tmp_path / "camera.star").write_bytes(b"DVLMSTAR and no more")
    camera = Camera()
    persistence = started(camera)
    report = persistence.report()
    assert camera.frame_manager.snapshot() == ()
    assert "camera.star" in report.warnings[0]
    assert persistence_status(report).level == Level.WARN
    wait_for_files(persistence)
    assert persistence_status(persistence.report()).level == Level.WARN
    # until key frames are on the disk again
    camera.show(2)
    wait_until(lambda: persistence_status(persistence.report()).level == Level.OK, "no warning")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["camera.star", "camera.star.aside-1"]


def test_file_set_aside_is_reported_until_the_same_camera_saves(started, tmp_path):
    # given
    (tmp_path / "front.star").write_bytes(b"bad")
    front, rear = Camera("front"), Camera("rear")
    persistence = started(front, rear)
    assert persistence.report().not_replaced
    # when / then
    rear.show(4)
    wait_until(lambda: persistence.report().written_bytes > 5000, "key frames of the other camera")
    assert persistence.report().not_replaced
    front.show(4)
    wait_until(lambda: not persistence.report().not_replaced, "key frames of the same camera")


def test_file_that_can_be_neither_used_nor_moved_is_not_overwritten(started, tmp_path, monkeypatch):
    (tmp_path / "camera.star").write_bytes(b"precious")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", refuse)
        camera = Camera()
        persistence = started(camera)
    camera.show(2)
    persistence.request_save()
    persistence.close(60.0)
    assert "camera.star" in persistence.report().error
    assert (tmp_path / "camera.star").read_bytes() == b"precious"
    # and the folder is unlocked
    assert not started(Camera()).report().error


def test_file_with_frames_of_another_geometry_is_set_aside(started):
    camera = Camera()
    persistence = started(camera)
    camera.show(2)
    persistence.close(60.0)
    after = Camera()
    again = started(after, geometry=replace(FrameGeometry(), max_pixels=100_352))
    assert "memory.max_pixels" in again.report().warnings[0]
    assert after.frame_manager.snapshot() == ()


def test_file_of_another_camera_is_set_aside(started, tmp_path):
    camera = Camera("front")
    persistence = started(camera)
    camera.show(2)
    persistence.close(60.0)
    (tmp_path / "front.star").rename(tmp_path / "rear.star")
    (warning,) = started(Camera("rear")).report().warnings
    assert "rear.star" in warning
    assert "front" in warning


def test_file_with_ids_of_another_camera_is_set_aside(started, tmp_path):
    # given the files of two cameras from different runs, with the same ids
    ids = PairIds()
    front, rear = Camera("front", ids), Camera("rear", ids)
    persistence = started(front, rear)
    front.show(2)
    rear.show(2)
    persistence.close(60.0)
    content = (tmp_path / "front.star").read_bytes()
    lone = Camera("rear")
    (tmp_path / "rear.star").unlink()
    persistence = started(lone)
    lone.show(2)
    persistence.close(60.0)
    (tmp_path / "front.star").write_bytes(content)
    # when
    ids = PairIds()
    front, rear = Camera("front", ids), Camera("rear", ids)
    again = started(front, rear)
    # then
    assert "rear.star" in again.report().warnings[0]
    rear.show(2)
    assert [kept.id for camera in (front, rear) for kept in camera.frame_manager.snapshot()] == [1, 2]


def test_defect_in_a_save_is_reported_and_the_thread_continues(started, monkeypatch):
    camera = Camera()
    persistence = started(camera)

    def fail(*_, **__):
        raise ZeroDivisionError("planted")

    with monkeypatch.context() as patched:
        patched.setattr(folder_module.MemoryFolder, "save", fail)
        camera.show(2)
        wait_until(lambda: "ZeroDivisionError: planted" in persistence.report().error, "the defect")
    wait_until(lambda: not persistence.report().error, "no error")


def test_defect_that_ends_the_thread_is_reported(started, monkeypatch):
    # given
    def defect(_folder):
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(folder_module.MemoryFolder, "check", defect)

    # when
    persistence = started(Camera())

    # then
    wait_until(lambda: persistence.report().error, "an error")
    assert "planted" in persistence.report().error
    assert persistence_status(persistence.report()).level == Level.WARN


def test_memory_that_cannot_be_read_back_is_reported_and_the_previous_file_stays(started, tmp_path):
    # given a saved memory
    camera = Camera()
    persistence = started(camera, period_sec=3600.0)
    camera.show(2)
    persistence.request_save()
    wait_until(lambda: persistence.report().written_bytes > 2000, "a file")
    before = (tmp_path / "camera.star").read_bytes()
    # when a later frame has a stamp that no file can hold
    camera.show(2, after=2000.0)
    camera.frame_manager.snapshot()[-1].pair.last.source.stamp_ns = 2**64
    camera.frame_manager.mark(camera.frame_manager.snapshot()[-1].id)
    persistence.request_save()
    # then
    wait_until(lambda: persistence.report().error, "an error")
    status = persistence_status(persistence.report())
    assert status.level == Level.WARN
    assert "camera.star" in status.message
    assert "next start" in status.message
    assert (tmp_path / "camera.star").read_bytes() == before
    # and once it is gone, the memory is saved again
    camera.frame_manager.reset()
    wait_until(lambda: not persistence.report().error, "no error")


def wait_for_status(persistence, level, named=""):
    wait_until(lambda: persistence_status(persistence.report()).level == level, f"{level.name} of persistence")
    assert named in persistence_status(persistence.report()).message


@pytest.fixture
def saved_once(started, tmp_path):
    """Return persistence that has saved a camera's key frames and writes the next file in an hour, and its folder."""
    folder = tmp_path / "folder"
    folder.mkdir()
    camera = Camera()
    camera.show(4)
    persistence = started(camera, folder=folder, period_sec=3600.0)
    wait_for_files(persistence)
    return persistence, folder


def test_removed_folder_is_a_warning_until_it_is_made_again(saved_once):
    persistence, folder = saved_once
    content = (folder / "camera.star").read_bytes()
    began = time.monotonic()
    shutil.rmtree(folder)
    wait_for_status(persistence, Level.WARN, "removed or renamed")
    assert time.monotonic() - began < 30  # one second on an idle machine
    # when
    folder.mkdir()
    # then the key frames are saved again, and no other node can use the folder
    wait_for_status(persistence, Level.OK)
    wait_until((folder / "camera.star").exists, "the file")
    assert (folder / "camera.star").read_bytes() == content
    with pytest.raises(MemoryFileError, match="in use"):
        folder_module.MemoryFolder(str(folder), str, str)


def test_renamed_folder_is_a_warning_and_is_not_written_until_it_returns(wait_for_calls, saved_once, tmp_path):
    persistence, folder = saved_once
    folder.rename(tmp_path / "elsewhere")
    wait_for_status(persistence, Level.WARN, "removed or renamed")
    (tmp_path / "elsewhere" / "camera.star").unlink()
    persistence.request_save()
    wait_for_calls("save")
    assert not list((tmp_path / "elsewhere").iterdir())
    (tmp_path / "elsewhere").rename(folder)
    wait_for_status(persistence, Level.OK)
    wait_until((folder / "camera.star").exists, "the file")


def test_quickly_replaced_folder_gets_the_file(saved_once):
    persistence, folder = saved_once
    shutil.rmtree(folder)
    folder.mkdir()
    wait_until((folder / "camera.star").exists, "the file")
    wait_for_status(persistence, Level.OK)


def test_removed_file_is_written_again(saved_once):
    _, folder = saved_once
    content = (folder / "camera.star").read_bytes()
    (folder / "camera.star").unlink()
    wait_until((folder / "camera.star").exists, "the file")
    assert (folder / "camera.star").read_bytes() == content


@pytest.mark.parametrize("kind", ["file", "link", "other files", "other node"])
def test_folder_replaced_by_something_else_is_a_warning_and_stays_unchanged(wait_for_calls, saved_once, tmp_path, kind):
    persistence, folder = saved_once
    folder.rename(tmp_path / "before")
    (tmp_path / "other").mkdir()
    replace_folder(kind, folder, tmp_path / "other")
    wait_for_status(persistence, Level.WARN)
    persistence.request_save()
    wait_for_calls("save")
    wait_for_status(persistence, Level.WARN)
    found = list(folder.iterdir()) if folder.is_dir() else []
    assert [path.read_bytes() for path in found] == ([b"foreign"] if kind == "other files" else [])


def replace_folder(kind, folder, other):
    """Put something else at the folder's path."""
    if kind == "file":
        folder.write_bytes(b"")
    elif kind == "link":
        folder.symlink_to(other)
    else:
        if kind == "other files":
            (other / "camera.star").write_bytes(b"foreign")
        else:
            fcntl.flock(os.open(other, os.O_RDONLY), fcntl.LOCK_EX)
        other.rename(folder)


def test_mount_point_of_an_unmounted_disk_is_a_warning_and_stays_empty(wait_for_calls, started, tmp_path):
    # given a mount that is on the disk of its mount point, which is harder to notice
    disk, folder = tmp_path / "disk", tmp_path / "folder"
    disk.mkdir()
    folder.mkdir()
    mount = ["mount", "--bind", str(disk), str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a disk requires privileges")
    try:
        persistence = started(Camera(), folder=folder, period_sec=3600.0)
        wait_for_files(persistence)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
    # then
    wait_for_status(persistence, Level.WARN, "another disk")
    persistence.request_save()
    wait_for_calls("save")
    assert not list(folder.iterdir())
    # when it is mounted again
    subprocess.run(mount, check=True)
    try:
        wait_for_status(persistence, Level.OK)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_disk_that_becomes_read_only_is_reported_although_nothing_changes(saved_once, monkeypatch):
    persistence, _ = saved_once
    with monkeypatch.context() as patched:
        patched.setattr(os, "access", lambda *_, **__: False)
        wait_for_status(persistence, Level.WARN, "not writable")
    wait_for_status(persistence, Level.OK)
    assert persistence.report().times_written == 1
