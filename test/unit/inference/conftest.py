"""Tiny models, frames, and a comparison with native inference that shares no code with the engine."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, LogitsProcessor, LogitsProcessorList
from transformers.models.qwen3_5 import modeling_qwen3_5

from delayed_vlm_ros.benchmark.random_checkpoint import save_random_checkpoint
from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine
from delayed_vlm_ros.inference.request import AskRequest
from delayed_vlm_ros.replay.native import native_inputs

TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-5}
RECURRENT_TOLERANCE = 1e-3  # in float32; a recurrent layer adds up the rounding of all tokens
ANSWER_TOKENS = 10
TIME_IS_TEXT = ("qwen3_vl", "qwen3_5")


def pytest_configure():
    torch.set_num_threads(1)


# --- models --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def checkpoint_folder(tmp_path_factory):
    """Return a function that returns the folder of a tiny checkpoint with random weights; each is written once."""
    folders = {}

    def make(family="qwen2_5_vl", seed=0):
        if (family, seed) not in folders:
            folder = tmp_path_factory.mktemp(f"{family}-{seed}-")
            save_random_checkpoint(folder, model_type=family, seed=seed)
            folders[family, seed] = folder
        return folders[family, seed]

    return make


def _deepened(folder, seed):
    """Return a model with more layers; with the larger image limit, it has several vision windows."""
    config = AutoConfig.from_pretrained(folder).to_dict()
    if "full_attention" in config["text_config"].get("layer_types", ["full_attention"])[:1]:
        config["text_config"].update(num_hidden_layers=5, layer_types=["full_attention"] * 5)
    config["vision_config"]["depth"] = 3
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForImageTextToText.from_config(AutoConfig.for_model(**config), dtype=torch.float32)


@pytest.fixture(scope="session")
def load_tiny(checkpoint_folder):
    """Return a function that returns a tiny model with its processor. Read-only: the session shares them."""
    loaded = {}

    def make(family="qwen2_5_vl", *, seed=0, dtype=torch.float32, deep=False, upcast=False):
        key = (family, seed, dtype, deep, upcast)
        if key not in loaded:
            folder = checkpoint_folder(family, seed)
            stored = torch.bfloat16 if dtype is torch.bfloat16 else torch.float32
            model = AutoModelForImageTextToText.from_pretrained(folder, dtype=stored)
            processor = AutoProcessor.from_pretrained(folder)
            if deep:
                generation_config = model.generation_config
                model = _deepened(folder, seed)
                model.generation_config = generation_config
                side = 2 * processor.video_processor.patch_size
                processor.video_processor.size = {"shortest_edge": 4 * side**2, "longest_edge": 64 * side**2}
            model = model.to(dtype)
            if dtype is torch.float64 and family == "qwen3_5":
                compute_in_double(model.model.language_model)
            loaded[key] = SimpleNamespace(model=(model.float() if upcast else model).eval(), processor=processor)
        return loaded[key]

    return make


class _DoubleTorch:
    """The module ``torch``, whose name for single precision means double precision."""

    float32 = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


def compute_in_double(language_model):
    """Let a language model of Qwen3.5 compute in float64 where it would in float32, whatever its dtype."""
    forward = language_model.forward

    def in_double(*arguments, **options):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(modeling_qwen3_5, "torch", _DoubleTorch())
            patch.setattr(torch.Tensor, "float", torch.Tensor.double)
            return forward(*arguments, **options)

    language_model.forward = in_double


# --- frames --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def image():
    """Return a function that returns an image of coarse random blocks; each number has its own image."""

    def make(number, size=(84, 112)):
        height, width = size
        blocks = np.random.default_rng(number).integers(0, 256, (4, 4, 3), np.uint8)
        return np.ascontiguousarray(np.kron(blocks, np.ones((height // 4, width // 4, 1), np.uint8)))

    return make


@pytest.fixture
def make_engine(load_tiny, image):
    """Return a function that returns an engine with a memory of its own and frames in it, on a shared tiny model."""

    def make(tiny=None, *, stamps=(), size=(84, 112), **arguments):
        tiny = tiny or load_tiny()
        engine = DelayedBatchInferenceEngine(tiny.model, tiny.processor, **arguments)
        for number, stamp in enumerate(stamps):
            engine.add_frame(image(number, size), stamp)
        return engine

    return make


# --- native inference ----------------------------------------------------------------------------------------------


def reference_times(config, stamps):
    """Return the temporal ids of pairs, of which no more than three gaps are compressed."""
    if config.model_type == "qwen2_vl":
        return range(len(stamps))
    ids_per_sec = config.vision_config.tokens_per_second
    text_config = getattr(config, "text_config", None)
    longest_sec = text_config.max_position_embeddings * 7 / 8 / 8 / ids_per_sec if text_config else math.inf
    seconds = [0.0]
    for earlier, later in pairwise(stamps):
        gap = later - earlier
        if gap > longest_sec:
            gap = longest_sec * (1 + math.log(1 + 8 * (gap / longest_sec - 1)) / 8)
        seconds.append(seconds[-1] + gap)
    return [math.floor(ids_per_sec * time + 0.1) for time in seconds]


def reference_positions(config, stamps, rows, columns, before, after):
    """Return position ids of ``[text][video][text]``, counted token by token (Qwen2-VL paper, section 2.1)."""
    triples = [(index, index, index) for index in range(before)]
    for time in reference_times(config, stamps):
        triples += [(before + time, before + row, before + column) for row in range(rows) for column in range(columns)]
    start = max(max(triple) for triple in triples) + 1
    triples += [(start + index,) * 3 for index in range(after)]
    return torch.tensor(triples).T.unsqueeze(1)


@dataclass(frozen=True)
class Trace:
    """The computation of an answer.

    Attributes:
        tokens: Tokens of the answer.
        logits: Logits of each token of the answer before any processor, shape (tokens, vocabulary).
        kv: Keys and values, or the recurrent state, of each layer, after the prompt and all but the last token of the
            answer.
        picks: Most likely token at each step, after all processors.
        margins: Lead of the most likely token at each step, in logits.
        text: Text of the answer.
    """

    tokens: list[int]
    logits: torch.Tensor
    kv: list[torch.Tensor]
    picks: list[int]
    margins: list[float]
    text: str


def _positions_of(model, inputs, snapshot, extra_tokens=0):
    ids = inputs["input_ids"][0]
    if model.config.model_type in TIME_IS_TEXT:
        ids = torch.cat([ids, torch.zeros(extra_tokens, dtype=ids.dtype)])[None]
        kinds = torch.cat([inputs["mm_token_type_ids"][0], torch.zeros(extra_tokens, dtype=torch.int64)])[None]
        return model.model.get_rope_index(ids, kinds, video_grid_thw=inputs["video_grid_thw"])[0]
    video = (ids == model.config.video_token_id).nonzero().flatten()
    _, height, width = inputs["video_grid_thw"][0].tolist()
    stamps = [kept.stamps[0] for kept in snapshot]
    before, after = int(video[0]), len(ids) - int(video[-1]) - 1 + extra_tokens
    return reference_positions(model.config, stamps, height // 2, width // 2, before, after)


def state_of(layer):
    """Return keys and values, or the convolution's and the recurrent state, which the model updates in place."""
    if hasattr(layer, "recurrent_states"):
        return layer.conv_states[0], layer.recurrent_states[0]
    return layer.keys, layer.values


