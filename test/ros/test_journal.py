"""The journal over DDS: lines about evicted pairs, which survive what the memory does not."""

import array
import json
import os
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
from builtin_interfaces.msg import Time
from delayed_vlm_ros.srv import GetJournal
from geometry_msgs.msg import PoseStamped
from harness import ROOT, values_of
from std_srvs.srv import Trigger
from waiting import wait_until

HEIGHT, WIDTH = 112, 140
SHOWN = 60  # images, after which some pairs have left Star memory
OPTIONS = {"memory__sample_fps": 60.0, "memory__star__size": 8, "memory__stream__size": 2, "journal__enabled": True}
OK, WARN = b"\x00", b"\x01"


def novel(client, seed, **fields):
    """Return a message with an image that differs from all others."""
    cells = np.random.default_rng(seed).integers(20, 220, (4, 4, 3), np.uint8)
    pixels = cells.repeat(HEIGHT // 4, axis=0).repeat(WIDTH // 4, axis=1)
    return client.image(height=HEIGHT, width=WIDTH, data=array.array("B", pixels.tobytes()), **fields)


def show_novel(client, count, seed=0):
    """Publish important images, most of which leave the memory; wait until all are sampled."""
    client.connect_images()
    before = client.wait_for_stats().images_sampled
    for number in range(count):
        client.publish(novel(client, seed + number))
    client.wait_for_stats(lambda stats: stats.images_sampled >= before + count, since_ns=0)


def get(client, **fields):
    return client.call(GetJournal, "scene_memory/get_journal", GetJournal.Request(**fields))


def status_when(client, condition):
    return client.wait_for_status("journal", lambda status: condition(values_of(status)))


def wait_for_lines(client, count):
    """Wait until no evicted pair waits, and return the lines."""
    status = status_when(client, lambda values: int(values["lines"]) >= count and values["waiting"] == "0")
    assert status.level == OK, status.message
    return get(client).lines


def command(client, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "delayed_vlm_ros.cli.main", "journal", "--namespace", client.namespace, *arguments],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "160"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_evicted_pairs_become_lines_that_survive_reset_and_restart(start, tmp_path):
    # given a node whose camera moves
    options = {"namespace": "/noted", "persistence__folder": str(tmp_path), **OPTIONS}
    process, client = start(**options)
    client.wait_until_ready()
    client.connect_images()
    show_novel(client, SHOWN)

    # then each pair that has left gets one line, in the order in which it left
    lines = wait_for_lines(client, 2)
    numbers = [line.journal_id for line in lines]
    assert numbers == list(range(len(lines), 0, -1))
    assert {line.caption for line in lines} == {"about What do you see?"}
    assert {line.camera for line in lines} == {"camera"}
    assert all(line.id == 0 and line.score == 0 and line.reason and not line.pose_valid for line in lines)
    assert all(line.header.frame_id and not line.thumbnail.data for line in lines)

    # and images and limits work
    page = get(client, max_lines=2, include_thumbnails=True)
    assert ([line.journal_id for line in page.lines], page.lines_left) == (numbers[:2], len(lines) - 2)
    thumbnail = cv2.imdecode(np.frombuffer(page.lines[0].thumbnail.data, np.uint8), cv2.IMREAD_COLOR)
    assert thumbnail.shape[1] <= WIDTH
    assert get(client, before_id=numbers[-1]).lines == []
    assert [line.journal_id for line in get(client, before_id=numbers[0], max_lines=1).lines] == [numbers[1]]
    oldest = min(lines, key=lambda line: (line.header.stamp.sec, line.header.stamp.nanosec))
    assert get(client, until=oldest.end_stamp).lines[0] == oldest
    assert get(client, camera="*").lines == lines

    # and they survive a reset, a kill and a restart
    assert client.reset().success
    assert get(client).lines == lines
    process.process.send_signal(signal.SIGKILL)
    process.process.wait()
    process.close()
    client.close()
    process, client = start(**options)
    client.wait_until_ready()
    wait_until(lambda: get(client).success, "the journal")
    assert get(client).lines == lines

    # and a person sees them
    shown = command(client, "--max", "1")
    assert shown.returncode == 0, shown.stderr
    assert "about What do you see?" in shown.stdout
    assert "\n1 line; " in shown.stdout
    assert "not shown: use --max or --until" in shown.stdout
    printed = json.loads(command(client, "--json", "--max", "1000").stdout)
    assert [line["journal_id"] for line in printed["lines"]] == numbers[::-1]
    assert printed["lines"][-1]["caption"] == "about What do you see?"

    # until somebody removes them
    cleared = command(client, "--clear")
    assert cleared.stdout == f"the journal is empty: {len(lines)} lines were removed from the disk\n"
    assert get(client).lines == []
    show_novel(client, SHOWN, seed=100)
    assert wait_for_lines(client, 2)[-1].journal_id > numbers[0]
    code, _ = process.end(signal.SIGINT)
    assert code == 0, process.log
    assert sorted(path.name for path in tmp_path.iterdir()) == ["camera.star", "journal.sqlite3"]


def test_invalid_requests_are_refused_with_the_reason(start, tmp_path):
    _, client = start(namespace="/refused", persistence__folder=str(tmp_path), **OPTIONS)
    client.wait_until_ready()
    wait_until(lambda: get(client).success, "the journal")
    for fields, reason in (
        ({"camera": "rear"}, "the journal has no lines of camera 'rear'"),
        ({"since": Time(sec=5), "until": Time(sec=4)}, "'since' (5.000 s) is after 'until' (4.000 s)"),
        ({"since": Time(sec=-1)}, "'since'"),
        ({"max_lines": 2001}, "'max_lines' must be at most 2000, got 2001"),
    ):
        response = get(client, **fields)
        assert not response.success
        assert reason in response.error_msg
    assert get(client, before_id=2**64 - 1).success
    shown = command(client)
    assert (shown.returncode, shown.stdout) == (0, "0 lines\n"), shown.stderr
    shown = command(client, "--camera", "rear")
    assert shown.returncode == 1
    assert "error: the journal has no lines of camera 'rear'" in shown.stderr


def test_node_without_a_journal_says_so(start, tmp_path):
    process, client = start(namespace="/without", autostart=False, persistence__folder=str(tmp_path))
    response = get(client)
    assert not response.success
    assert "the node is not active but unconfigured" in response.error_msg
    assert client.transition("configure")
    response = get(client)
    assert response.success
    assert response.warnings[0].startswith("the journal is off: set the parameters journal.enabled")
    assert "warning: the journal is off" in command(client).stdout
    response = client.call(Trigger, "scene_memory/clear_journal", Trigger.Request())
    assert not response.success
    assert "the journal is off" in response.message
    assert process.alive


def test_journal_without_a_folder_is_refused_at_configure(start):
    _, client = start(namespace="/no_folder", journal__enabled=True)
    status = client.wait_for_status("lifecycle", lambda status: "journal.enabled" in status.message, since_ns=0)
    assert "parameter journal.enabled needs persistence.folder" in status.message


def test_folder_in_use_by_another_node_is_reported_and_its_journal_untouched(start, tmp_path):
    _, first = start(namespace="/first", persistence__folder=str(tmp_path), **OPTIONS)
    first.wait_until_ready()
    wait_until(lambda: get(first).success, "the journal")
    process, second = start(namespace="/second", persistence__folder=str(tmp_path), **OPTIONS)
    second.wait_until_ready()
    status = second.wait_for_status("journal", lambda status: status.level == WARN)
    assert "in use by another node" in status.message
    response = get(second)
    assert not response.success
    assert "in use by another node" in response.error_msg
    show_novel(second, SHOWN)
    time.sleep(2.5)  # captions would begin
    values = values_of(status_when(second, lambda values: values["lines"] == "0"))
    assert (values["waiting"], values["dropped"], values["device time"]) == ("0", "0", "0.0 s")  # no caption is made
    show_novel(first, SHOWN, seed=100)
    assert wait_for_lines(first, 2)
    assert process.alive


def test_question_interrupts_a_caption_which_is_tried_again(start, tmp_path):
    # given captions of half a minute, in which the engine can be cancelled
    options = {**OPTIONS, "journal__question": "work 30", "persistence__folder": str(tmp_path)}
    _, client = start(namespace="/interrupted", **options)
    client.wait_until_ready()
    show_novel(client, SHOWN)
    time.sleep(2.5)  # a caption begins a second after the model was loaded
    waiting = int(values_of(status_when(client, lambda values: int(values["waiting"]) > 0))["waiting"])

    # when a caption is at work
    began = time.monotonic()
    response = client.ask("What is there?")

    # then the question is answered first, and no pair is lost
    assert response.success, response.error_msg
    assert time.monotonic() - began < 5.0
    values = values_of(status_when(client, lambda values: int(values["waiting"]) == waiting + 1))
    assert (values["dropped"], values["lines"]) == ("0", "0")
    assert 1.0 < float(values["device time"].split()[0]) < 25.0


def test_failing_captions_are_reported_and_questions_are_answered(start, tmp_path):
    options = {**OPTIONS, "journal__question": "defect", "persistence__folder": str(tmp_path)}
    process, client = start(namespace="/failing", **options)
    client.wait_until_ready()
    show_novel(client, SHOWN)
    status = client.wait_for_status("journal", lambda status: status.level == WARN and "planted" in status.message)
    assert "internal error, ZeroDivisionError: planted by the test" in status.message
    assert int(values_of(status)["waiting"]) > 0
    assert any("planted by the test" in warning for warning in get(client).warnings)
    assert client.ask("What is there?").success
    assert "Traceback" in process.log


def test_damaged_journal_is_set_aside_and_reported(start, tmp_path):
    (tmp_path / "journal.sqlite3").write_text("damaged " * 1000)
    _, client = start(namespace="/damaged", persistence__folder=str(tmp_path), **OPTIONS)
    client.wait_until_ready()
    status = client.wait_for_status("journal", lambda status: status.level == WARN and "set aside" in status.message)
    assert "set aside as journal.sqlite3.aside, the journal starts empty" in status.message
    assert any("set aside" in warning for warning in get(client).warnings)
    show_novel(client, SHOWN)
    assert wait_for_lines(client, 2)


def test_line_has_the_pose_at_its_time(start, tmp_path):
    _, client = start(namespace="/placed", persistence__folder=str(tmp_path), **OPTIONS)
    client.wait_until_ready()
    client.connect_images()
    client.reset()  # those images have no poses
    poses = client.node.create_publisher(PoseStamped, "pose", 100)
    wait_until(lambda: poses.get_subscription_count() > 0, "a subscription")
    expected = {}
    for number in range(SHOWN):
        image = novel(client, number)
        pose = PoseStamped()
        pose.header.stamp, pose.header.frame_id = image.header.stamp, "map"
        pose.pose.position.x, pose.pose.orientation.z, pose.pose.orientation.w = float(number), 0.6, 0.8
        expected[image.header.stamp.sec, image.header.stamp.nanosec] = pose
        poses.publish(pose)
        client.publish(image)
        time.sleep(0.02)
    lines = wait_for_lines(client, 2)
    assert all(line.pose_valid for line in lines)
    assert all(line.pose == expected[line.header.stamp.sec, line.header.stamp.nanosec] for line in lines)
