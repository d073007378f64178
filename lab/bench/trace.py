"""Simulation of a camera's day in virtual time: cost of questions while frames keep arriving.

Memory, cache keys and caches are the real ones, on a model so small that hours take minutes. Only time is simulated:
each pair through the vision encoder and each pass of the language model costs what ``Costs`` says. ``Costs`` is
measured on a larger model (``ask_cost``) and scaled to a device. As in a node, a question waits for a chunk that is
being encoded ahead.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from delayed_vlm_ros.benchmark.ask_cost import QUESTION, BenchmarkSetup
from delayed_vlm_ros.errors import AskCancelledError
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.duty import DutyLimit
from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine
from delayed_vlm_ros.inference.local.prompt import build_prompt
from delayed_vlm_ros.inference.metrics import AskMetrics
from delayed_vlm_ros.inference.worker import IdleTask
from delayed_vlm_ros.ingest.sampling import FrameSampler
from delayed_vlm_ros.memory import MemoryConfig

MODES = ("off", "vision", "full")
CAMERA_HZ, SAMPLE_FPS = 30.0, 2.0
FILLING_SEC = 120.0  # of the stream, before the first question
ANSWER_TOKENS = 20
FEWEST_FOR_P95 = 20  # questions; with fewer, the 95th percentile is the maximum
LONGEST_DELAY_SEC = 1.0
_NOVELTY = 0.05  # share of the seconds that show a new scene


@dataclass(frozen=True)
class Costs:
    """Time that a device needs, in seconds.

    Attributes:
        pair: One pair through the vision encoder.
        run: One pass of the language model, without its tokens.
        token: Each token of a pass.
        native_pair: One pair in native inference, vision encoder and language model together.
    """

    pair: float
    run: float
    token: float
    native_pair: float

    def scaled_to(self, seconds: float, pairs: int, text_tokens: int) -> Costs:
        """Return the costs of a device where native inference takes ``seconds`` to the first token."""
        factor = seconds / self.native(pairs, text_tokens)
        return Costs(self.pair * factor, self.run * factor, self.token * factor, self.native_pair * factor)

    def native(self, pairs: int, text_tokens: int) -> float:
        """Return the seconds to the first token of native inference."""
        return self.run + text_tokens * self.token + pairs * self.native_pair


def costs_from(
    parts: Mapping[str, float], pairs: int, runs: int, system_tokens: int, video_tokens: int, question_tokens: int
) -> Costs:
    """Return the costs of single pairs and tokens, from the measured parts of a first question.

    Args:
        parts: Result of ``ask_cost.measure_parts``, in seconds.
        pairs: Number of pairs in memory.
        runs: Number of chunks in which the pairs were prefilled.
        system_tokens: Tokens before the video.
        video_tokens: Tokens of the video.
        question_tokens: Tokens after the video.
    """
    in_chunks = system_tokens + video_tokens
    token = (parts["prefill"] - runs * parts["question"]) / (in_chunks - runs * question_tokens)
    native_pair = (parts["native"] - parts["question"] - system_tokens * token) / pairs
    return Costs(parts["vision"] / pairs, parts["question"] - question_tokens * token, token, native_pair)


@dataclass(frozen=True)
class Scenario:
    """How often questions arrive, and what is encoded ahead of them.

    Attributes:
        mode: What is encoded ahead, one of ``MODES``.
        eviction_chunk: Frames that leave the memory together; 0 is one pair.
        question_every_sec: Mean time from question to question in seconds. Each question is late by up to one second,
            or by up to half of this time where that is less.
        questions: Number of questions.
        quiet_sec: Time without questions before anything is encoded ahead, in seconds.
        max_duty: Largest share of the device's time for encoding ahead.
        star: Capacity of Star memory, in frames.
        stream: Length of the Stream window, in frames.
    """

    mode: str
    eviction_chunk: int
    question_every_sec: float
    questions: int
    quiet_sec: float = 0.2
    max_duty: float = 1.0
    star: int = MemoryConfig.star_memory_size
    stream: int = MemoryConfig.stream_window_size

    def engine(self, setup: BenchmarkSetup) -> DelayedBatchInferenceEngine:
        """Return an engine with an empty memory of these sizes."""
        return setup.engine(
            star_memory_size=self.star, stream_window_size=self.stream, eviction_chunk=self.eviction_chunk
        )


@dataclass
class _Meter:
    """Adds up the device's seconds while the model runs."""

    costs: Costs
    tokens_per_pair: int
    seconds: float = 0.0
    to_first_token: float = math.nan
    hooks: list[Any] = field(default_factory=list)

    def attach(self, model: Any) -> None:
        merge = int(model.config.vision_config.spatial_merge_size) ** 2

        def on_vision(_: Any, inputs: tuple[Any, ...]) -> None:
            self.seconds += len(inputs[0]) / merge / self.tokens_per_pair * self.costs.pair

        def on_language(_: Any, __: tuple[Any, ...], named: dict[str, Any]) -> None:
            self.seconds += self.costs.run + named["inputs_embeds"].shape[1] * self.costs.token

        def on_head(*_: Any) -> None:
            if math.isnan(self.to_first_token):
                self.to_first_token = self.seconds

        self.hooks = [
            model.model.visual.patch_embed.register_forward_pre_hook(on_vision),
            model.model.language_model.register_forward_pre_hook(on_language, with_kwargs=True),
            model.lm_head.register_forward_pre_hook(on_head),
        ]

    def detach(self) -> None:
        for hook in self.hooks:
            hook.remove()

    def reset(self) -> None:
        self.seconds, self.to_first_token = 0.0, math.nan


