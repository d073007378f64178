"""The page's backend without ROS: what it logs about the model."""

import json
import logging
import time

import cv2
import numpy as np

from delayed_vlm_ros.benchmark.random_checkpoint import save_random_checkpoint
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
