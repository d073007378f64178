"""Training: its shortcuts compute what the library computes, and a run from nothing to a checkpoint works."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from delayed_vlm_ros.inference.local.positions import prompt_positions, temporal_ids
from delayed_vlm_ros.inference.local.prompt import build_prompt
from delayed_vlm_ros.inference.local.video_input import pixel_values, position_limit
from delayed_vlm_ros.scenes import TRAINING_SEEDS
from delayed_vlm_ros.scenes.answers import AGES_SEC, OLDER
from delayed_vlm_ros.scenes.phrasing import PHRASINGS, UNKNOWN_WORDS
from lab.training import clips as clips_module
from lab.training import language_data, language_stage, vision_stage
from lab.training.clips import Clip
from lab.training.pair_vision import encode_pairs, patches_of
from lab.training.scene_model import COLUMNS, FRAME_HEIGHT, FRAME_WIDTH, ROWS, make_model, make_processor


@pytest.fixture(scope="module")
def processor():
    return make_processor()


@pytest.fixture(scope="module")
def model(processor):
    return make_model(processor.tokenizer, seed=1).eval()


@pytest.fixture(scope="module")
def clips():
    return [clips_module._make_clip(TRAINING_SEEDS[number])[0] for number in range(4)]


def test_patches_and_features_are_the_librarys(model, processor):
    # given
    frames = np.random.default_rng(0).integers(0, 256, (6, FRAME_HEIGHT, FRAME_WIDTH, 3), np.uint8)
    # when
    patches = patches_of(torch.from_numpy(frames).view(3, 2, FRAME_HEIGHT, FRAME_WIDTH, 3))
    with torch.no_grad():
        features = encode_pairs(model.model.visual, patches, ROWS, COLUMNS)
        # then
        pixels = pixel_values(processor, list(frames))
        expected = model.model.visual(pixels, torch.tensor([[3, 2 * ROWS, 2 * COLUMNS]])).pooler_output
    assert torch.allclose(patches.flatten(0, 1), pixels, atol=1e-5)
    assert torch.allclose(features.flatten(0, 1), expected, atol=1e-5)


def test_questions_behind_one_video_are_answered_as_if_each_were_alone(model, processor, clips):
    # given
    data = language_data.ClipQuestions(clips, processor, model.config, steps=10, first_step=0, seed=0)
    batch = data._batch(1.0, np.random.default_rng(2))
    language = model.model.language_model
    features = torch.randn(len(clips), clips_module.PAIRS, ROWS * COLUMNS, 128)
    before = language.config._attn_implementation
    language_stage.LanguageStage(model, language_stage.stored(features, seed=0), steps=1, rate=1e-3)
    embed = language.embed_tokens
    video = features[batch.clips[:, None], batch.pairs].flatten(1, 2)
    # when
    with torch.no_grad():
        together = language(
            inputs_embeds=torch.cat([embed(batch.before).expand(len(video), -1, -1), video, embed(batch.text)], dim=1),
            attention_mask={"full_attention": language_stage._visibility(batch, torch.float32)},
            position_ids=batch.positions,
            use_cache=False,
        ).last_hidden_state[:, batch.shared :]
        language.config._attn_implementation = before
        assert len({int(reach) for reach in batch.reach[0]}) > 1, "all questions were put at the end"
        for clip, number in ((0, 1), (1, 5), (2, 10), (2, 20)):
            mine = batch.segments[clip] == number
            reach = int(batch.reach[clip][mine][0])  # what it sees may end before the video does
            pairs = (reach - len(batch.before)) // (ROWS * COLUMNS)
            clip_pairs = batch.pairs[clip][:pairs].tolist()
            stamps = [clips[batch.clips[clip]].truths[pair].strict.stamp for pair in clip_pairs]
            times = temporal_ids(model.config, stamps, position_limit(model.config)).ids
            seen = torch.cat([embed(batch.before), video[clip][: pairs * ROWS * COLUMNS]])
            alone = language(
                inputs_embeds=torch.cat([seen, embed(batch.text[clip][mine])])[None],
                position_ids=prompt_positions(len(batch.before), times, ROWS, COLUMNS, int(mine.sum())),
                use_cache=False,
            ).last_hidden_state[0, reach:]
            # then
            assert torch.allclose(together[clip][mine], alone, atol=1e-4)


def test_questions_are_put_as_the_engine_puts_them(model, processor, clips):
    data = language_data.ClipQuestions(clips, processor, model.config, steps=10, first_step=0, seed=0)
    for question in ("What is on the left?", "is there a dog", "Where is the violet tyre, please?"):
        assert data._question_ids(question) == list(build_prompt(processor, question).after)


def test_all_words_of_questions_and_answers_are_known(processor):
    tokenizer = processor.tokenizer
    unknown = tokenizer.convert_tokens_to_ids("[UNK]")
    for texts in PHRASINGS.values():
        for text in texts:
            assert unknown not in tokenizer(text.format(thing="red box", things="boxes", other="ball")).input_ids, text
    for answer in [OLDER, *(f"about {age} seconds ago" for age in AGES_SEC), "a red box on the left, a person came by"]:
        ids = language_data.answer_ids(tokenizer, answer)
        assert tokenizer.decode(ids, skip_special_tokens=True) == answer
    for word in UNKNOWN_WORDS:
        assert tokenizer(word).input_ids == [unknown], word
    with pytest.raises(ValueError, match="not in the vocabulary"):
        language_data.answer_ids(tokenizer, "a mauve box")


def test_a_thing_is_named_by_the_token_that_holds_its_middle():
    # given a red box in the first token, and a half hidden ball in the last
    red, ball = vision_stage.COLOUR_WORDS.index("red"), vision_stage.SHAPE_WORDS.index("ball")
    things = torch.full((1, 3, 5), -1.0)
    things[0, 0] = torch.tensor([0.1, 0.1, red, 0.0, 1.0])
    things[0, 1] = torch.tensor([0.95, 0.95, red, ball, 0.1])
    # when
    colours, shapes = vision_stage.labels_of(things)
    # then
    assert (colours[0, 0], shapes[0, 0]) == (red, 0)
    assert (colours[0, -1], shapes[0, -1]) == (-100, -100)
    assert (shapes[0, 1:-1] == len(vision_stage.SHAPE_WORDS) - 1).all()


@pytest.mark.parametrize(("size", "expected"), [((240, 320), 0.0), ((150, 150), 0.1), ((120, 213), 0.0)])
def test_places_in_letterboxed_images_are_those_on_the_grid(size, expected):
    clip = Clip(truths=(), objects=(), spacing="even", size=size)
    assert clip.on_grid(0.5, 0.5) == (0.5, 0.5)
    assert clip.on_grid(0.0, 0.5)[0] == pytest.approx(expected)


SHORT_TRAINING = """
import sys
from lab.training import clips, language_data, language_stage, train, vision_stage
for module in (clips, vision_stage, language_stage):
    module.SHARD_CLIPS = 1
vision_stage._BATCH, language_data._CLIPS = 4, 2
train.app(sys.argv[1:])
"""


@pytest.mark.timeout(1300)  # two processes that learn: a minute, and several on a machine that others keep busy
def test_a_run_from_nothing_to_a_checkpoint_and_again_from_what_is_there(tmp_path):
    # given a very short training, in a process of its own, as it forks others
    arguments = [
        *("--work", str(tmp_path / "work"), "--out", str(tmp_path / "out"), "--shards", "4", "--workers", "1"),
        *("--vision-steps", "2", "--language-steps", "3", "--joint-steps", "2", "--resume"),
    ]
    # when
    command = [sys.executable, "-c", SHORT_TRAINING, *arguments]
    runs = [subprocess.run(command, capture_output=True, text=True, timeout=600, check=False) for _ in range(2)]
    # then
    assert [done.returncode for done in runs] == [0, 0], runs
    assert "sha256" in runs[0].stdout
    assert runs[0].stdout.splitlines()[-1] == runs[1].stdout.splitlines()[-1]
    AutoModelForImageTextToText.from_pretrained(tmp_path / "out")
    AutoProcessor.from_pretrained(tmp_path / "out")
