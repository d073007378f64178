"""A camera's day in virtual time: what asks cost where frames go on arriving, and somebody asks every now and then.

Memory, keys and caches are the real ones, on a model so small that hours take minutes. Only time is not real: each pair
that goes through the vision encoder and each pass of the language model costs what ``Costs`` says, which is measured on
a larger model (``ask_cost``) and scaled to a device. Asks wait for a chunk that is being encoded ahead, as in a node.
"""

from __future__ import annotations

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
from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine
from delayed_vlm_ros.inference.local.prompt import build_prompt
from delayed_vlm_ros.inference.metrics import AskMetrics
from delayed_vlm_ros.inference.worker import IdleTask
from delayed_vlm_ros.ingest.sampling import FrameSampler

MODES = ("off", "vision", "full")
CAMERA_HZ, SAMPLE_FPS = 30.0, 2.0
FILLING_SEC = 120.0  # of the stream, before anybody asks
ANSWER_TOKENS = 20
FEWEST_FOR_P95 = 20  # asks; with fewer it would be the largest
MOST_LATE_SEC = 1.0
_NOVELTY = 0.05  # of the seconds show another scene


@dataclass(frozen=True)
class Costs:
    """Seconds of a device's time.

    Attributes:
        pair: One pair through the vision encoder.
        run: One run through the language model, however short.
        token: Each of its tokens, besides.
        native_pair: One pair in native inference, vision and language model together.
    """

    pair: float
    run: float
    token: float
    native_pair: float

    def scaled_to(self, seconds: float, pairs: int, text_tokens: int) -> Costs:
        """The same on a device where native inference takes so many seconds to the first token."""
        factor = seconds / self.native(pairs, text_tokens)
        return Costs(self.pair * factor, self.run * factor, self.token * factor, self.native_pair * factor)

    def native(self, pairs: int, text_tokens: int) -> float:
        """Seconds to the first token of native inference."""
        return self.run + text_tokens * self.token + pairs * self.native_pair


def costs_from(
    parts: Mapping[str, float], pairs: int, runs: int, system_tokens: int, video_tokens: int, question_tokens: int
) -> Costs:
    """What the parts of a first ask say about single pairs and tokens: a run costs so much, and each token so much.

    Args:
        parts: Of ``ask_cost.measure_parts``.
        pairs: How many there were.
        runs: In how many chunks they were prefilled.
        system_tokens: Tokens before the video.
        video_tokens: Tokens of the video.
        question_tokens: Tokens behind the video.
    """
    in_chunks = system_tokens + video_tokens
    token = (parts["prefill"] - runs * parts["question"]) / (in_chunks - runs * question_tokens)
    native_pair = (parts["native"] - parts["question"] - system_tokens * token) / pairs
    return Costs(parts["vision"] / pairs, parts["question"] - question_tokens * token, token, native_pair)


@dataclass(frozen=True)
class Habit:
    """How a stream is lived through.

    Attributes:
        mode: What is encoded ahead, one of ``MODES``.
        eviction_chunk: Frames that leave the memory at once; 0: one pair.
        ask_every_sec: Seconds from ask to ask, on average: each comes up to a second late, or up to half of that time.
        asks: How many.
        quiet_sec: Seconds without an ask before anything is encoded ahead.
    """

    mode: str
    eviction_chunk: int
    ask_every_sec: float
    asks: int
    quiet_sec: float = 0.2


@dataclass
class _Meter:
    """Counts the device's seconds while the model's code runs."""

    costs: Costs
    tokens_per_pair: int
    seconds: float = 0.0
    to_first_token: float = math.nan
    hooks: list[Any] = field(default_factory=list)

    def attach(self, model: Any) -> None:
        merge = int(model.config.vision_config.spatial_merge_size) ** 2

        def seen(_: Any, inputs: tuple[Any, ...]) -> None:
            self.seconds += len(inputs[0]) / merge / self.tokens_per_pair * self.costs.pair

        def read(_: Any, __: tuple[Any, ...], named: dict[str, Any]) -> None:
            self.seconds += self.costs.run + named["inputs_embeds"].shape[1] * self.costs.token

        def said(*_: Any) -> None:
            if math.isnan(self.to_first_token):
                self.to_first_token = self.seconds

        self.hooks = [
            model.model.visual.patch_embed.register_forward_pre_hook(seen),
            model.model.language_model.register_forward_pre_hook(read, with_kwargs=True),
            model.lm_head.register_forward_pre_hook(said),
        ]

    def detach(self) -> None:
        for hook in self.hooks:
            hook.remove()

    def restart(self) -> None:
        self.seconds, self.to_first_token = 0.0, math.nan


class _UntilAnAsk(AskControl):
    """Cancels itself when the virtual time comes in which somebody asks."""

    def __init__(self, meter: _Meter, seconds_left: float) -> None:
        super().__init__()
        self._meter = meter
        self._seconds_left = seconds_left

    def check(self) -> None:
        if self._meter.seconds >= self._seconds_left:
            self.cancel()
        super().check()