@torch.inference_mode()
def one_shot(model, processor, snapshot, question, answer):
    """Return logits and KV of one unmodified forward call over prompt and answer, without any cache."""
    inputs = native_inputs(processor, snapshot, question)
    output = model(
        input_ids=torch.cat([inputs["input_ids"], torch.tensor([answer[:-1]], dtype=torch.int64)], dim=1),
        pixel_values_videos=inputs["pixel_values_videos"],
        video_grid_thw=inputs["video_grid_thw"],
        position_ids=_positions_of(model, inputs, snapshot, len(answer) - 1),
    )
    kv = [tensor for layer in output.past_key_values.layers for tensor in state_of(layer)]
    return output.logits[0, inputs["input_ids"].shape[1] - 1 :], kv


@torch.inference_mode()
def native_trace(model, processor, snapshot, question, tokens=ANSWER_TOKENS):
    """Return the answer of one unmodified ``generate``, with logits and KV of one forward call."""
    inputs = native_inputs(processor, snapshot, question)
    output = model.generate(
        **inputs,
        position_ids=_positions_of(model, inputs, snapshot),
        max_new_tokens=tokens,
        return_dict_in_generate=True,
        output_scores=True,
    )
    answer = output.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    logits, kv = one_shot(model, processor, snapshot, question, answer)
    best = [score[0].topk(2).values.tolist() for score in output.scores]
    return Trace(
        tokens=answer,
        logits=logits,
        kv=kv,
        picks=answer,
        margins=[first - second for first, second in best],
        text=processor.tokenizer.decode(answer, skip_special_tokens=True).strip(),
    )


