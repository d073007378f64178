"""``delayed-vlm export`` of a running node: counts, poses, answers, limits, and frames that leave meanwhile."""

from __future__ import annotations

import json

import pytest
from command_line import run_forked
from delayed_vlm_ros.action import AskScene
from delayed_vlm_ros.msg import CameraAnswer, KeyFrame, Moment, NodeStats
from delayed_vlm_ros.srv import GetFrames, GetJournal
from rosbags.highlevel import AnyReader
from sensor_msgs.msg import CompressedImage

from delayed_vlm_ros.errors import ExportError
from delayed_vlm_ros.export.contents import LeftPair, PairImages
from delayed_vlm_ros.ros.client import SceneMemoryClient
from delayed_vlm_ros.ros.memory_export import (
    MAX_LINES,
    goal_of,
    read_answers,
    read_lines,
    read_pairs,
    read_stamps,
    to_answer,
)
from delayed_vlm_ros.ros.time import time_message

IMAGES = 8


@pytest.fixture(scope="module")
def room(start_for_module):
    """A node with four pairs and their poses; and the stamps of their images."""
    process, client = start_for_module(memory__sample_fps=50.0, pose__source="PoseStamped")
    client.wait_until_ready()
    return process, client, client.show_with_poses([20 + 25 * number for number in range(IMAGES)])


@pytest.fixture
def export(room, tmp_path):
    """Return a function that runs the command, and returns its exit code, output and the exported data."""
    _, client, _ = room

    def run(*arguments, folder="out"):
        done = run_forked("export", folder, "--namespace", client.namespace, *arguments, cwd=tmp_path)
        file = tmp_path / folder / "export.json"
        return done, json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None

    return run


def test_command_writes_frames_with_poses_and_answers(room, export, tmp_path):
    done, data = export("-q", "Wo ist die Tür 門?", "-q", "defect")
    assert done.returncode == 0, done.stderr
    assert data["counts"] == {"pairs": 4, "images": 8, "pairs_left": 0, "answers": 2, "alerts": 0, "lines": 0}
    assert done.stdout.startswith("4 pairs of frames (8 images), 2 answers, 0 alerts, 0 journal lines: out/index.html")
    assert "warning: no answer to 'defect'" in done.stdout
    assert len(list((tmp_path / "out" / "frames").glob("*.png"))) == 8
    assert [pair["stamp_ns"] for pair in data["pairs"]] == room[2][::2]
    assert [pair["pose"]["position"][0] for pair in data["pairs"]] == [0.0, 2.0, 4.0, 6.0]
    answered, failed = data["answers"]
    assert answered["answer"] == "about Wo ist die Tür 門?"
    assert answered["camera"] == "camera"
    assert answered["pair_ids"] == [pair["id"] for pair in data["pairs"]]
    assert failed["error"]
    assert "Wo ist die Tür 門?" in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")


def test_session_file_has_images_poses_and_answers_that_rosbags_reads(room, export, tmp_path):
    done, data = export("--mcap", "-q", "Wo ist die Tür 門?")
    assert done.returncode == 0, done.stderr
    assert "for Foxglove and rosbags: out/session.mcap" in done.stdout
    with AnyReader([tmp_path / "out" / "session.mcap"]) as reader:
        found = [(one.topic, stamp, reader.deserialize(raw, one.msgtype)) for one, stamp, raw in reader.messages()]
    images = [stamp for topic, stamp, _ in found if topic == "/scene_memory/camera/kept_images"]
    assert images == room[2]
    poses = [message for topic, _, message in found if topic == "/scene_memory/camera/pose"]
    assert [one.pose.position.x for one in poses] == [0.0, 2.0, 4.0, 6.0]
    (answer,) = [message for topic, _, message in found if topic == "/scene_memory/answers"]
    assert (answer.answer, answer.pair_ids.tolist()) == ("about Wo ist die Tür 門?", data["answers"][0]["pair_ids"])


def test_limits_and_json(room, export):
    since, until = (f"{room[2][number] / 1e9:.9f}" for number in (1, 5))
    done, data = export("--since", since, "--until", until, "--camera", "camera", "--json")
    assert done.returncode == 0, done.stderr
    assert [pair["stamp_ns"] for pair in data["pairs"]] == room[2][2:6:2]
    shown = json.loads(done.stdout)
    assert (shown["folder"], shown["mcap"], shown["pairs"], shown["warnings"]) == ("out", "", 2, [])


def test_refused_export_leaves_nothing(export, tmp_path):
    done, data = export("--camera", "garden")
    assert done.returncode == 1
    assert "cannot read the frames: unknown camera 'garden'" in done.stderr
    assert data is None
    assert list(tmp_path.iterdir()) == []


# Answers -------------------------------------------------------------------------------------------------------------


def test_question_without_camera_goes_to_all_cameras_as_the_frames_do():
    goal = goal_of("What?", "", (0, 0), 5.0)
    assert goal.camera == "*"
    assert goal_of("What?", "rear", (0, 0), 5.0).camera == "rear"
    parts = [CameraAnswer(camera="front", answer="a box"), CameraAnswer(camera="rear", answer="a ball")]
    result = AskScene.Result(success=True, answer="front: a box\nrear: a ball", camera_answers=parts)
    answer = to_answer(goal, result, 1)
    assert (answer.camera, answer.answer) == ("*", "front: a box\nrear: a ball")


