"""The commands ``record-scene`` and ``replay``, from a synthetic scene to its report."""

import csv
import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from command_line import run_here

for module in ("rosbags", "sacrebleu", "matplotlib"):
    pytest.importorskip(module, reason="the extra 'evaluation' is not installed")


run = partial(run_here, columns=120)


def run_process(*arguments, cwd):
    command = [sys.executable, "-m", "delayed_vlm_ros.cli.main", *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": "120"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=400, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the bag of a scene, and two evaluations of it."""
    folder = tmp_path_factory.mktemp("replay")
    size = ("--seconds", 12, "--rate", 5, "--width", 160, "--height", 120, "--questions", 4)
    recorded = run("record-scene", "--seed", 3_000_200, "--out", "scene", *size, cwd=folder)
    assert recorded.returncode == 0, recorded.stderr
    assert "scene: 60 images" in recorded.stdout
    with (folder / "scene" / "questions.yaml").open("a", encoding="utf-8") as file:
        file.write("- watch: is there a person?\n  name: person\n  last_sec: 4\n  yes: [[0, 12]]\n")
    methods = "delayed,delayed_uncached,native_kept,native_all,newest_4"
    # A process of its own has other hash seeds and memory: the second result must be the same.
    for run_once, out in ((run_process, "first"), (run, "second")):
        done = run_once("replay", "scene", "--out", out, "--model", "demo", "--methods", methods, cwd=folder)
        assert done.returncode == 0, done.stderr
        assert "report:" in done.stdout
    (folder / "bare").mkdir()
    return folder


def result(folder, out):
    return json.loads((folder / out / "scene" / "result.json").read_text())


@pytest.mark.timeout(500)
def test_every_method_answers_every_question(folder):
    found = result(folder, "first")
    assert found["complete"], found["warnings"]
    assert len(found["questions"]) == 4
    for asked in found["questions"]:
        assert set(asked["answers"]) == {"delayed", "delayed_uncached", "native_kept", "native_all", "newest_4"}
        assert not [answer["error"] for answer in asked["answers"].values() if answer["error"]]
        delayed, kept = asked["answers"]["delayed"], asked["answers"]["native_kept"]
        # Native inference on the same frames has the same answer.
        assert delayed["answer"] == asked["answers"]["delayed_uncached"]["answer"] == kept["answer"]
        assert delayed["evidence"] == kept["evidence"]
        assert {str(pair) for pair in delayed["evidence"]} <= set(found["pairs"])
        assert delayed["frames_encoded"] + delayed["frames_reused"] == kept["frames_encoded"]
        assert 0 < delayed["first_token_sec"] <= delayed["total_sec"]
    later = found["questions"][-1]["answers"]
    assert later["delayed"]["frames_reused"] > 0
    assert later["delayed_uncached"]["frames_reused"] == 0


def test_same_bag_has_the_same_memory_and_answers(folder):
    first, second = result(folder, "first"), result(folder, "second")
    assert first["pairs"] == second["pairs"]
    assert first["kept"] == second["kept"]
    assert [row["pair"] for row in first["timeline"]] == [row["pair"] for row in second["timeline"]]
    answers = [
        [{method: answer["answer"] for method, answer in asked["answers"].items()} for asked in one["questions"]]
        for one in (first, second)
    ]
    assert answers[0] == answers[1]


def test_watch_has_the_same_states_and_checks_in_each_replay(folder):
    first, second = (result(folder, out)["watches"][0] for out in ("first", "second"))
    assert first["checks"] == 6  # every 2 s
    assert first["device_sec"] > 0
    assert "unknown" not in [state["level"] for state in first["states"]][1:]
    for key in ("states", "alerts", "scores", "checks", "settings"):
        assert first[key] == second[key], key
    assert "is there a person?" in (folder / "first" / "report.html").read_text()


def test_report_contains_every_question_and_answer(folder):
    page = (folder / "first" / "report.html").read_text()
    rows = list(csv.DictReader((folder / "first" / "answers.csv").open()))
    assert len(rows) == 4 * 5
    for asked in result(folder, "first")["questions"]:
        assert asked["ask"].replace("'", "&#39;") in page


@pytest.mark.timeout(500)
def test_finished_recording_is_skipped_and_invalid_one_is_reported(folder):
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
    assert "--fresh" in done.stdout
    failed = json.loads((folder / "first" / "bad" / "result.json").read_text())
    assert failed["error"] in done.stdout
    assert "incomplete: bad;" in done.stderr
    assert "bad" in (folder / "first" / "report.html").read_text()


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
    (warning,) = found["recording"]["warnings"]
    assert "400" in warning
    assert warning in found["warnings"]
    assert warning in done.stdout
    assert warning.partition("; check")[0] in (folder / "third" / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("replay", "nothing"), "nothing"),
        (("replay", "bare"), "bare"),
        (("replay", "scene", "--questions", "q.yaml"), "q.yaml"),
        (("replay", "scene", "--methods", "magic"), "'magic'"),
        (("replay", "scene", "--methods", ","), "--methods"),
        (("replay", "scene", "--star", "2", "--eviction-chunk", "10"), "eviction_chunk"),
        (("replay", "scene", "--on-time-jump", "stop"), "'stop'"),
        (("replay",), "RECORDINGS"),
        (("record-scene", "--seed", "1", "--out", "scene"), "scene"),
        (("record-scene", "--seed", "1", "--out", "new", "--storage", "tape"), "'tape'"),
    ],
)
def test_invalid_arguments_exit_with_a_message_and_without_a_traceback(folder, arguments, named):
    done = run(*arguments, cwd=folder)
    assert done.returncode in (1, 2)
    assert named in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr


def test_make_questions_writes_a_file_and_never_overwrites_one(tmp_path):
    done = run("replay", "--make-questions", "--questions", "mine.yaml", cwd=tmp_path)
    assert done.returncode == 0
    assert "- at: 12.5" in (tmp_path / "mine.yaml").read_text()
    again = run("replay", "--make-questions", "--questions", "mine.yaml", cwd=tmp_path)
    assert again.returncode == 1
    assert "mine.yaml" in again.stderr
    assert "Traceback" not in again.stderr
