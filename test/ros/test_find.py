"""``~/find_moments`` over DDS: moments with times, poses and thumbnails, faults, deadlines, and questions meanwhile."""

from __future__ import annotations

import array
import io
import itertools
import json
import time

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from command_line import run_forked
from delayed_vlm_ros.srv import AskScene, FindMoments, GetJournal
from harness import nanoseconds, values_of
from PIL import Image
from waiting import PATIENCE_SEC, wait_until

from delayed_vlm_ros.ros.client import SceneMemoryClient

ERROR = AskScene.Response
DARK, BRIGHT = 20, 240


@pytest.fixture(scope="module")
def room(start_for_module):
    """A node whose camera saw the dark, a light, and the dark again, with poses; and the stamps of its images."""
    process, client = start_for_module(
        memory__sample_fps=50.0, pose__source="PoseStamped", ask__max_question_characters=2000
    )
    client.wait_until_ready()
    return process, client, client.show_with_poses([DARK] * 6 + [BRIGHT] * 4 + [DARK] * 6)


@pytest.fixture
def find(room):
    """Return a function that searches, and returns the response."""
    _, client, _ = room

    def call(description, **fields):
        request = FindMoments.Request(description=description, **fields)
        return client.call(FindMoments, "scene_memory/find_moments", request)

    return call


def warnings_of(response):
    """Return the warnings without the one of all cameras whose images cv_bridge does not convert."""
    return [warning for warning in response.warnings if "cv_bridge" not in warning]


def test_moment_has_its_times_pose_and_thumbnail(room, find):
    _, client, stamps = room
    response = find("a light", include_thumbnails=True)
    assert response.success, response.error_msg
    best = response.moments[0]
    assert best.score == pytest.approx(0.9)
    assert (best.camera, best.header.frame_id) == ("camera", "lens")
    assert [nanoseconds(best.header.stamp), nanoseconds(best.end_stamp)] == [stamps[6], stamps[9]]
    assert best.id in [frame.id for frame in client.ask().frames_used]
    assert best.pose_valid
    assert 6 <= best.pose.pose.position.x <= 9
    image = Image.open(io.BytesIO(bytes(best.thumbnail.data)))
    assert image.convert("L").getpixel((5, 5)) > 200
    # then all others follow, with lower scores
    assert [moment.score for moment in response.moments[1:]] == pytest.approx([0.1] * (len(response.moments) - 1))
    assert response.pairs_searched == len(stamps) // 2
    assert response.question == 'Does the video show this: "a light"? Answer yes or no.'
    assert (response.journal_lines_searched, warnings_of(response)) == (0, [])


def test_limits_are_respected(room, find):
    _, _, stamps = room
    dark = find("a light", until=ros_time(stamps[5]))
    assert {round(moment.score, 1) for moment in dark.moments} == {0.1}
    assert dark.pairs_searched == 3
    assert len(find("a light", max_moments=2).moments) == 2
    assert not len(find("a light").moments[0].thumbnail.data)


@pytest.mark.parametrize(
    ("description", "fields", "code", "words"),
    [
        ("", {}, ERROR.BAD_REQUEST, "empty"),
        (" ...", {}, ERROR.BAD_REQUEST, "empty"),
        ("x" * 10_000, {}, ERROR.BAD_REQUEST, "10000 characters, limit 2000"),
        ("a light", {"camera": "rear"}, ERROR.UNKNOWN_CAMERA, "rear"),
        ("a light", {"since": Time(sec=20), "until": Time(sec=10)}, ERROR.BAD_REQUEST, "'since'"),
        ("a light", {"since": Time(sec=-1)}, ERROR.BAD_REQUEST, "'since'"),
        ("a light", {"until": Time(sec=10)}, ERROR.NO_FRAMES, "within the limits"),
        ("a light", {"max_moments": 101}, ERROR.BAD_REQUEST, "from 1 to 100"),
        ("a light", {"timeout_sec": -1.0}, ERROR.BAD_REQUEST, "'timeout_sec'"),
        ("a light", {"timeout_sec": float("nan")}, ERROR.BAD_REQUEST, "'timeout_sec'"),
        ("a light", {"client_id": "\n"}, ERROR.BAD_REQUEST, "'client_id'"),
        ("defect?", {}, ERROR.INTERNAL, "ZeroDivisionError"),
        ("out of memory?", {}, ERROR.OUT_OF_MEMORY, "out of memory"),
    ],
)
def test_search_that_cannot_succeed_says_why(room, find, description, fields, code, words):
    process, _, _ = room
    response = find(description, **fields)
    assert not response.success
    assert (response.error_code, list(response.moments)) == (code, [])
    assert words in response.error_msg
    assert process.alive


