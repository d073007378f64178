"""Key frames that survive a restart, a kill and a full disk, over DDS."""

import array
import contextlib
import gzip
import os
import random
import resource
import shutil
import signal
import subprocess
import threading
import time

import numpy as np
import pytest
from delayed_vlm_ros.srv import AskScene, GetFrames, Mark
from harness import ROOT, values_of
from waiting import Stopwatch, wait_until

HEIGHT, WIDTH = 112, 140  # frame size of the embedded model
FRAME_BYTES = HEIGHT * WIDTH * 3
KILLS = int(os.environ.get("PERSISTENCE_NODE_KILLS", "3"))
WITHIN_SEC = 2.0
HEADROOM = 5  # on busy machines
WARN, OK = b"\x01", b"\x00"


def blocks(seed):
    """Return an image that differs from all others."""
    cells = np.random.default_rng(seed).integers(20, 220, (4, 4, 3), np.uint8)
    return cells.repeat(HEIGHT // 4, axis=0).repeat(WIDTH // 4, axis=1)


def novel(client, seed):
    return client.image(height=HEIGHT, width=WIDTH, data=array.array("B", blocks(seed).tobytes()))


def show_novel(client, count):
    """Publish images that are all important, and wait until all are sampled."""
    client.connect_images()
    before = client.wait_for_stats().images_sampled
    for seed in range(count):
        client.publish(novel(client, seed))
    client.wait_for_stats(lambda stats: stats.images_sampled >= before + count, since_ns=0)


def key_frames(client):
    """Return the kept frames by id, with the bytes of both images."""
    response = client.call(GetFrames, "scene_memory/get_frames", GetFrames.Request())
    return {
        frame.id: (frame, bytes(first.data), bytes(second.data))
        for frame, first, second in zip(response.key_frames, response.first_images, response.second_images, strict=True)
    }


def star_of(kept):
    return {
        pair_id: (
            frame.header,
            frame.end_stamp,
            frame.importance,
            frame.reason,
            frame.marked,
            frame.label,
            first,
            second,
        )
        for pair_id, (frame, first, second) in kept.items()
        if frame.in_star
    }


def persistence(client, condition=lambda _: True, **since):
    return client.wait_for_status("persistence", condition, **since)


def test_key_frames_survive_a_restart_and_are_used_in_answers(start, tmp_path):
    # given a node with key frames and a marked pair
    options = {"namespace": "/restarted", "memory__sample_fps": 20.0, "memory__star__size": 8}
    options |= {"persistence__folder": str(tmp_path), "persistence__period_sec": 3600.0}
    process, client = start(**options)
    client.wait_until_ready()
    show_novel(client, 9)
    marked = client.call(Mark, "scene_memory/mark", Mark.Request(label="keys on the table")).key_frame
    before = star_of(key_frames(client))
    assert marked.id in before

    # when it saves at its end and starts again
    code, seconds = process.end(signal.SIGINT)
    assert (code, seconds < WITHIN_SEC) == (0, True), process.log
    assert [path.name for path in tmp_path.iterdir()] == ["camera.star"]
    process.close()
    client.close()
    process, client = start(fake=False, **options)
    client.wait_until_ready()

    # then the real model answers from the restored frames before any image arrives
    response = client.ask("What color is the cube?")
    assert response.success, response.error_msg
    assert [frame.id for frame in response.frames_used] == sorted(before)
    assert star_of(key_frames(client)) == before
    status = persistence(client)
    assert status.level == OK
    assert values_of(status)["restored frames"] == str(sum(1 + bool(one[-1]) for one in before.values()))

    # and new frames follow them
    show_novel(client, 2)
    response = client.ask("What color is the cube?")
    ids = [frame.id for frame in response.frames_used]
    assert ids == sorted(ids)
    assert ids[-1] > max(before)
    assert set(before) <= set(ids) or len(before) == 4  # Star may have evicted one for a new pair
    assert any(frame.label == "keys on the table" for frame in response.frames_used)

    # and a reset also empties the file
    assert client.reset().success
    wait_until(lambda: (tmp_path / "camera.star").stat().st_size < FRAME_BYTES, "an empty file")


def test_key_frames_of_version_0_1_0_are_restored_with_marks_and_poses(start, tmp_path):
    # given a file that 0.1.0 wrote
    content = gzip.decompress((ROOT / "test" / "unit" / "storage" / "camera_0_1_0.star.gz").read_bytes())
    (tmp_path / "camera.star").write_bytes(content)
    # when
    _, client = start(persistence__folder=str(tmp_path))
    client.wait_until_ready()
    # then
    kept = [frame for frame, _, _ in key_frames(client).values()]
    assert [(frame.id, frame.label, frame.header.frame_id) for frame in kept] == [
        (1, "my bag", "lens"),
        (3, "", "lens"),
        (5, "", "lens"),
    ]
    assert [(frame.pose_valid, frame.pose.pose.position.x) for frame in kept] == [(True, 0.0), (True, 4.0), (True, 8.0)]
    assert persistence(client).level == OK


class Publishing(threading.Thread):
    """Publishes important images until ``end``."""

    def __init__(self, client):
        super().__init__(daemon=True)
        self.client = client
        self.closing = threading.Event()
        self.start()

    def run(self):
        while not self.closing.is_set():
            self.client.publish(novel(self.client, random.randrange(10**6)))

    def end(self):
        self.closing.set()
        self.join()


def test_key_frames_survive_kills_at_random_times(start, tmp_path):
    options = {"namespace": "/killed", "memory__sample_fps": 50.0, "persistence__folder": str(tmp_path)}
    options |= {"persistence__period_sec": 0.1, "memory__star__size": 40}
    process, client = start(**options)
    interrupted = 0
    for kill in range(KILLS):
        client.wait_until_ready()
        publishing = Publishing(client)
        persistence(client, lambda status: int(values_of(status)["last file"].split()[0]) > FRAME_BYTES)
        time.sleep(random.random() * 0.5)
        process.process.send_signal(signal.SIGKILL)
        process.process.wait()
        publishing.end()
        interrupted += (tmp_path / "camera.star.new").exists()
        process.close()
        client.close()
        # when
        process, client = start(**options)
        # then
        client.wait_until_ready()
        values = values_of(persistence(client))
        assert "set aside 1" not in values, (kill, values)
        assert int(values["restored frames"]) >= 1
        response = client.ask()
        assert response.success
        assert len(response.frames_used) == len(key_frames(client))
    print(f"{KILLS} kills, {interrupted} of them while writing")
    assert {path.name for path in tmp_path.iterdir()} <= {"camera.star", "camera.star.new"}


def test_unusable_file_is_set_aside_with_a_warning(start, tmp_path):
    content = b"DVLMSTAR" + bytes(1000)
    (tmp_path / "camera.star").write_bytes(content)
    options = {"persistence__folder": str(tmp_path), "persistence__period_sec": 0.1}
    process, client = start(memory__sample_fps=50.0, **options)
    client.wait_until_ready()
    status = persistence(client)
    assert status.level == WARN
    assert "camera.star.aside-1" in status.message
    assert client.ask().error_code == AskScene.Response.NO_FRAMES
    # and the warning persists until key frames are on the disk again
    assert persistence(client).level == WARN
    show_novel(client, 2)
    assert persistence(client, lambda status: status.level == OK)
    assert (tmp_path / "camera.star.aside-1").read_bytes() == content
    assert process.alive


@pytest.fixture
def small_disk(tmp_path):
    """Return a folder on a disk of 4 MB, and functions to fill and to empty it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a disk requires privileges")
    ballast = folder / "ballast"

    def fill(_process):
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    yield folder, fill, lambda _process: ballast.unlink()
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def small_files(tmp_path):
    """Return a folder, and functions to set and to remove a limit of the process's file size."""

    def limit(process, size):
        resource.prlimit(process.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    # More than DDS needs, less than 16 key frames.
    return tmp_path, lambda process: limit(process, 700_000), lambda process: limit(process, resource.RLIM_INFINITY)


def test_full_disk_is_reported_before_the_next_save(small_disk, start):
    # given a file that is due in an hour
    folder, fill, empty = small_disk
    options = {"persistence__folder": str(folder), "persistence__period_sec": 3600.0, "memory__sample_fps": 50.0}
    process, client = start(memory__star__size=40, **options)
    client.wait_until_ready()
    show_novel(client, 2)
    client.transition("deactivate")
    client.transition("cleanup")  # saves it
    client.transition("configure")
    client.transition("activate")
    persistence(client, lambda status: int(values_of(status)["restored frames"]) > 0)
    # when
    with Stopwatch() as watch:
        began_ns = client.now_ns()
        fill(process)
        status, reported_ns = client.wait_for_report("persistence", lambda status: status.level == WARN, began_ns)
        empty(process)
        emptied_ns = client.now_ns()
        _, cleared_ns = client.wait_for_report("persistence", lambda status: status.level == OK, emptied_ns)
    # then
    assert "No space left on device" in status.message
    assert (reported_ns - began_ns) * 1e-9 / watch.slowdown < WITHIN_SEC
    assert (cleared_ns - emptied_ns) * 1e-9 / watch.slowdown < WITHIN_SEC


@pytest.mark.parametrize("kind", ["small_disk", "small_files"])
def test_full_disk_is_a_warning_until_it_has_space(request, start, kind):
    # given
    folder, fill, empty = request.getfixturevalue(kind)
    options = {"persistence__folder": str(folder), "persistence__period_sec": 0.2, "memory__sample_fps": 50.0}
    process, client = start(memory__star__size=40, **options)
    client.wait_until_ready()
    show_novel(client, 2)
    persistence(client, lambda status: int(values_of(status)["last file"].split()[0]) > FRAME_BYTES)

    # when
    fill(process)
    began_ns = client.now_ns()
    publishing = Publishing(client)
    # Missing space may be reported before the file is written.
    status = client.wait_for_status(
        "persistence",
        lambda status: status.level == WARN and "camera.star" in status.message,
        since_ns=began_ns,
    )
    publishing.end()
    client.show_images(1)  # all earlier images have arrived too

    # then
    assert "camera.star" in status.message
    assert process.alive
    assert client.ask().success
    kept = star_of(key_frames(client))
    assert len(kept) >= 2

    # when there is space again
    empty(process)
    began, began_ns = time.monotonic(), client.now_ns()
    client.wait_for_status("persistence", lambda status: status.level == OK, since_ns=began_ns)
    cleared_sec = time.monotonic() - began

    # then all key frames are on the disk
    print(f"{kind}: cleared within {cleared_sec:.2f} s")
    assert cleared_sec < WITHIN_SEC * HEADROOM
    assert (folder / "camera.star").stat().st_size > len(kept) * FRAME_BYTES
    assert star_of(key_frames(client)) == kept


def remount(folder, mode):
    subprocess.run(["mount", "-o", f"remount,{mode}", str(folder)], check=True, capture_output=True)


def test_read_only_or_removed_folder_is_reported_before_the_next_save(small_disk, start):
    # given a file that is due in an hour, on a disk that is read-only at configure
    folder = small_disk[0]
    used = folder / "used"
    used.mkdir()
    options = {"persistence__folder": str(used), "persistence__period_sec": 3600.0, "memory__sample_fps": 50.0}
    _, client = start(**options)
    client.wait_until_ready()
    show_novel(client, 2)
    client.transition("deactivate")
    client.transition("cleanup")  # saves it
    remount(folder, "ro")
    with Stopwatch() as watch:
        began_ns = client.now_ns()
        client.transition("configure")
        status, reported_ns = client.wait_for_report("persistence", lambda status: status.level == WARN, began_ns)
        remount(folder, "rw")
        writable_ns = client.now_ns()
        _, cleared_ns = client.wait_for_report("persistence", lambda status: status.level == OK, writable_ns)
        # when the folder is removed and made again
        shutil.rmtree(used)
        removed_ns = client.now_ns()
        gone, gone_ns = client.wait_for_report("persistence", lambda status: status.level == WARN, removed_ns)
        used.mkdir()
        client.wait_for_report("persistence", lambda status: status.level == OK, client.now_ns())
        wait_until((used / "camera.star").exists, "the file")
    assert "read-only" in status.message
    assert "removed" in gone.message
    times = (reported_ns - began_ns, cleared_ns - writable_ns, gone_ns - removed_ns)
    assert max(times) * 1e-9 / watch.slowdown < WITHIN_SEC
