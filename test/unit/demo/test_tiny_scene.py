"""The embedded model: an ordinary checkpoint that answers right, in this package and in the library alike."""

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
from lab.bench.quality import accuracy, cell_json, facts, judge, majority, sentence_scores, things

FOLDER = data_folder("demo", "tiny_scene")
CARD = Path(__file__).parents[3] / "delayed_vlm_ros" / "demo" / "tiny_scene" / "README.md"


@pytest.fixture(scope="module")
def loaded():
    model, report = AutoModelForImageTextToText.from_pretrained(FOLDER, dtype=torch.float32, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    return model.eval(), AutoProcessor.from_pretrained(FOLDER)


def test_it_is_small_and_its_card_tells_its_hash():
    weights = FOLDER / "model.safetensors"
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 15_000_000
    assert hashlib.sha256(weights.read_bytes()).hexdigest() in CARD.read_text()


def test_the_story_is_understood_by_a_memory_of_the_usual_size(loaded):
    # given what a camera at two frames a second saw
    engine = DelayedBatchInferenceEngine(*loaded)
    for number in range(round(2 * STORY_SEC)):
        engine.add_frame(render(story_scene(), number / 2, 480, 640), number / 2)
    # then
    assert [engine.ask(one.text)[0] for one in STORY_QUESTIONS] == [one.answer for one in STORY_QUESTIONS]


@pytest.mark.parametrize(("pairs", "spacing"), [(2, "uneven"), (12, "even")])
def test_answers_are_mostly_right_and_the_librarys_own_are_the_same(loaded, pairs, spacing):
    # when a few of each kind are asked; the figures that count are those of `delayed-vlm bench quality`
    *_, cell = judge(*loaded, TUNING_SEEDS, pairs, spacing, per_kind=6, stock=20)
    # then
    result = cell_json(cell)
    assert result["macro"] > 0.7, result
    assert result["macro"] > result["majority_macro"] + 0.1
    compared = [one for one in cell.judged if one.native is not None]
    assert len(compared) >= 20
    assert all(one.native == one.answer for one in compared)


@pytest.mark.parametrize(
    "question", ["What is on the table?", "Did the forklift move?", "please open the door", "weather tomorrow?"]
)
def test_words_it_does_not_know_are_not_guessed_at(loaded, question):
    engine = DelayedBatchInferenceEngine(*loaded)
    engine.add_frame(render(story_scene(), 3.0, 480, 640), 3.0)
    assert engine.ask(question)[0] == "I don't understand the question"


def test_scores_of_sentences_count_statements():
    # given
    truth, said = "a red box on the left, a blue ball in the middle and a person on the right", "a red box on the right"
    question = STORY_QUESTIONS[0]
    judged = [type("J", (), {"question": type(question)("describe", "?", truth), "answer": said})()]
    # then
    assert facts(truth) == {"a red box on the left", "a blue ball in the middle", "a person on the right"}
    assert sentence_scores(judged) == {"named": 0.0, "invented": 1.0}
    assert sentence_scores(judged, things) == {"named": pytest.approx(1 / 3), "invented": 0.0}
    assert accuracy([]) == majority([]) == 0.0