class Robot:
    """A client of a node whose clock is that of a recording."""

    def __init__(self, now_sec: int) -> None:
        self.node_statistics = NodeStats()
        self.node_statistics.header.stamp.sec = now_sec

    def stream(self, goal, on_progress, *, cancelled):
        result = AskScene.Result(success=True, answer=f"about {goal.question}")
        result.snapshot_stamp.sec = 20
        return result


@pytest.mark.parametrize(("now_sec", "stamp_sec"), [(30, 30), (0, 20)])
def test_answers_have_stamps_on_the_clock_of_the_cameras(now_sec, stamp_sec):
    (answer,) = read_answers(Robot(now_sec), ["What?"], "", (0, 0), 5.0)
    assert (answer.answer, answer.stamp_ns) == ("about What?", stamp_sec * 10**9)


# Journal -------------------------------------------------------------------------------------------------------------


class Journal:
    """A client of a journal that has more lines than one may read."""

    def pages(self, max_lines, *, camera, since_ns, until_ns):
        assert (max_lines, camera, since_ns, until_ns) == (MAX_LINES, "*", 5, 9)
        for number, left in ((4, 9), (3, 8)):
            response = GetJournal.Response(success=True, lines=[Moment(journal_id=number)], lines_left=left)
            response.warnings = ["the disk is full"]
            yield response


def test_lines_that_an_export_leaves_out_and_faults_of_the_journal_are_reported():
    lines, warnings = read_lines(Journal(), "*", (5, 9))
    assert [line.id for line in lines] == [3, 4]
    assert warnings == ("the disk is full", "8 older lines of the journal are missing: export a shorter time")


# Frames that leave meanwhile -----------------------------------------------------------------------------------------


def key_frame(number: int) -> KeyFrame:
    frame = KeyFrame(id=number, camera="camera")
    frame.header.stamp = time_message(number * 10**9)
    return frame


class Node:
    """A client of a node that returns some pairs a call, and has evicted others."""

    def __init__(self, count: int, left=(), pairs_per_call: int = 2) -> None:
        self.pairs_per_call = pairs_per_call
        self.ids = list(range(1, count + 1))
        self.left = set(left)
        self.is_silent = False

    def get_frames(self, ids=(), *, camera, image_format="png", timeout_sec):
        assert (camera, image_format) == ("*", "png")
        wanted = list(ids) or self.ids
        kept = [number for number in wanted if number not in self.left or not ids]
        response = GetFrames.Response(success=True)
        if self.is_silent and ids:
            response.left_out = wanted
            return response
        returned, later = kept[: self.pairs_per_call], kept[self.pairs_per_call :]
        response.key_frames = list(map(key_frame, returned))
        response.first_images = [CompressedImage(data=b"1") for _ in returned]
        response.second_images = [CompressedImage() for _ in returned]
        response.missing = [number for number in wanted if number not in kept]
        response.left_out = later
        return response


def test_all_pairs_of_several_responses_are_read_and_those_that_left_are_reported():
    found = list(read_pairs(Node(7, left=(4, 5)), "*", (0, 0), {}))
    assert [one.pair.id for one in found if isinstance(one, PairImages)] == [1, 2, 3, 6, 7]
    assert [one.id for one in found if isinstance(one, LeftPair)] == [4, 5]


def test_more_pairs_than_one_request_may_name_are_read():
    found = list(read_pairs(Node(4500, pairs_per_call=1000), "*", (0, 0), {}))
    assert [one.pair.id for one in found] == list(range(1, 4501))


def test_node_that_returns_no_frames_is_an_error():
    node = Node(7)
    node.is_silent = True
    with pytest.raises(ExportError, match="returned none of"):
        list(read_pairs(node, "*", (0, 0), {}))


def test_interrupted_export_stops():
    with pytest.raises(ExportError, match="interrupted"):
        list(read_pairs(Node(7), "*", (0, 0), {}, lambda: True))


def test_pairs_outside_the_exported_time_are_not_reported_when_they_leave():
    # given pairs 2 to 9 that have not been read when some of them leave
    node = Node(9, left=(3, 5, 9), pairs_per_call=1)
    limits_ns = 4 * 10**9, 6 * 10**9

    # when
    found = list(read_pairs(node, "*", limits_ns, {number: number * 10**9 for number in range(1, 10)}))
    without_stamps = list(read_pairs(node, "*", limits_ns, {}))

    # then
    assert [one.pair.id for one in found if isinstance(one, PairImages)] == [4, 6]
    assert [one.id for one in found if isinstance(one, LeftPair)] == [5]
    assert [one.id for one in without_stamps if isinstance(one, LeftPair)] == [3, 5, 9]


def test_stamps_of_the_kept_pairs_are_those_of_their_first_images(room):
    with SceneMemoryClient.connect(room[1].namespace) as client:
        assert client.wait_until(lambda: client.statistics is not None, 20.0)
        assert sorted(read_stamps(client).values()) == room[2][::2]
