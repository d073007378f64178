"""Service, statistics and diagnostics over DDS, with the embedded model."""

import os
import re
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from delayed_vlm_ros.srv import AskScene
from harness import nanoseconds, values_of
from waiting import wait_until

from delayed_vlm_ros.inference.time_words import NO_WORDS

RESPONSE = AskScene.Response


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The node's home folder, which is empty at first and also holds its temporary files."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def running(start_for_module, home):
    environment = {"HOME": str(home), "TMPDIR": str(home), "ROS_LOG_DIR": str(home / "log")}
    process, client = start_for_module(
        fake=False,
        memory__sample_fps=20.0,
        memory__stream__size=6,
        environment=environment,
        new_interpreter=True,  # imports may write files
    )
    client.wait_until_active()
    return process, client


def test_no_model_code_runs_before_the_first_question(running):
    _, client = running
    client.show_images(4)
    node = client.wait_for_node_stats(lambda stats: stats.model_state == "ready")
    stats = client.wait_for_stats()
    assert stats.unique_frames >= 4
    assert (node.questions_answered, node.questions_failed) == (0, 0)
    assert (stats.kv_bytes, stats.feature_bytes) == (0, 0)
    assert node.last_total_latency == 0


def test_answer_has_its_frames_and_its_cost(running):
    _, client = running
    client.show_images(4)
    # when
    response = client.ask(max_new_tokens=4)
    # then
    assert response.success, response.error_msg
    assert response.error_code == RESPONSE.NONE
    assert response.error_msg == ""
    assert response.answer
    stamps = [(frame.header.stamp.sec, frame.header.stamp.nanosec) for frame in response.frames_used]
    assert stamps == sorted(stamps)
    assert len({frame.id for frame in response.frames_used}) == len(stamps)
    assert all(frame.camera == "camera" and frame.header.frame_id.startswith("lens") for frame in response.frames_used)
    assert response.snapshot_stamp == response.frames_used[-1].end_stamp
    assert 0 < response.newest_frame_age_sec <= (client.now_ns() - nanoseconds(response.snapshot_stamp)) * 1e-9
    metrics = response.metrics
    assert metrics.frames_encoded > 0
    assert metrics.encoding_latency > 0
    assert 0 < metrics.time_to_first_token <= metrics.total_latency
    assert metrics.queue_latency >= 0
    assert metrics.answer_tokens <= 4
    assert metrics.video_grid_thw[0] == len(response.frames_used)
    assert any("synthetic" in warning for warning in metrics.warnings)


def test_second_question_about_the_same_frames_encodes_nothing(running):
    _, client = running
    client.show_images(2)
    first = client.ask("What is there?", max_new_tokens=2)
    second = client.ask("And what else?", max_new_tokens=2)
    assert first.success
    assert second.success, second.error_msg
    assert second.metrics.frames_encoded == 0
    assert second.metrics.encoding_latency == 0
    assert second.metrics.frames_reused > 0
    assert [frame.id for frame in first.frames_used] == [frame.id for frame in second.frames_used]


def test_statistics_and_diagnostics_agree(running):
    _, client = running
    client.show_images(2)
    client.ask("Statistics?", max_new_tokens=2)
    node = client.wait_for_node_stats()
    served = client.wait_for_stats(since_ns=nanoseconds(node.header.stamp))
    assert node.questions_answered > 0
    assert served.kv_bytes > 0
    assert served.total_frames_added == served.images_sampled
    assert served.unique_frames == served.star_memory_size + served.stream_memory_size - served.overlap
    assert served.stream_memory_size <= 6
    assert served.pixel_bytes > 0
    assert node.last_total_latency > 0
    assert served.oldest_frame_age_sec >= served.newest_frame_age_sec >= 0
    assert (node.model, node.model_state, node.device) == ("demo", "ready", "cpu")
    assert any("synthetic" in warning for warning in node.warnings)
    reported_ns = nanoseconds(served.header.stamp)
    model = client.wait_for_status("model", since_ns=reported_ns)
    assert "synthetic" in model.message
    assert model.level == b"\x01"
    memory = values_of(client.wait_for_status("memory camera", since_ns=reported_ns))
    assert memory["star_memory_size"] == f"{served.star_memory_size} frames"
    questions = client.wait_for_status("questions", since_ns=reported_ns)
    assert questions.level == b"\x00"
    assert values_of(questions)["answered"] == str(node.questions_answered)


