"""``basic`` and ``compare`` with a model on a server: answers, what is compared, and no torch."""

import json
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from chat_server import MODEL, ChatServer
from command_line import run_here
from hidden_packages import hide

pytest.importorskip("openai", reason="the extra 'remote' is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a video of twelve seconds."""
    folder = tmp_path_factory.mktemp("video")
    writer = cv2.VideoWriter(str(folder / "square.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (160, 120))
    background = np.random.default_rng(5).integers(40, 90, (120, 160, 3), dtype=np.uint8)
    for index in range(120):
        image = background.copy()
        image[30:70, index : index + 40] = (30, 200, 240)
        writer.write(image)
    writer.release()
    return folder


@pytest.fixture
def server():
    started = ChatServer()
    yield started
    started.close()


def address(server):
    return f"openai:http://127.0.0.1:{server.port}/v1#{MODEL}"


def test_basic_sends_frames_once(folder, server):
    done = run_here("basic", "--video", "square.avi", "--model", address(server), "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert [stage["frames_added"] for stage in printed["stages"]] == [14, 0, 0, 10]
    first, second, third = (ask["metrics"] for ask in printed["asks"])
    assert {ask["answer"] for ask in printed["asks"]} == {"a red box"}
    assert (first["exact"], first["frames_reused"], second["frames_encoded"]) == (False, 0, 0)
    assert second["bytes_sent"] < first["bytes_sent"] / 3
    assert third["frames_encoded"] > 0
    assert server.conflicts == []
    assert f"model: {MODEL} on vLLM 0.33.0, encoding timed_images, exact: false" in done.stderr


def test_basic_shows_bytes_in_the_cost_of_an_answer(folder, server):
    done = run_here("basic", "--video", "square.avi", "--model", address(server), "-v", cwd=folder, columns=250)
    assert done.returncode == 0, done.stderr
    assert "exact: false; " in done.stdout
    assert done.stdout.count(" bytes sent") == 3


def test_compare_asks_about_all_frames_and_says_that_there_is_no_native_inference(folder, server):
    options = ("--star", 0, "--stream", 4, "--sample-fps", 2, "-q", "What moves?", "--json")
    done = run_here("compare", "--video", "square.avi", "--model", address(server), *options, cwd=folder, columns=250)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert "no native inference" in done.stderr
    assert printed["frames"] == {"everything": 24, "delayed": 4}
    assert (printed["server"], printed["encoding"]) == ("vLLM 0.33.0", "timed_images")
    (comparison,) = printed["comparisons"]
    assert (comparison["everything"]["answer"], comparison["delayed"]["answer"]) == ("a red box", "a red box")
    assert comparison["identical"] is True
    everything, delayed = (len(request.items) for request in server.chats[-2:])
    assert (everything, delayed) == (12, 2)  # one image of each pair


@pytest.mark.parametrize("command", ["basic", "compare"])
def test_server_that_is_away_is_one_line(folder, server, command):
    server.kill()
    done = run_here(command, "--video", "square.avi", "--model", address(server), cwd=folder, columns=250)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: cannot reach the model server")


@pytest.mark.parametrize("command", ["basic", "compare"])
def test_command_needs_neither_torch_nor_transformers(folder, server, command, tmp_path):
    program = [sys.executable, "-m", "delayed_vlm_ros.cli.main", command, "--video", "square.avi"]
    environment = {**os.environ, **hide(tmp_path / "site", "torch", "transformers")}
    done = subprocess.run(
        [*program, "--model", address(server), "--json"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, "Task" in done.stderr) == (0, False), done.stderr
    assert "a red box" in done.stdout


def test_python_engine_answers_about_added_frames(server):
    from delayed_vlm_ros import RemoteInferenceEngine  # noqa: PLC0415  an optional extra

    engine = RemoteInferenceEngine(address(server), star_memory_size=4, stream_window_size=4)
    try:
        for number in range(4):
            engine.add_frame(np.full((120, 160, 3), 40 * number, np.uint8), number / 2)
        answer, metrics = engine.ask("What is red?")
        assert (answer, metrics.exact, engine.warnings) == ("a red box", False, ())
        assert metrics.bytes_sent > 0
        assert len(engine.snapshot()) == 2
    finally:
        engine.close()
