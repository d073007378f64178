"""Many recordings: in this process, in several, on a real Ray; and what one that fails costs the others."""

import json
import os
from pathlib import Path

import pytest
from dying_workers import DyingActor, run_and_die_once, run_unless_deadly

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
    """Two good bags with a bad one between them."""
    folder = tmp_path_factory.mktemp("bags")
    made = []
    for number, name in enumerate(("one", "bad", "two")):
        bag = folder / name
        if name == "bad":
            bag.mkdir()
            (bag / "bad_0.mcap").write_bytes(b"nothing of use" * 10)
            questions = made[0].questions
        else:
            wanted = SceneRecording(seed=3_000_100 + number, seconds=6.0, rate=4.0, height=120, width=160, questions=2)
            record_scene(bag, wanted)
            questions = read_questions(bag / FILE_NAME)
        made.append(ReplayJob(str(bag), str(folder / "out" / name), questions, SETTINGS))
    return made


def in_this_process(jobs):
    return executor.one_by_one(jobs, lambda _job, _progress: None)


def in_two_processes(jobs):
    return executor.in_processes(jobs, 2)


def on_ray(jobs):
    pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    return executor.on_ray(jobs, "local", 2)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("way", [in_this_process, in_two_processes, on_ray])
def test_a_recording_that_fails_does_not_stop_the_rest(jobs, way):
    # when
    results = {job.name: result for job, result in way(jobs)}

    # then
    assert {name: result["failed"] for name, result in results.items()} == {"one": False, "bad": True, "two": False}
    assert "cannot be read as a ROS 2 bag" in results["bad"]["problems"][0]
    for job in jobs:
        assert json.loads((Path(job.folder) / "result.json").read_text()) == results[job.name]
        assert (finished_result(job) is None) == (job.name == "bad")
    for name in ("one", "two"):
        assert results[name]["complete"]
        assert all(asked["answers"]["delayed"]["answer"] for asked in results[name]["questions"])


def test_an_answer_that_is_lacking_is_asked_for_again(jobs):
    ((job, result),) = in_this_process(jobs[:1])
    file = Path(job.folder) / "result.json"
    result["questions"][0]["answers"]["delayed"]["error"] = "the device ran out of memory"
    file.write_text(json.dumps(result))
    assert finished_result(job) is None
    result["questions"][0]["answers"]["delayed"]["skipped"] = True
    file.write_text(json.dumps(result))
    assert finished_result(job) == result


def test_what_is_done_is_done_again_only_when_something_has_changed(jobs):
    (_, result), *_ = in_this_process(jobs[:1])
    assert finished_result(jobs[0]) == result
    changed = ReplayJob(jobs[0].path, jobs[0].folder, jobs[0].questions[:1], SETTINGS)
    assert finished_result(changed) is None
    bag = next(Path(jobs[0].path).glob("*.mcap"))
    os.utime(bag, ns=(1, 1))
    assert finished_result(jobs[0]) is None


@pytest.mark.timeout(600)
def test_a_worker_that_dies_costs_a_second_try(jobs, tmp_path, monkeypatch):
    monkeypatch.setattr(executor, "_run_here", run_and_die_once)
    good = ReplayJob(jobs[0].path, str(tmp_path / "good"), jobs[0].questions, SETTINGS)
    ((_, result),) = executor.in_processes([good], 1)
    assert not result["failed"]


@pytest.mark.timeout(600)
def test_a_recording_that_kills_its_worker_costs_the_others_nothing(jobs, tmp_path, monkeypatch):
    # given
    monkeypatch.setattr(executor, "_run_here", run_unless_deadly)
    names = ("one", "deadly", "two", "three")
    spread = [ReplayJob(jobs[0].path, str(tmp_path / name), jobs[0].questions, SETTINGS) for name in names]
    # when
    results = {Path(job.folder).name: result for job, result in executor.in_processes(spread, 2)}
    # then
    assert {name: result["failed"] for name, result in results.items()} == {name: name == "deadly" for name in names}
    assert "has died, twice" in results["deadly"]["problems"][0]
    assert json.loads((tmp_path / "deadly" / "result.json").read_text()) == results["deadly"]


@pytest.mark.timeout(600)
def test_an_actor_that_dies_always_fails_its_recording(jobs, monkeypatch):
    monkeypatch.setattr(executor, "Evaluator", DyingActor)
    ((_, result),) = on_ray(jobs[:1])
    assert result["failed"]
    assert "was lost" in result["problems"][0]


def test_a_defect_costs_one_recording(jobs, tmp_path, monkeypatch):
    monkeypatch.setattr("delayed_vlm_ros.replay.job.Replay", None)
    broken = ReplayJob(jobs[0].path, str(tmp_path / "out"), jobs[0].questions, SETTINGS)
    ((_, result),) = in_this_process([broken])
    assert result["failed"]
    assert result["problems"][0].startswith("TypeError: ")
    assert "Traceback" in result["problems"][1]


def test_a_result_that_cannot_be_written_ends_it_with_a_remedy(jobs, tmp_path):
    (tmp_path / "file").touch()
    blocked = ReplayJob(jobs[0].path, str(tmp_path / "file" / "one"), jobs[0].questions, SETTINGS)
    with pytest.raises(IncompleteError, match=r"the result of one cannot be written to .*make room there"):
        list(in_this_process([blocked]))