def test_reports_are_published_once_a_second(running):
    _, client = running

    def in_time():
        # A busy machine delays some reports, but not all.
        between = np.diff(client.report_stamps_ns[-4:]) * 1e-9
        return len(between) == 3 and between.mean() == pytest.approx(1.0, abs=0.2)

    wait_until(in_time, lambda: f"four reports in time; the last stamps are {client.report_stamps_ns[-9:]}")


def test_answers_are_published(running):
    _, client = running
    client.show_images(2)

    def published_answer(question):
        return next((answer for answer in client.answers if answer.question == question), None)

    # given that node and client have discovered each other: earlier messages are lost
    wait_until(lambda: client.ask("Discovery?", max_new_tokens=1) and published_answer("Discovery?"), "any answer")
    # when
    response = client.ask("For the log?", max_new_tokens=2)
    # then
    published = wait_until(lambda: published_answer("For the log?"), "the answer")
    assert published.success
    assert published.camera == "camera"
    assert published.answer == response.answer
    assert list(published.frame_ids) == [frame.id for frame in response.frames_used]
    assert published.header.stamp == response.snapshot_stamp


def test_time_limits_select_the_frames(running):
    _, client = running
    client.show_images(6)
    everything = client.ask("All?", max_new_tokens=1).frames_used
    last = everything[-1]
    # when / then
    only_last = client.ask("Since?", since=last.header.stamp, max_new_tokens=1)
    assert [frame.id for frame in only_last.frames_used] == [last.id]
    before = client.ask("Until?", until=everything[0].end_stamp, max_new_tokens=1)
    assert [frame.id for frame in before.frames_used] == [everything[0].id]


def test_scope_now_uses_the_newest_four_pairs_and_keeps_the_encoding_of_all(running):
    _, client = running
    client.show_images(10)
    everything = client.ask("All?", max_new_tokens=1)
    now = client.ask("Now?", scope=AskScene.Request.SCOPE_NOW, max_new_tokens=1)
    assert list(now.frame_ids) == list(everything.frame_ids)[-4:]
    assert now.metrics.frames_encoded == 0
    again = client.ask("All?", max_new_tokens=1)
    assert again.metrics.encoding_latency == 0.0


def test_words_about_time_select_the_frames_and_are_reported(running):
    _, client = running
    client.show_images(6)
    everything = client.ask("All?", max_new_tokens=1)
    today = client.ask("Who came today or in the last hour?", parse_time=True, max_new_tokens=1)
    assert today.frame_ids == everything.frame_ids
    assert today.time_understood.startswith("'today' and 'in the last hour': from ")
    assert not client.ask("Who came today?", max_new_tokens=1).time_understood
    none = client.ask("What is there?", parse_time=True, max_new_tokens=1)
    assert not none.time_understood
    assert NO_WORDS in none.metrics.warnings
    earlier = client.ask("Who came yesterday?", parse_time=True)
    assert earlier.error_code == AskScene.Response.NO_FRAMES
    assert "'yesterday': from " in earlier.error_msg
    assert client.ask("Who came today?", parse_time=True, last_sec=3.0).error_code == AskScene.Response.BAD_REQUEST


def test_reset_clears_the_frames_but_not_the_counters(running):
    _, client = running
    client.show_images(2)
    response = client.reset()
    assert response.success
    assert client.ask().error_code == RESPONSE.NO_FRAMES
    stats = client.wait_for_stats()
    assert stats.unique_frames == 0
    assert stats.images_received > 0
    assert stats.oldest_frame_age_sec == -1
    client.show_images(2)
    assert client.ask(max_new_tokens=1).success


def open_for_writing(process_id):
    """Return the files that a process can write, without its output, pipes, sockets, devices and shared memory."""
    found = set()
    for descriptor in (Path("/proc") / str(process_id) / "fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            target = str(descriptor.readlink())
            flags = re.search(r"flags:\s+(\d+)", (descriptor.parents[1] / "fdinfo" / descriptor.name).read_text())[1]
            is_file = target.startswith("/") and not target.startswith(("/dev/", "/memfd:"))
            if is_file and int(descriptor.name) > 2 and int(flags, 8) & os.O_ACCMODE != os.O_RDONLY:
                found.add(target)
    return found


def test_node_without_a_folder_writes_logs_only(running, home):
    process, client = running
    client.show_images(4)
    assert client.ask(max_new_tokens=2).success
    written = [str(file) for file in home.rglob("*") if file.is_file()]
    assert written
    assert [file for file in written if not file.endswith(".log")] == []
    assert open_for_writing(process.process.pid) <= set(written)