@dataclass(frozen=True)
class TracedAsk:
    """One ask.

    Attributes:
        ratio: Seconds to its first token, waiting included, ÷ those of native inference on the same frames.
        read_again: Share of the prefix that had to be prefilled while it waited.
    """

    ratio: float
    read_again: float


@dataclass(frozen=True)
class Trace:
    """A whole stream.

    Attributes:
        habit: How it was lived through.
        asks: In order.
        busy: Share of the stream's time in which the device worked.
        is_saturated: Whether asks came faster than they could be answered, so that they waited for one another, the
            longer the longer that went on.
    """

    habit: Habit
    asks: tuple[TracedAsk, ...]
    busy: float
    is_saturated: bool

    def summary(self) -> dict[str, Any]:
        """For a report."""
        ratios = [ask.ratio for ask in self.asks]
        return {
            "mode": self.habit.mode,
            "eviction_chunk": self.habit.eviction_chunk,
            "ask_every_sec": self.habit.ask_every_sec,
            "asks": len(ratios),
            "p50": round(float(np.quantile(ratios, 0.5)), 4),
            "p95": round(float(np.quantile(ratios, 0.95)), 4) if len(ratios) >= FEWEST_FOR_P95 else None,
            "max": round(max(ratios), 4),
            "saturated": self.is_saturated,
            "read_again": round(float(np.mean([ask.read_again for ask in self.asks])), 4),
            "busy": round(self.busy, 4),
        }


def stream(side: int, random: np.random.Generator) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """The sampled frames of an endless camera, with their stamps: a still scene with noise, now and then another."""
    sampler = FrameSampler(SAMPLE_FPS)
    scene = _scene(side, random)
    for number in range(10**9):
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


def live_through(setting: BenchmarkSetup, habit: Habit, costs: Costs, seed: int) -> Trace:
    """Live through a stream of one camera, with a memory of 20 + 20 frames.

    Args:
        setting: A small model, with square images; how many pairs it says does not count.
        habit: Who asks how often, and what is done meanwhile.
        costs: Of the device.
        seed: Of the stream.
    """
    engine = setting.engine(eviction_chunk=habit.eviction_chunk)
    arrivals = _Arrivals(engine, stream(setting.image[0], np.random.default_rng(seed)))
    meter = _Meter(costs, setting.tokens_per_pair)
    meter.attach(setting.model)
    try:
        return _live(engine, arrivals, habit, meter)
    finally:
        meter.detach()


class _Arrivals:
    """Frames on their way into a memory."""

    def __init__(self, engine: DelayedBatchInferenceEngine, frames: Iterator[tuple[float, NDArray[np.uint8]]]) -> None:
        self._engine = engine
        self._frames = frames
        self._coming = next(frames)

    @property
    def next_stamp(self) -> float:
        return self._coming[0]

    def until(self, stamp: float) -> None:
        """Let in all that have arrived by then."""
        while self.next_stamp <= stamp:
            self._engine.add_frame(self._coming[1], self.next_stamp)
            self._coming = next(self._frames)


def _live(engine: DelayedBatchInferenceEngine, arrivals: _Arrivals, habit: Habit, meter: _Meter) -> Trace:
    asks: list[TracedAsk] = []
    worked = 0.0
    free_at = quiet_from = FILLING_SEC
    random = np.random.default_rng(0)
    late = min(MOST_LATE_SEC, habit.ask_every_sec / 2)  # people do not ask in step with a camera
    for number in range(1, habit.asks + 1):
        ask_at = FILLING_SEC + habit.ask_every_sec * number + late * random.random()
        now = max(free_at, quiet_from) if habit.mode != "off" else ask_at
        while now < ask_at:
            arrivals.until(now)
            meter.restart()
            _work_ahead(engine, habit, _UntilAnAsk(meter, ask_at - now))
            worked += meter.seconds
            if meter.seconds:
                free_at = now + meter.seconds
            now += meter.seconds + IdleTask.period_sec  # the worker looks again after a while
        begin = max(free_at, ask_at)
        arrivals.until(begin)
        meter.restart()
        _, metrics = engine.ask(QUESTION, max_new_tokens=ANSWER_TOKENS)
        worked += meter.seconds
        free_at = begin + meter.seconds
        quiet_from = free_at + habit.quiet_sec
        asks.append(_traced(engine, metrics, begin - ask_at + meter.to_first_token, meter.costs))
    last = habit.asks * habit.ask_every_sec
    took = max(last, free_at - FILLING_SEC)
    return Trace(habit, tuple(asks), worked / took, is_saturated=took > last + habit.ask_every_sec + MOST_LATE_SEC)


def _work_ahead(engine: DelayedBatchInferenceEngine, habit: Habit, control: AskControl) -> None:
    with suppress(AskCancelledError):
        engine.precompute(control, prefill=habit.mode == "full")


def _traced(engine: DelayedBatchInferenceEngine, metrics: AskMetrics, seconds: float, costs: Costs) -> TracedAsk:
    prompt = build_prompt(engine.processor, QUESTION)
    native = costs.native(metrics.video_grid_thw[0], len(prompt.before) + len(prompt.after))
    again = 1.0 - metrics.kv_tokens_reused / (len(prompt.before) + metrics.visual_tokens)
    return TracedAsk(seconds / native, again)
