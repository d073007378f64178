"""A remote engine with real servers of the embedded model.

The servers are ``transformers serve``, and a vLLM where ``VLLM_BASE_URL`` names one: ``http://localhost:8000/v1#NAME``.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from waiting import PATIENCE_SEC, wait_until

from delayed_vlm_ros.errors import AskTimeoutError, ModelNotReadyError, ServerError, UnsupportedModelError
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine
from delayed_vlm_ros.inference.remote.model import remote_model
from delayed_vlm_ros.inference.remote.settings import Encoding, RemoteSettings
from delayed_vlm_ros.inference.request import AskRequest
from delayed_vlm_ros.memory import SmartFrameManager
from delayed_vlm_ros.resources import data_folder
from delayed_vlm_ros.scenes import HELD_OUT_SEEDS, Scene, render

VLLM_URL = os.environ.get("VLLM_BASE_URL", "")
WITH_VLLM = pytest.mark.skipif(not VLLM_URL, reason="VLLM_BASE_URL is not set (a vLLM with the embedded model)")
FRAME_SIZE = (112, 140)  # of the embedded model
QUESTIONS = ("how many objects are there?", "is there a red ball?", "what color is the cone?")
PAIRS = 6
EVEN_SEC = 0.5

# ``transformers serve`` looks for a line break before an answer, which the embedded model's tokenizer does not write.
PARSER = {
    "start_anchor": "<|im_start|> assistant",
    "fields": {"content": {"close_pattern": r"\s*<\|im_end\|>", "content": "text"}},
}


@pytest.fixture(scope="module")
def memory():
    """Return a memory with frames of a room at even times."""
    scene = Scene.from_seed(HELD_OUT_SEEDS[1])
    memory = SmartFrameManager(0, 2 * PAIRS)
    for number in range(2 * PAIRS):
        memory.add(render(scene, number * EVEN_SEC, *FRAME_SIZE), number * EVEN_SEC)
    return memory


@pytest.fixture(scope="module")
def local_answers(memory):
    """Return the answers of the embedded model on this machine."""
    engine = DelayedBatchInferenceEngine.from_pretrained("demo", device="cpu", frame_manager=memory)
    return [engine.answer(AskRequest(question)).answer for question in QUESTIONS]


@pytest.fixture
def ask_server(memory):
    """Return a function that returns an engine for an address."""
    engines = []

    def make(address, encoding=Encoding.AUTO):
        remote = remote_model(address, RemoteSettings(encoding, frame_multiple=28))
        engines.append(remote.engine(memory, remote.connect()))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


# --- transformers serve --------------------------------------------------------------------------------------------


class TransformersServe:
    """A server process."""

    def __init__(self, folder):
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = (Path(sys.executable).with_name("transformers"), "serve", folder, "--device", "cpu")
        self.log = folder.parent / "log.txt"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*map(str, command), "--host", "127.0.0.1", "--port", str(self.port), "--dtype", "float32"],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )

    @property
    def address(self):
        return f"openai:http://127.0.0.1:{self.port}/v1#{self.folder}"

    def is_ready(self):
        assert self.process.poll() is None, self.log.read_text()
        try:
            with urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5.0) as response:
                return response.status == 200
        except (URLError, OSError):
            return False

    def kill(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Return a ``transformers serve`` with the embedded model."""
    folder = tmp_path_factory.mktemp("served") / "tiny_scene"
    shutil.copytree(data_folder("demo", "tiny_scene"), folder)
    tokenizer = folder / "tokenizer_config.json"
    tokenizer.write_text(json.dumps({**json.loads(tokenizer.read_text()), "response_template": PARSER}))
    server = TransformersServe(folder)
    try:
        wait_until(server.is_ready, server.log.read_text, PATIENCE_SEC)
        yield server
    finally:
        server.kill()


@pytest.mark.heavy
def test_transformers_serve_answers_from_images_with_spoken_times(served, ask_server, local_answers):
    engine = ask_server(served.address)
    results = [engine.answer(AskRequest(question)) for question in QUESTIONS]
    assert [one.answer for one in results] == local_answers
    metrics = results[-1].metrics
    assert (metrics.exact, metrics.finish_reason) == (False, "stop")
    assert (metrics.frames_encoded, metrics.frames_reused, metrics.kv_tokens_reused) == (PAIRS, 0, 0)
    assert any("with its time in words" in warning for warning in metrics.warnings)
    assert metrics.bytes_sent > 10_000  # all images again: the server holds none


@pytest.mark.heavy
def test_transformers_serve_refuses_what_it_cannot_do(served, ask_server):
    with pytest.raises(ServerError, match="does not accept a video"):
        ask_server(served.address, Encoding.VIDEO).answer(AskRequest(QUESTIONS[0]))
    with pytest.raises(UnsupportedModelError, match="probabilities"):
        ask_server(served.address).score(QUESTIONS)
    with pytest.raises(ServerError, match="pinned"):
        ask_server(served.address + "-other").answer(AskRequest(QUESTIONS[0]))


@pytest.mark.heavy
def test_transformers_serve_that_is_stopped_times_out_and_that_is_killed_is_named(served, ask_server):
    engine = ask_server(served.address)
    engine.answer(AskRequest(QUESTIONS[0]))
    os.killpg(served.process.pid, signal.SIGSTOP)
    with pytest.raises(AskTimeoutError):
        engine.answer(AskRequest(QUESTIONS[0]), AskControl(time.monotonic() + 0.5))
    served.kill()
    with pytest.raises(ModelNotReadyError, match=f"127.0.0.1:{served.port}"):
        engine.answer(AskRequest(QUESTIONS[0]))


# --- vLLM ----------------------------------------------------------------------------------------------------------


@WITH_VLLM
@pytest.mark.heavy
def test_vllm_answers_as_the_local_engine_from_a_video(ask_server, local_answers):
    engine = ask_server(f"openai:{VLLM_URL}", Encoding.VIDEO)
    results = [engine.answer(AskRequest(question)) for question in QUESTIONS]
    assert [one.answer for one in results] == local_answers
    assert all(not one.metrics.exact and one.metrics.visual_tokens == 20 * PAIRS for one in results)
    assert results[-1].metrics.bytes_sent < results[0].metrics.bytes_sent / 20  # the video travels once


@WITH_VLLM
@pytest.mark.heavy
@pytest.mark.parametrize("encoding", [Encoding.TIMED_IMAGES, Encoding.IMAGES])
def test_vllm_receives_images_once_and_reuses_the_prefix(ask_server, encoding):
    engine = ask_server(f"openai:{VLLM_URL}", encoding)
    engine.answer(AskRequest(QUESTIONS[0]))
    metrics = engine.answer(AskRequest(QUESTIONS[1])).metrics
    assert (metrics.frames_encoded, metrics.frames_reused) == (0, PAIRS)
    assert metrics.bytes_sent < 2_500
    assert metrics.kv_tokens_reused >= 128  # vLLM on a CPU holds blocks of 128 tokens


@WITH_VLLM
@pytest.mark.heavy
def test_vllm_reports_scores_of_yes(ask_server, memory):
    questions = ("is there a red ball?", "is there a person?")
    local = DelayedBatchInferenceEngine.from_pretrained("demo", device="cpu", frame_manager=memory).score(questions)
    remote = ask_server(f"openai:{VLLM_URL}", Encoding.VIDEO).score(questions)
    assert [one.p_yes for one in remote.scores] == pytest.approx([one.p_yes for one in local.scores], abs=0.02)