class _Teacher(LogitsProcessor):
    """Records the most likely token, and forces the given one instead."""

    def __init__(self, tokens):
        self._tokens = tokens
        self.picks = []

    def __call__(self, input_ids, scores):
        step = len(self.picks)
        self.picks.append(int(scores.argmax()))
        forced = torch.full_like(scores, -math.inf)
        forced[:, self._tokens[step]] = 0
        return forced


@torch.inference_mode()
def engine_trace(engine, question, tokens, **limits):
    """Return the engine's own ``answer`` with forced tokens, and its trace recorded by a hook."""
    seen = []
    teacher = _Teacher(tokens)
    generate = engine.model.generate

    def forced(*, logits_processor, **arguments):
        return generate(**arguments, logits_processor=LogitsProcessorList([*logits_processor, teacher]))

    def record(module, arguments, keywords, output):
        seen.append((output.logits[0, -1], output.past_key_values))

    hook = engine.model.register_forward_hook(record, with_kwargs=True)
    engine.model.generate = forced
    try:
        result = engine.answer(AskRequest(question, max_new_tokens=len(tokens), **limits))
    finally:
        del engine.model.generate
        hook.remove()
    layers = seen[-1][1].layers
    return result, Trace(
        tokens=tokens,
        logits=torch.stack([logits for logits, _ in seen[-len(tokens) :]]),
        kv=[tensor.clone() for layer in layers for tensor in state_of(layer)],
        picks=teacher.picks,
        margins=[],
        text=result.answer,
    )


@dataclass(frozen=True)
class Comparison:
    """Difference between the engine and native inference; errors in standard deviations of the compared values.

    Attributes:
        logits_error: Largest error of a logit.
        kv_error: Largest error of a key or value.
        flips: Steps at which the engine chose another token although native inference had a clear margin.
    """

    logits_error: float
    kv_error: float
    flips: tuple[int, ...]

    @property
    def error(self):
        return max(self.logits_error, self.kv_error)

    def verdict(self, tolerance):
        return "equal" if self.error <= tolerance and not self.flips else "different"


def largest_error(actual, expected):
    if actual.shape != expected.shape:
        return math.inf
    return float((actual.double() - expected.double()).abs().max() / expected.double().std())


def compare_traces(engine, native):
    absolute = float((engine.logits.double() - native.logits.double()).abs().max())
    return Comparison(
        logits_error=largest_error(engine.logits, native.logits),
        kv_error=max(largest_error(*both) for both in zip(engine.kv, native.kv, strict=True)),
        flips=tuple(
            step
            for step, (mine, theirs) in enumerate(zip(engine.picks, native.picks, strict=True))
            if mine != theirs and native.margins[step] >= 10 * absolute
        ),
    )


@pytest.fixture(scope="session")
def compare():
    """Return a function that compares a question with native inference on the frames it used."""

    def run(engine, question, *, tokens=ANSWER_TOKENS, expect_frames=None, **limits):
        snapshot = engine.snapshot() if expect_frames is None else expect_frames
        native = native_trace(engine.model, engine.processor, snapshot, question, tokens)
        result, trace = engine_trace(engine, question, native.tokens, **limits)
        assert [kept.content_key for kept in result.frames_used] == [kept.content_key for kept in snapshot]
        return SimpleNamespace(comparison=compare_traces(trace, native), metrics=result.metrics, native=native)

    return run


@pytest.fixture(scope="session")
def tolerance():
    """Return a function that returns the largest allowed error of a family in a dtype."""

    def of(family, dtype):
        return RECURRENT_TOLERANCE if (family, dtype) == ("qwen3_5", torch.float32) else TOLERANCES[dtype]

    return of


@pytest.fixture(scope="session")
def native():
    """The parts of the reference."""
    return SimpleNamespace(
        trace=native_trace,
        one_shot=one_shot,
        positions=reference_positions,
        positions_of=_positions_of,
        state_of=state_of,
        forced=engine_trace,
    )