class _UntilQuestion(AskControl):
    """Cancels itself when the virtual time of the next question comes."""

    def __init__(self, meter: _Meter, seconds_left: float) -> None:
        super().__init__()
        self._meter = meter
        self._seconds_left = seconds_left

    def check(self) -> None:
        if self._meter.seconds >= self._seconds_left:
            self.cancel()
        super().check()


@dataclass(frozen=True)
class TracedQuestion:
    """Cost of one question.

    Attributes:
        ratio: Time to its first token, waiting included, divided by that of native inference on the same frames.
        prefilled_share: Share of the prefix that was prefilled while the question waited.
    """

    ratio: float
    prefilled_share: float


@dataclass(frozen=True)
class Trace:
    """Costs of a whole stream.

    Attributes:
        scenario: The scenario of the stream.
        questions: Costs of the questions, oldest first.
        busy: Share of the stream's time in which the device worked.
        is_saturated: Whether questions arrived faster than they could be answered. They then wait for one another, and
            their times grow with the length of the stream.
    """

    scenario: Scenario
    questions: tuple[TracedQuestion, ...]
    busy: float
    is_saturated: bool

    def summary(self) -> dict[str, Any]:
        """Return the figures of the trace for the report."""
        ratios = [one.ratio for one in self.questions]
        return {
            "mode": self.scenario.mode,
            "eviction_chunk": self.scenario.eviction_chunk,
            "max_duty": self.scenario.max_duty,
            "question_every_sec": self.scenario.question_every_sec,
            "questions": len(ratios),
            "p50": round(float(np.quantile(ratios, 0.5)), 4),
            "p95": round(float(np.quantile(ratios, 0.95)), 4) if len(ratios) >= FEWEST_FOR_P95 else None,
            "max": round(max(ratios), 4),
            "saturated": self.is_saturated,
            "prefilled_share": round(float(np.mean([one.prefilled_share for one in self.questions])), 4),
            "busy": round(self.busy, 4),
        }


def stream(side: int, random: np.random.Generator) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """Yield the sampled frames of a camera with their stamps, without end.

    They show a still scene with noise, and from time to time a new scene.

    Args:
        side: Height and width of the images in pixels.
        random: Source of the scenes and the noise.
    """
    sampler = FrameSampler(SAMPLE_FPS)
    scene = _scene(side, random)
    for number in itertools.count():
        stamp = number / CAMERA_HZ
        if not sampler.accept(stamp):
            continue
        if random.random() < _NOVELTY / SAMPLE_FPS:
            scene = _scene(side, random)
        noise = random.integers(-4, 5, scene.shape, dtype=np.int16)
        yield stamp, np.clip(scene + noise, 0, 255).astype(np.uint8)


