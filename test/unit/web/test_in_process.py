"""The page's backend without ROS: what it logs about the model, and searches."""

import json
import logging
import time

import cv2
import numpy as np
import pytest

from delayed_vlm_ros.benchmark.random_checkpoint import save_random_checkpoint
from delayed_vlm_ros.errors import BadRequestError, UnknownCameraError
from delayed_vlm_ros.scenes import render
from delayed_vlm_ros.scenes.story import story_scene
from delayed_vlm_ros.web.backends.in_process import InProcessBackend, InProcessSettings


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
