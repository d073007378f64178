"""Evaluation of one recording: what its result says about the model."""

import json

import cv2
import numpy as np
import pytest

from delayed_vlm_ros.benchmark.random_checkpoint import save_random_checkpoint
from delayed_vlm_ros.replay.job import Evaluator, ReplayJob
from delayed_vlm_ros.replay.runner import ReplaySettings


@pytest.fixture
def evaluate(tmp_path):
    """Return a function that evaluates a folder of images with a model."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(2):
        cv2.imwrite(str(folder / f"{1700000000 + number}.png"), np.full((56, 56, 3), 50 * number, np.uint8))

    def run(model):
        settings = ReplaySettings(model=str(model), device="cpu", methods=("delayed",))
        return Evaluator().run(ReplayJob(str(folder), str(tmp_path / "out"), (), settings))

    return run


def test_ignored_settings_of_the_checkpoint_are_a_warning(evaluate, tmp_path):
    model = tmp_path / "model"
    save_random_checkpoint(model)
    file = model / "generation_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "num_beams": 4}))
    result = evaluate(model)
    (warning,) = [text for text in result["warnings"] if "num_beams" in text]
    assert warning in result["environment"]["model warnings"]


def test_demo_model_is_reported_as_asked_about_all_images(evaluate):
    result = evaluate("demo")
    assert (result["error"], result["complete"]) == ("", True)
    assert [text for text in result["warnings"] if "real camera" in text]
