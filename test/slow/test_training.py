"""Training: its shortcuts compute what Hugging Face computes, and a run from random weights writes a checkpoint."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch

from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine
from delayed_vlm_ros.inference.local.models.adapters.registry import adapter_for
from delayed_vlm_ros.inference.local.prompt import build_prompt
from delayed_vlm_ros.inference.local.video_input import lay_out, pixel_values
from delayed_vlm_ros.inference.request import AskRequest
from delayed_vlm_ros.replay.compare import keep_everything
from delayed_vlm_ros.scenes import TRAINING_SEEDS
from delayed_vlm_ros.scenes.answers import AGES_SEC, OLDER
from delayed_vlm_ros.scenes.phrasing import PHRASINGS, UNKNOWN_WORDS
from lab.commands.train import Family
from lab.training import clips as clips_module
from lab.training import language_data, language_stage, vision_stage
from lab.training.clips import Clip
from lab.training.optimization import Muon
from lab.training.pair_vision import patches_of
from lab.training.scene_model import (
    COLUMNS,
    EMBEDDED,
    ROWS,
    TRAINED_TYPES,
    UNKNOWN,
    frame_grid,
    make_model,
    make_processor,
    vocabulary,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", params=TRAINED_TYPES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def processor(family):
    return make_processor(family)


@pytest.fixture(scope="module")
def model(family, processor):
    return make_model(processor.tokenizer, 1, family).eval()


@pytest.fixture(scope="module")
def clips(family):
    return [clips_module._make_clip(TRAINING_SEEDS[number], frame_grid(family))[0] for number in range(4)]


def test_patches_equal_those_of_hugging_face(family, processor):
    # given
    grid = frame_grid(family)
    frames = np.random.default_rng(0).integers(0, 256, (6, grid.height, grid.width, 3), np.uint8)
    # when
    patches = patches_of(torch.from_numpy(frames).view(3, 2, grid.height, grid.width, 3), processor)
    # then
    assert torch.allclose(patches.flatten(0, 1), pixel_values(processor, list(frames)), atol=1e-5)


def test_questions_after_one_video_equal_single_questions(family, processor, clips):
    # given
    model = make_model(processor.tokenizer, 1, family).eval()  # the training sets its attention function
    stock = make_model(processor.tokenizer, 1, family).eval()
    batch = next(iter(questions_about(clips, processor, model)))
    levels = adapter_for(model.config).encode_pairs(
        model.model.visual, torch.randn(1, 4 * ROWS * COLUMNS, 6 * model.model.visual.patch_size**2), ROWS, COLUMNS
    )
    features = torch.randn(len(clips), clips_module.PAIRS, ROWS * COLUMNS, levels.shape[-1])
    language_stage.LanguageStage(model, language_stage.stored(features, seed=0), steps=1, rate=1e-3)
    video_output = adapter_for(model.config).video_output
    video = features[batch.clips[:, None], batch.pairs].flatten(1, 2)
    prompt = build_prompt(processor, "?")
    # when
    with torch.no_grad():
        together = language_stage.run(model.model, video_output, batch, video).last_hidden_state
        assert len({int(reach) for reach in batch.reach[0]}) > 1, "no question is early"
        for row, number in ((0, 1), (1, 5), (2, 10), (2, 20), (5, 20), (7, 3)):
            mine = batch.segments[row] == number
            reach = int(batch.reach[row][mine][0])  # an early question sees only the first pairs
            pairs = int(batch.visual[row, :reach].sum()) // (ROWS * COLUMNS)
            clip = clips[batch.clips[row]]
            snapshot = holding(stock, processor, clip, batch.pairs[row][:pairs].tolist()).snapshot()
            config = deepcopy(model.config)
            config.text_config.max_position_embeddings = 10**6  # no gap is compressed, as in the training
            layout = lay_out(config, processor, snapshot)
            tokens = batch.text[row][mine]
            asked = dataclasses.replace(prompt, after=tuple(tokens.tolist()))
            alone = stock.model(
                input_ids=torch.tensor([layout.token_ids(asked)]),
                mm_encoder_outputs={"video": video_output(stock.config, [video[row][: pairs * ROWS * COLUMNS]])},
                position_ids=layout.positions(asked),
                use_cache=False,
            ).last_hidden_state[0, reach:]
            # then
            assert torch.allclose(together[row, batch.shared.shape[1] :][mine], alone, atol=1e-4)


def questions_about(clips, processor, model):
    return language_data.ClipQuestions(
        clips, processor, model.config, steps=10, first_step=5, seed=0, clips_per_batch=8
    )


def holding(model, processor, clip, pairs):
    """Return an engine whose memory holds some pairs of a clip, with uniform images."""
    engine = DelayedBatchInferenceEngine(model, processor, frame_manager=keep_everything())
    for pair in pairs:
        for number, stamp in enumerate(clip.stamps[pair]):
            image = np.full((clip.grid.height, clip.grid.width, 3), number, np.uint8)
            engine.add_frame(image, stamp)
    return engine


def test_question_ids_equal_those_of_the_engine(model, processor, clips):
    data = questions_about(clips, processor, model)
    for question in ("What is on the left?", "is there a dog", "Where is the violet tyre, please?"):
        assert data._question_ids(question) == list(build_prompt(processor, question).after)


def test_vocabulary_contains_every_word_of_questions_and_answers(processor):
    tokenizer = processor.tokenizer
    unknown = tokenizer.convert_tokens_to_ids(UNKNOWN)
    for texts in PHRASINGS.values():
        for text in texts:
            assert unknown not in tokenizer(text.format(thing="red box", things="boxes", other="ball")).input_ids, text
    for answer in [OLDER, *(f"about {age} seconds ago" for age in AGES_SEC), "a red box on the left, a person came by"]:
        ids = language_data.answer_ids(tokenizer, answer)
        assert tokenizer.decode(ids, skip_special_tokens=True) == answer
    for word in UNKNOWN_WORDS:
        assert tokenizer(word).input_ids == [unknown], word
    with pytest.raises(ValueError, match="a mauve box"):
        language_data.answer_ids(tokenizer, "a mauve box")


@pytest.mark.parametrize("shape", [(24, 40), (40, 24)])
def test_muon_takes_the_steps_of_torch(shape):
    # given
    start, gradients = torch.randn(shape), torch.randn(3, *shape)
    mine, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    optimizers = (
        (mine, Muon([mine], 0.1, weight_decay=0.02)),
        (theirs, torch.optim.Muon([theirs], 0.1, adjust_lr_fn="match_rms_adamw", weight_decay=0.02)),
    )
    # when
    for gradient in gradients:
        for parameter, optimizer in optimizers:
            parameter.grad = gradient.clone()
            optimizer.step()
    # then up to the bfloat16 of torch's
    assert (mine - theirs).abs().max() < 0.03 * (mine - start).abs().max()


def test_label_belongs_to_the_token_with_the_centre_of_the_object():
    # given a red box in the first token, and a ball in the last one that is almost hidden
    red, ball = vision_stage.COLOUR_WORDS.index("red"), vision_stage.SHAPE_WORDS.index("ball")
    objects = torch.full((1, 3, 5), -1.0)
    objects[0, 0] = torch.tensor([0.1, 0.1, red, 0.0, 1.0])
    objects[0, 1] = torch.tensor([0.95, 0.95, red, ball, 0.1])
    # when
    colours, shapes = vision_stage.labels_of(objects)
    # then
    assert (colours[0, 0], shapes[0, 0]) == (red, 0)
    assert (colours[0, -1], shapes[0, -1]) == (-100, -100)
    assert (shapes[0, 1:-1] == len(vision_stage.SHAPE_WORDS) - 1).all()


@pytest.mark.parametrize(("size", "expected"), [((240, 320), 0.0), ((150, 150), 0.1), ((120, 213), 0.0)])
def test_position_in_letterboxed_image_maps_to_grid(size, expected):
    clip = Clip(truths=(), objects=(), stamps=(), spacing="even", size=size, grid=frame_grid(EMBEDDED))
    assert clip.on_grid(0.5, 0.5) == (0.5, 0.5)
    assert clip.on_grid(0.0, 0.5)[0] == pytest.approx(expected)


SHORT_TRAINING = """
import sys
from lab.__main__ import app
from lab.training import clips, language_stage, train, vision_stage
for module in (clips, vision_stage, language_stage):
    module.SHARD_CLIPS = 1