@pytest.mark.parametrize("description", ["Glühbirne im Flur", "赤い箱", "🔦", 'a "light" {0} %s \\'])
def test_any_text_is_a_description(find, description):
    response = find(description)
    assert response.success, response.error_msg
    assert description in response.question
    assert response.moments[0].score == pytest.approx(0.9)


def test_description_that_the_model_does_not_understand_is_reported(find):
    response = find("strange?")
    assert (response.success, list(response.moments)) == (True, [])
    assert "does not answer yes or no about 8 of 8 key frames" in warnings_of(response)[0]


def test_deadline_returns_what_was_found_so_far_and_says_so(find):
    response = find("slow 0.2 ?", timeout_sec=1.0)
    assert response.success, response.error_msg
    assert 0 < response.pairs_searched < 8
    assert len(response.moments) > 0
    assert f"not searched: {8 - response.pairs_searched} older key frames of camera" in warnings_of(response)[0]
    nothing = find("slow 5 ?", timeout_sec=0.3)
    assert (nothing.success, nothing.error_code) == (False, ERROR.TIMEOUT)


def test_question_does_not_wait_for_the_end_of_a_search(room):
    """A search of all pairs takes 4 s here; a question is answered after the pair at which it arrives."""
    _, client, _ = room
    request = FindMoments.Request(description="slow 0.3 ?", timeout_sec=60.0)
    search = client.start_call(FindMoments, "scene_memory/find_moments", request)
    client.wait_for_node_stats(lambda stats: stats.questions_running == 1)
    assert client.ask("What?", client_id="another").success
    assert not search.done()
    wait_until(search.done, "the search")
    response = search.result()
    assert response.success, response.error_msg
    assert (response.pairs_searched, warnings_of(response)) == (8, [])


def test_client_returns_moments_and_refuses_a_deadline_of_zero(room):
    _, client, stamps = room
    with SceneMemoryClient.connect(client.namespace) as own:
        response = own.find_moments("a light", timeout_sec=PATIENCE_SEC, since_ns=stamps[6], until_ns=stamps[9])
        assert response.success, response.error_msg
        assert response.pairs_searched == 2
        started = time.monotonic()
        with pytest.raises(Exception, match="was cancelled"):
            own.find_moments("slow 0.5 ?", timeout_sec=5.0, cancelled=lambda: time.monotonic() > started + 0.3)
        assert time.monotonic() < started + 3.0
        with pytest.raises(Exception, match="'timeout_sec'"):
            own.find_moments("a light", timeout_sec=0.0)


def test_empty_memory_and_unconfigured_node_are_reported(start):
    _, client = start(autostart=False)
    request = FindMoments.Request(description="a light")
    response = client.call(FindMoments, "scene_memory/find_moments", request)
    assert response.error_code == ERROR.MODEL_NOT_READY
    assert client.transition("configure")
    assert client.transition("activate")
    client.wait_until_ready()
    response = client.call(FindMoments, "scene_memory/find_moments", request)
    assert response.error_code == ERROR.NO_FRAMES
    assert f"{client.namespace}/image" in response.error_msg


# The command ----------------------------------------------------------------------------------------------------------


def command(*arguments, namespace):
    return run_forked("find", *arguments, "--namespace", namespace)


def test_command_prints_the_moments(room):
    _, client, _ = room
    done = command("a [bold]light[/]", "--max", "2", namespace=client.namespace)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == 'Q: Does the video show this: "a [bold]light[/]"? Answer yes or no.'
    assert lines[1].split() == ["score", "time", "key", "frame", "position"]
    assert lines[2].split()[0] == "0.90"
    assert "(map)" in lines[2]
    assert lines[3].split()[0] == "0.10"
    assert "1 moment fits; 8 key frames searched" in done.stdout


