"""The embedded model: a standard checkpoint that answers correctly, here and in Hugging Face's ``generate``."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine
from delayed_vlm_ros.resources import data_folder
from delayed_vlm_ros.scenes import TUNING_SEEDS, render
from delayed_vlm_ros.scenes.story import STORY_QUESTIONS, STORY_SEC, story_scene
from lab.bench.quality import accuracy, cell_json, evaluate, majority, objects, sentence_scores, statements

FOLDER = data_folder("demo", "tiny_scene")
CARD = Path(__file__).parents[3] / "delayed_vlm_ros" / "demo" / "tiny_scene" / "README.md"


@pytest.fixture(scope="module")
def loaded():
    torch.set_num_threads(1)  # more threads slow a model this small down
    model, report = AutoModelForImageTextToText.from_pretrained(FOLDER, dtype=torch.float32, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    return model.eval(), AutoProcessor.from_pretrained(FOLDER)


def test_checkpoint_is_small_and_its_card_states_its_hash():
    weights = FOLDER / "model.safetensors"
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 15_000_000
    assert hashlib.sha256(weights.read_bytes()).hexdigest() in CARD.read_text()


def test_story_is_answered_correctly_with_default_memory_sizes(loaded):
    # given the frames of a camera at 2 fps
    engine = DelayedBatchInferenceEngine(*loaded)
    for number in range(round(2 * STORY_SEC)):
        engine.add_frame(render(story_scene(), number / 2, 480, 640), number / 2)
    # then
    assert [engine.ask(one.text)[0] for one in STORY_QUESTIONS] == [one.answer for one in STORY_QUESTIONS]


@pytest.mark.parametrize(("pairs", "spacing"), [(2, "uneven"), (12, "even")])
def test_answers_are_mostly_correct_and_equal_to_native_answers(loaded, pairs, spacing):
    # when a few questions of each kind are answered; `python -m lab bench quality` measures the reported figures
    *_, cell = evaluate(*loaded, TUNING_SEEDS, pairs, spacing, per_kind=6, native=20)
    # then
    result = cell_json(cell)
    assert result["macro"] > 0.7, result
    assert result["macro"] > result["majority_macro"] + 0.1
    compared = [one for one in cell.answers if one.native is not None]
    assert len(compared) >= 20
    assert all(one.native == one.answer for one in compared)


@pytest.mark.parametrize(
    "question", ["What is on the table?", "Did the forklift move?", "please open the door", "weather tomorrow?"]
)
def test_question_with_unknown_words_is_not_answered(loaded, question):
    engine = DelayedBatchInferenceEngine(*loaded)
    engine.add_frame(render(story_scene(), 3.0, 480, 640), 3.0)
    assert engine.ask(question)[0] == "I don't understand the question"


def test_sentence_scores_count_statements():
    # given
    truth, answer = (
        "a red box on the left, a blue ball in the middle and a person on the right",
        "a red box on the right",
    )
    question = STORY_QUESTIONS[0]
    judged = [type("J", (), {"question": type(question)("describe", "?", truth), "answer": answer})()]
    # then
    assert statements(truth) == {"a red box on the left", "a blue ball in the middle", "a person on the right"}
    assert sentence_scores(judged) == {"named": 0.0, "invented": 1.0}
    assert sentence_scores(judged, objects) == {"named": pytest.approx(1 / 3), "invented": 0.0}
    assert accuracy([]) == majority([]) == 0.0
