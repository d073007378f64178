"""From a recorded scene to a report, by the commands a user types."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

for module in ("rosbags", "sacrebleu", "matplotlib"):
    pytest.importorskip(module, reason="the extra 'evaluation' is not installed")


def run(*arguments, cwd, timeout=170):
    command = [sys.executable, "-m", "delayed_vlm_ros.cli.main", *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": "120"}
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a bag of a scene, evaluated twice, into two folders."""
    folder = tmp_path_factory.mktemp("replay")
    size = ("--seconds", 12, "--rate", 5, "--width", 160, "--height", 120, "--questions", 4)
    recorded = run("record-scene", "--seed", 3_000_200, "--out", "scene", *size, cwd=folder)
    assert recorded.returncode == 0, recorded.stderr
    assert "scene: 60 images" in recorded.stdout
    methods = "delayed,delayed_uncached,native_kept,native_all,newest_4"
    for out in ("first", "second"):
        done = run("replay", "scene", "--out", out, "--model", "demo", "--methods", methods, cwd=folder)
        assert done.returncode == 0, done.stderr
        assert "report:" in done.stdout
    (folder / "bare").mkdir()
    return folder


def result(folder, out):
    return json.loads((folder / out / "scene" / "result.json").read_text())


@pytest.mark.timeout(500)
def test_every_method_answers_every_question(folder):
    found = result(folder, "first")
    assert found["complete"], found["problems"]
    assert len(found["questions"]) == 4
    for asked in found["questions"]:
        assert set(asked["answers"]) == {"delayed", "delayed_uncached", "native_kept", "native_all", "newest_4"}
        assert not [answer["error"] for answer in asked["answers"].values() if answer["error"]]
        delayed, kept = asked["answers"]["delayed"], asked["answers"]["native_kept"]
        # Exact: the very frames, natively, give the very answer.
        assert delayed["answer"] == asked["answers"]["delayed_uncached"]["answer"] == kept["answer"]
        assert delayed["evidence"] == kept["evidence"]
        assert {str(pair) for pair in delayed["evidence"]} <= set(found["pairs"])
        assert delayed["frames_encoded"] + delayed["frames_reused"] == kept["frames_encoded"]
        assert 0 < delayed["first_token_sec"] <= delayed["total_sec"]
    later = found["questions"][-1]["answers"]
    assert later["delayed"]["frames_reused"] > 0
    assert later["delayed_uncached"]["frames_reused"] == 0


def test_the_same_bag_gives_the_same_memory_and_the_same_answers(folder):
    first, second = result(folder, "first"), result(folder, "second")
    assert first["pairs"] == second["pairs"]
    assert first["kept"] == second["kept"]
    assert [row["pair"] for row in first["timeline"]] == [row["pair"] for row in second["timeline"]]
    answers = [
        [{method: answer["answer"] for method, answer in asked["answers"].items()} for asked in one["questions"]]
        for one in (first, second)
    ]
    assert answers[0] == answers[1]


def test_the_report_holds_every_answer(folder):
    page = (folder / "first" / "report.html").read_text()
    rows = list(csv.DictReader((folder / "first" / "answers.csv").open()))
    assert len(rows) == 4 * 5
    for asked in result(folder, "first")["questions"]:
        assert asked["ask"].replace("'", "&#39;") in page


@pytest.mark.timeout(500)
def test_what_is_done_is_not_done_again_and_what_fails_is_told(folder):
    # given
    (folder / "bad").mkdir()
    (folder / "bad" / "bad_0.mcap").write_bytes(b"nothing of use" * 10)
    # when
    questions = Path("scene") / "questions.yaml"
    methods = "delayed,delayed_uncached,native_kept,native_all,newest_4"
    done = run(
        "replay", "scene", "bad", "--questions", questions, "--out", "first", "--model", "demo", "--methods", methods,
        cwd=folder,
    )  # fmt: skip
    # then
    assert done.returncode == 1
    assert "scene: evaluated before, not again" in done.stdout
    assert "cannot be read as a ROS 2 bag" in done.stdout
    assert "not complete: bad; the report says why" in done.stderr
    assert "cannot be read as a ROS 2 bag" in (folder / "first" / "report.html").read_text()


@pytest.mark.timeout(500)
def test_bag_with_fewer_messages_than_its_metadata_lists_exits_with_1(folder):
    # given
    shutil.copytree(folder / "scene", folder / "short")
    file = folder / "short" / "metadata.yaml"
    file.write_text(file.read_text().replace("message_count: 60", "message_count: 400"))
    # when
    done = run("replay", "short", "--out", "third", "--model", "demo", "--methods", "delayed", cwd=folder)
    # then
    assert done.returncode == 1
    found = json.loads((folder / "third" / "short" / "result.json").read_text())
    assert not found["complete"]
    assert found["recording"]["images"] == 60
    assert "metadata.yaml lists 400" in found["recording"]["damage"]
    assert found["recording"]["damage"] in found["problems"]
    for text in (done.stdout, (folder / "third" / "report.html").read_text()):
        assert "metadata.yaml lists 400" in text


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("replay", "nothing"), "there is no nothing: check the path"),
        (("replay", "bare"), "there are no questions to bare"),
        (("replay", "scene", "--questions", "q.yaml"), "q.yaml cannot be read"),
        (
            ("replay", "scene", "--methods", "magic"),
            "'magic' is none of delayed",
        ),
        (("replay", "scene", "--star", "2", "--eviction-chunk", "10"), "eviction_chunk is 10 frames"),
        (("replay", "scene", "--on-time-jump", "stop"), "'stop' is none of continue, restart"),
        (("replay",), "name a bag, a video file or a folder of images"),
        (("record-scene", "--seed", "1", "--out", "scene"), "scene is there already"),
        (("record-scene", "--seed", "1", "--out", "new", "--storage", "tape"), "'tape' is none of mcap, sqlite3"),
    ],
)
def test_a_mistake_is_told_in_a_sentence_before_anything_is_done(folder, arguments, expected):
    done = run(*arguments, cwd=folder)
    assert done.returncode in (1, 2)
    assert expected in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr


def test_a_file_of_questions_to_begin_with(tmp_path):
    done = run("replay", "--make-questions", "--questions", "mine.yaml", cwd=tmp_path)
    assert done.returncode == 0
    assert "- at: 12.5" in (tmp_path / "mine.yaml").read_text()
    again = run("replay", "--make-questions", "--questions", "mine.yaml", cwd=tmp_path)
    assert again.returncode == 1
    assert "mine.yaml is there already" in again.stderr