def test_command_with_json_prints_one_object(room):
    _, client, stamps = room
    since = f"{stamps[6] // 10**9}.{stamps[6] % 10**9:09d}"
    done = command("a light", "--since", since, "--json", namespace=client.namespace)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert (printed["success"], printed["pairs_searched"], printed["journal_lines_searched"]) == (True, 5, 0)
    best = printed["moments"][0]
    assert (best["stamp"], best["end_stamp"]) == (stamps[6] / 1e9, stamps[9] / 1e9)
    assert (best["frame_id"], best["position"][1:]) == ("map", [0.0, 0.0])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("",), "the description is empty"),
        (("a light", "--since", "soon"), "--since must be a time such as 10:30"),
        (("a light", "--since", "20", "--until", "10"), "swap them"),
        (("a light", "--camera", "attic"), "unknown camera 'attic'"),
    ],
)
def test_command_fails_with_one_sentence(room, arguments, words):
    _, client, _ = room
    done = command(*arguments, namespace=client.namespace)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert words in done.stderr
    assert "Traceback" not in done.stderr


# The journal ----------------------------------------------------------------------------------------------------------


def ros_time(nanoseconds_):
    return Time(sec=nanoseconds_ // 10**9, nanosec=nanoseconds_ % 10**9)


def novel_image(client, seed):
    """Return a message with an image that differs from all others."""
    cells = np.random.default_rng(seed).integers(20, 220, (4, 4, 3), np.uint8)
    pixels = cells.repeat(28, axis=0).repeat(35, axis=1)
    return client.image(height=112, width=140, data=array.array("B", pixels.tobytes()))


def test_search_finds_lines_of_pairs_that_are_no_longer_kept(start, tmp_path):
    # given a node whose memory is too small for what its camera saw
    _, client = start(
        memory__sample_fps=60.0,
        memory__star__size=4,
        memory__stream__size=4,
        journal__enabled=True,
        persistence__folder=str(tmp_path),
    )
    client.wait_until_ready()
    client.connect_images()
    seeds = itertools.count()

    def has_lines():
        for _ in range(10):
            client.publish(novel_image(client, next(seeds)))
        status = client.find_status("journal", lambda one: int(values_of(one)["lines"]) >= 4, 0)
        return status is not None

    wait_until(has_lines, "lines in the journal")
    client.wait_for_status("journal", lambda one: values_of(one)["waiting"] == "0")

    def search(description, **fields):
        request = FindMoments.Request(description=description, include_thumbnails=True, **fields)
        return client.call(FindMoments, "scene_memory/find_moments", request)

    # then key frames come first, and the lines follow with the share of the words that they have
    response = search("about a light")  # each caption is "about What do you see?"
    assert response.success, response.error_msg
    kept = [moment for moment in response.moments if moment.id]
    (line,) = response.moments[len(kept) :]  # lines that are close in time are one moment
    assert line.journal_id
    assert (line.caption, line.score) == ("about What do you see?", 0.5)
    assert nanoseconds(line.end_stamp) > nanoseconds(line.header.stamp)
    assert response.journal_lines_searched >= 4
    assert all(len(moment.thumbnail.data) for moment in response.moments)
    assert len(search("about", max_moments=3).moments) == 3 + 1

    # and a search of a time whose pairs have all left finds its lines
    first = client.call(GetJournal, "scene_memory/get_journal", GetJournal.Request()).lines[-1]
    old = search("about", since=first.header.stamp, until=first.end_stamp)
    assert old.success, old.error_msg
    assert [(moment.journal_id, moment.score) for moment in old.moments] == [(first.journal_id, 1.0)]
    assert (old.pairs_searched, old.journal_lines_searched, old.question) == (0, 1, "")
    assert any("no frames within the limits" in warning for warning in old.warnings)

    # and so does one of an empty memory, without the model
    client.reset()
    empty = search("about")
    assert [moment.id for moment in empty.moments] == [0]
    assert "is empty" in empty.warnings[0]
    nothing = search("about", until=Time(sec=10))
    assert (nothing.success, nothing.error_code) == (False, ERROR.NO_FRAMES)
