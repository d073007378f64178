"""Evaluation of many recordings: in this process, in several processes, on Ray; failures of one recording."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from dying_workers import DyingActor, run_and_die_once, run_unless_deadly
from preloaded import preloaded

pytest.importorskip("rosbags", reason="the extra 'evaluation' is not installed")
pytest.importorskip("sacrebleu", reason="the extra 'evaluation' is not installed")

from delayed_vlm_ros.demo.record_scene import SceneRecording, record_scene
from delayed_vlm_ros.errors import IncompleteError
from delayed_vlm_ros.replay import executor
from delayed_vlm_ros.replay.job import ReplayJob, finished_result
from delayed_vlm_ros.replay.question_file import FILE_NAME, read_questions
from delayed_vlm_ros.replay.runner import ReplaySettings

SETTINGS = ReplaySettings(model="demo", device="cpu", methods=("delayed",))


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    """Two valid bags with an invalid one between them."""
    folder = tmp_path_factory.mktemp("bags")
    made = []
    for number, name in enumerate(("one", "bad", "two")):
        bag = folder / name
        if name == "bad":
            bag.mkdir()
            (bag / "bad_0.mcap").write_bytes(b"nothing of use" * 10)
            questions = made[0].questions
        else:
            settings = SceneRecording(
                seed=3_000_100 + number, seconds=6.0, rate=4.0, height=120, width=160, questions=2
            )
            record_scene(bag, settings)
            questions = read_questions(bag / FILE_NAME)
        made.append(ReplayJob(str(bag), str(folder / "out" / name), questions, SETTINGS))
    return made


@pytest.fixture(scope="module")
def spawning():
    """Stand-in for ``multiprocessing`` whose processes have imported torch."""
    with preloaded("delayed_vlm_ros.replay.local_model") as context:
        yield SimpleNamespace(get_context=lambda _method: context)


def in_this_process(jobs):
    return executor.run_sequentially(jobs, lambda _job, _progress: None)


def in_two_processes(jobs):
    return executor.run_in_processes(jobs, 2)


def on_ray(jobs):
    pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    return executor.run_on_ray(jobs, "local", 2)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("run", [in_this_process, in_two_processes, on_ray])
def test_failed_recording_does_not_stop_the_others(jobs, run):
    # when
    results = {job.name: result for job, result in run(jobs)}

    # then
    assert {name: bool(result["error"]) for name, result in results.items()} == {
        "one": False,
        "bad": True,
        "two": False,
    }
    assert jobs[1].path in results["bad"]["error"]
    for job in jobs:
        assert json.loads((Path(job.folder) / "result.json").read_text()) == results[job.name]
        assert (finished_result(job) is None) == (job.name == "bad")
    for name in ("one", "two"):
        assert results[name]["complete"]
        assert all(asked["answers"]["delayed"]["answer"] for asked in results[name]["questions"])


def test_result_with_missing_answer_is_not_finished(jobs):
    ((job, result),) = in_this_process(jobs[:1])
    file = Path(job.folder) / "result.json"
    result["questions"][0]["answers"]["delayed"]["error"] = "the device ran out of memory"
    file.write_text(json.dumps(result))
    assert finished_result(job) is None
    result["questions"][0]["answers"]["delayed"]["skipped"] = True
    file.write_text(json.dumps(result))
    assert finished_result(job) == result


def test_result_is_finished_until_job_or_recording_changes(jobs):
    (_, result), *_ = in_this_process(jobs[:1])
    assert finished_result(jobs[0]) == result
    changed = ReplayJob(jobs[0].path, jobs[0].folder, jobs[0].questions[:1], SETTINGS)
    assert finished_result(changed) is None
    bag = next(Path(jobs[0].path).glob("*.mcap"))
    os.utime(bag, ns=(1, 1))
    assert finished_result(jobs[0]) is None


@pytest.mark.timeout(600)
def test_recording_of_a_dead_worker_is_tried_again(jobs, tmp_path, monkeypatch, spawning):
    monkeypatch.setattr(executor, "multiprocessing", spawning)
    monkeypatch.setattr(executor, "_run_in_worker", run_and_die_once)
    good = ReplayJob(jobs[0].path, str(tmp_path / "good"), jobs[0].questions, SETTINGS)
    ((_, result),) = executor.run_in_processes([good], 1)
    assert not result["error"]


@pytest.mark.timeout(600)
def test_recording_that_kills_its_worker_does_not_affect_the_others(jobs, tmp_path, monkeypatch, spawning):
    # given
    monkeypatch.setattr(executor, "multiprocessing", spawning)
    monkeypatch.setattr(executor, "_run_in_worker", run_unless_deadly)
    names = ("one", "deadly", "two")
    repeated = [ReplayJob(jobs[0].path, str(tmp_path / name), jobs[0].questions, SETTINGS) for name in names]
    # when
    results = {Path(job.folder).name: result for job, result in executor.run_in_processes(repeated, 2)}
    # then
    assert {name: bool(result["error"]) for name, result in results.items()} == {
        name: name == "deadly" for name in names
    }
    assert json.loads((tmp_path / "deadly" / "result.json").read_text()) == results["deadly"]


@pytest.mark.timeout(600)
def test_recording_whose_actor_dies_again_fails(jobs, monkeypatch):
    monkeypatch.setattr(executor, "Evaluator", DyingActor)
    ((_, result),) = on_ray(jobs[:1])
    assert "actor" in result["error"]


def test_defect_fails_its_recording_with_a_traceback(jobs, tmp_path, monkeypatch):
    monkeypatch.setattr("delayed_vlm_ros.replay.job.Replay", None)
    broken = ReplayJob(jobs[0].path, str(tmp_path / "out"), jobs[0].questions, SETTINGS)
    ((_, result),) = in_this_process([broken])
    assert result["error"].startswith("TypeError: ")
    assert "Traceback" in result["traceback"]


def test_unwritable_result_raises_incomplete_error_with_its_folder(jobs, tmp_path):
    (tmp_path / "file").touch()
    blocked = ReplayJob(jobs[0].path, str(tmp_path / "file" / "one"), jobs[0].questions, SETTINGS)
    with pytest.raises(IncompleteError) as caught:
        list(in_this_process([blocked]))
    assert blocked.folder in str(caught.value)
