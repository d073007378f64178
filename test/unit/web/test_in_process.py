"""The page's backend without ROS: what it logs about the model, and searches."""

import json
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from fake_metrics import metrics_of_scores
from waiting import wait_until

from delayed_vlm_ros.benchmark.random_checkpoint import save_random_checkpoint
from delayed_vlm_ros.errors import AskTimeoutError, BadRequestError, UnknownCameraError
from delayed_vlm_ros.inference.moments import MomentSearch
from delayed_vlm_ros.inference.worker import ModelWorker
from delayed_vlm_ros.inference.yes_no import ScoreResult, YesNo
from delayed_vlm_ros.memory import Frame, FramePair, KeptPair
from delayed_vlm_ros.scenes import render
from delayed_vlm_ros.scenes.story import story_scene
from delayed_vlm_ros.web.backends.in_process import InProcessBackend, InProcessSettings, search_in_parts
from delayed_vlm_ros.web.backends.in_process_model import LoadedModel


def test_ignored_settings_of_the_checkpoint_are_logged(tmp_path, caplog):
    # given
    video = cv2.VideoWriter(str(tmp_path / "video.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (56, 56))
    video.write(np.zeros((56, 56, 3), np.uint8))
    video.release()
    model = tmp_path / "model"
    save_random_checkpoint(model)
    file = model / "generation_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "num_beams": 4}))
    backend = InProcessBackend(InProcessSettings(str(tmp_path / "video.avi"), model=str(model), device="cpu"))

    # when
    with caplog.at_level(logging.WARNING):
        backend.start()
        deadline = time.monotonic() + 60
        while "num_beams" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.02)
        backend.close(10.0)

    # then
    assert [record for record in caplog.records if "num_beams 4" in record.getMessage()]


def test_search_finds_the_frames_of_a_video(tmp_path):
    # given a video whose red box leaves
    video = cv2.VideoWriter(str(tmp_path / "video.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 5.0, (160, 120))
    scene = story_scene()
    for number in range(14):
        video.write(render(scene, 5.0 + 0.5 * number, 120, 160)[..., ::-1])
    video.release()
    backend = InProcessBackend(InProcessSettings(str(tmp_path / "video.avi"), model="demo", device="cpu"))
    backend.start()
    try:
        deadline = time.monotonic() + 120
        while "ended" not in backend.state().diagnostics[0].message and time.monotonic() < deadline:
            time.sleep(0.05)

        # when
        outcome = backend.find("a red box", "")

        # then
        frames = backend.state().cameras[0].frames
        assert outcome.pairs_searched == len(frames)
        best = outcome.moments[0]
        assert best.score > 0.9
        assert best.stamp_ns == frames[0].stamp_ns
        assert best.end_stamp_ns < frames[-1].end_stamp_ns
        assert best.frame in frames
        assert best.jpeg[:2] == b"\xff\xd8"
        with pytest.raises(BadRequestError):
            backend.find(" ", "")
        with pytest.raises(UnknownCameraError):
            backend.find("a red box", "rear")
    finally:
        backend.close(10.0)


# Parts of a search ---------------------------------------------------------------------------------------------------

PAIRS = 5


def kept_pair(number: int) -> KeptPair:
    image = np.zeros((28, 28, 3), np.uint8)
    first, second = (Frame(image, 20.0 * number + one, 2 * number + one, 0.5, "") for one in (0, 1))
    return KeptPair(FramePair(number, first, second), in_star=True, in_stream=False)


class SteppingEngine:
    """Says yes to everything; waits for the test before each pair."""

    def __init__(self) -> None:
        self.steps = threading.Semaphore(0)
        self.searched: list[int] = []

    def score(self, questions, *, frames, control):
        while not self.steps.acquire(timeout=0.01):
            control.check()
        self.searched.append(frames[-1].id)
        return ScoreResult(tuple(YesNo(0.9, 0.99, 2.0, "Yes") for _ in questions), frames, metrics_of_scores())


@pytest.fixture
def searching():
    """Return an engine, its worker, and a function that starts a search with a deadline."""
    engine = SteppingEngine()
    worker = ModelWorker(lambda: LoadedModel(engine, "cpu"), 4)
    worker.start()
    with ThreadPoolExecutor(1) as pool:

        def start(timeout_sec):
            search = MomentSearch(tuple(map(kept_pair, range(1, PAIRS + 1))), "Is it dark?")
            return pool.submit(search_in_parts, worker, search, timeout_sec)

        yield engine, worker, start
        worker.close(5.0)


def test_question_is_answered_between_the_pairs_of_a_search(searching):
    # given a search of which one pair is done
    engine, worker, start = searching
    search = start(60.0)
    engine.steps.release()

    # when
    wait_until(lambda: engine.searched, "no pair was searched")
    question = worker.submit(lambda _loaded, _control: len(engine.searched), 60.0)
    engine.steps.release()

    # then
    assert question.result(10.0) == 2
    engine.steps.release(PAIRS)
    assert search.result(10.0).pairs_searched == PAIRS
    assert search.result().warnings == ()


def test_search_returns_what_was_found_until_its_deadline(searching):
    engine, _, start = searching
    engine.steps.release(2)
    found = start(0.5).result(10.0)
    assert found.pairs_searched == 2
    assert {moment.best.id for moment in found.moments} == {PAIRS, PAIRS - 1}
    assert found.warnings[0].startswith("stopped early")
    assert "3 older key frames" in found.warnings[0]


def test_search_without_a_pair_until_its_deadline_is_an_error(searching):
    _, _, start = searching
    with pytest.raises(AskTimeoutError):
        start(0.3).result(10.0)