train._JOINT_CLIPS = 2
app(["train", *sys.argv[1:]])
"""


def train(folder, *options):
    arguments = [
        *("--work", str(folder / "work"), "--out", str(folder / "out"), "--shards", "4", "--workers", "1"),
        *("--vision-steps", "2", "--language-steps", "3", "--joint-steps", "2", "--rounds", "2"),
        *("--vision-pairs", "4", "--language-clips", "2", *options),
    ]
    # a process of its own, because the training forks others
    command = [sys.executable, "-c", SHORT_TRAINING, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)


@pytest.mark.timeout(1300)  # two training processes: a minute, several minutes on a busy machine
@pytest.mark.parametrize("family", list(Family))
def test_resumed_training_writes_the_same_checkpoint_which_answers(tmp_path, family):
    # when
    runs = [train(tmp_path, "--resume", "--family", family.value) for _ in range(2)]
    # then
    assert [done.returncode for done in runs] == [0, 0], runs
    assert "sha256" in runs[0].stdout
    assert runs[0].stdout.splitlines()[-1] == runs[1].stdout.splitlines()[-1]
    engine = DelayedBatchInferenceEngine.from_pretrained(str(tmp_path / "out"), device="cpu")
    assert engine.model.config.model_type == family.value
    for number in range(3):
        engine.add_frame(np.full((120, 160, 3), 60 * number, np.uint8), float(number))
    result = engine.answer(AskRequest("what do you see?", max_new_tokens=4))
    assert result.metrics.visual_tokens == 2 * ROWS * COLUMNS
    assert set(result.answer.split()) <= set(vocabulary(family.value)), result.answer


def test_model_of_another_type_needs_a_folder_of_its_own():
    done = subprocess.run(
        [sys.executable, "-m", "lab", "train", "--family", "qwen3_vl"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 2
    assert "--out" in done.stderr


def test_training_in_folder_of_another_training_is_rejected(tmp_path):
    # given
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "settings.json").write_text('{"seed": 7}')
    # when
    done = train(tmp_path, "--resume")
    # then
    assert done.returncode == 2
    assert "seed" in done.stderr