def _scene(side: int, random: np.random.Generator) -> NDArray[np.int16]:
    patches = random.integers(0, 256, (4, 4, 3), dtype=np.int16)
    return np.kron(patches, np.ones((side // 4, side // 4, 1), np.int16))


def simulate(setup: BenchmarkSetup, scenario: Scenario, costs: Costs, seed: int) -> Trace:
    """Simulate the stream of one camera.

    Args:
        setup: A small model, with square images; its number of pairs is ignored.
        scenario: Questions and encoding ahead.
        costs: Costs of the device.
        seed: Seed of the stream.
    """
    engine = scenario.engine(setup)
    arrivals = _Arrivals(engine, stream(setup.image[0], np.random.default_rng(seed)))
    meter = _Meter(costs, setup.tokens_per_pair)
    meter.attach(setup.model)
    try:
        return _simulate(engine, arrivals, scenario, meter)
    finally:
        meter.detach()


class _Arrivals:
    """Adds frames to a memory as virtual time passes."""

    def __init__(self, engine: DelayedBatchInferenceEngine, frames: Iterator[tuple[float, NDArray[np.uint8]]]) -> None:
        self._engine = engine
        self._frames = frames
        self._next = next(frames)

    def add_until(self, stamp: float) -> None:
        while self._next[0] <= stamp:
            self._engine.add_frame(self._next[1], self._next[0])
            self._next = next(self._frames)


def _simulate(engine: DelayedBatchInferenceEngine, arrivals: _Arrivals, scenario: Scenario, meter: _Meter) -> Trace:
    questions: list[TracedQuestion] = []
    worked = 0.0
    free_at = quiet_from = FILLING_SEC
    random = np.random.default_rng(0)
    duty = DutyLimit(scenario.max_duty)
    longest_delay = min(LONGEST_DELAY_SEC, scenario.question_every_sec / 2)  # people do not ask in step with a camera
    for number in range(1, scenario.questions + 1):
        asked_at = FILLING_SEC + scenario.question_every_sec * number + longest_delay * random.random()
        now = max(free_at, quiet_from, duty.rests_until) if scenario.mode != "off" else asked_at
        while now < asked_at:
            arrivals.add_until(now)
            meter.reset()
            _encode_ahead(engine, scenario, _UntilQuestion(meter, asked_at - now))
            worked += meter.seconds
            if meter.seconds:
                free_at = now + meter.seconds
            now += meter.seconds
            duty.add(meter.seconds, now)
            now = max(now + IdleTask.period_sec, duty.rests_until)
        begin = max(free_at, asked_at)
        arrivals.add_until(begin)
        meter.reset()
        _, metrics = engine.ask(QUESTION, max_new_tokens=ANSWER_TOKENS)
        worked += meter.seconds
        free_at = begin + meter.seconds
        quiet_from = free_at + scenario.quiet_sec
        questions.append(_traced(engine, metrics, begin - asked_at + meter.to_first_token, meter.costs))
    last = scenario.questions * scenario.question_every_sec
    took = max(last, free_at - FILLING_SEC)
    is_saturated = took > last + scenario.question_every_sec + LONGEST_DELAY_SEC
    return Trace(scenario, tuple(questions), worked / took, is_saturated)


def _encode_ahead(engine: DelayedBatchInferenceEngine, scenario: Scenario, control: AskControl) -> None:
    with suppress(AskCancelledError):
        engine.precompute(control, prefill=scenario.mode == "full")


def _traced(engine: DelayedBatchInferenceEngine, metrics: AskMetrics, seconds: float, costs: Costs) -> TracedQuestion:
    prompt = build_prompt(engine.processor, QUESTION)
    native = costs.native(metrics.video_grid_thw[0], len(prompt.before) + len(prompt.after))
    prefilled = 1.0 - metrics.kv_tokens_reused / (len(prompt.before) + metrics.visual_tokens)
    return TracedQuestion(seconds / native, prefilled)
