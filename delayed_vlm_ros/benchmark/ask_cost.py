"""Time to first token of a question, relative to native video inference on the same frames.

The baseline is the faster of two native set-ups: Hugging Face's unmodified ``generate``, and the same with vision
features from a batched encoder. Without flash attention Hugging Face's encoder loops over windows in Python; that slow
baseline alone would exaggerate the gain.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from delayed_vlm_ros.errors import DeviceMemoryError
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.local.cache.vision import VisionFeatureCache, encode_snapshot
from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine
from delayed_vlm_ros.inference.local.models.adapters.registry import adapter_for
from delayed_vlm_ros.inference.local.prompt import build_prompt
from delayed_vlm_ros.inference.local.video_input import lay_out
from delayed_vlm_ros.replay.native import native_generate

NATIVE_SETUPS = ("stock", "batched")
_GROWTH_REPEATS = 2
QUESTION = "What stands on the table now?"  # 29 tokens: one per byte


@dataclass(frozen=True)
class BenchmarkSetup:
    """Model and memory of a benchmark.

    Attributes:
        model: Hugging Face model.
        processor: Processor of the model.
        image: Height and width of the frames, in pixels; multiples of the model's grid.
        pairs: Pairs in memory.
        canonical: Whether the engine uses canonical steps.
    """

    model: Any
    processor: Any
    image: tuple[int, int]
    pairs: int
    canonical: bool

    @property
    def tokens_per_pair(self) -> int:
        """Merged tokens of one pair."""
        vision = self.model.config.vision_config
        side = int(vision.patch_size) * int(vision.spatial_merge_size)
        return (self.image[0] // side) * (self.image[1] // side)

    def engine(self, **memory: Any) -> DelayedBatchInferenceEngine:
        """Return an engine with an empty memory and these additional engine arguments."""
        height, width = self.image
        return DelayedBatchInferenceEngine(
            self.model, self.processor, max_pixels=height * width, canonical=self.canonical, **memory
        )


def filled_engine(setup: BenchmarkSetup, random: np.random.Generator) -> DelayedBatchInferenceEngine:
    """Return an engine whose memory holds the pairs of the set-up, with random images and nothing encoded."""
    # The memory has spare capacity, so that a new pair evicts none. Random weights may repeat a token for ever.
    engine = setup.engine(
        stream_window_size=4 * setup.pairs + 64, star_memory_size=0, stop_repetition=False, on_oom=_refuse_fewer_pairs
    )
    add_pairs(engine, setup, random, setup.pairs)
    return engine


def _refuse_fewer_pairs() -> None:
    raise DeviceMemoryError("out of device memory: the time of fewer pairs is not measured instead")


def add_pairs(
    engine: DelayedBatchInferenceEngine, setup: BenchmarkSetup, random: np.random.Generator, pairs: int
) -> None:
    """Add pairs of random images to the memory of an engine."""
    for _ in range(2 * pairs):
        engine.add_frame(random.integers(0, 256, (*setup.image, 3), dtype=np.uint8))


def _ask(engine: DelayedBatchInferenceEngine, tokens: int = 1) -> float:
    return _seconds(lambda: engine.ask(QUESTION, max_new_tokens=tokens), engine.model)


def measure_round(setup: BenchmarkSetup, random: np.random.Generator, tokens: int = 1) -> dict[str, float]:
    """Fill one memory and time each kind of question once.

    Args:
        setup: Model and memory.
        random: Random generator of the images.
        tokens: Length of the answers; 1 measures the time to first token.

    Returns:
        Times in seconds: ``native_…`` and ``native_later_…`` (with one more pair) for both native set-ups,
        ``first_ask``, ``second_ask``, ``after_1_pair``, ``precomputed``, and ``bare_forward`` (one forward pass of the
        question over a complete KV cache).
    """
    engine = filled_engine(setup, random)
    times = {f"native_{name}": seconds for name, seconds in _native_times(engine, tokens).items()}
    times |= {
        "first_ask": _ask(engine, tokens),
        "second_ask": _ask(engine, tokens),
        "bare_forward": _bare_forward(engine),
    }
    add_pairs(engine, setup, random, 1)
    times |= {f"native_later_{name}": seconds for name, seconds in _native_times(engine, tokens).items()}
    times["after_1_pair"] = _ask(engine, tokens)
    add_pairs(engine, setup, random, 1)
    engine.precompute(prefill=True)
    times["precomputed"] = _ask(engine, tokens)
    return times


def measure_parts(setup: BenchmarkSetup, random: np.random.Generator) -> dict[str, float]:
    """Fill one memory and time the parts of its first question.

    Returns:
        Times in seconds: ``native``, ``vision`` (vision encoder on all pairs), ``prefill`` (all pairs) and ``question``
        (time to first token with everything else cached).
    """
    engine = filled_engine(setup, random)
    return {
        "native": native_seconds(engine),
        "vision": _seconds(lambda: engine.precompute(prefill=False), engine.model),
        "prefill": _seconds(lambda: engine.precompute(prefill=True), engine.model),
        "question": _ask(engine),
    }


@dataclass(frozen=True)
class Growth:
    """Cost of a question after one new pair, at one memory size.

    Attributes:
        pairs: Pairs in memory.
        seconds: Time to first token, in seconds.
        native_seconds: Time to first token of native inference on the same frames, in seconds.
        operations: Counted floating-point operations of the question.
    """

    pairs: int
    seconds: float
    native_seconds: float
    operations: int


def measure_growth(setup: BenchmarkSetup, pairs: int, random: np.random.Generator) -> Growth:
    """Measure a question after one new pair. Times are the minimum of two runs; a third run counts operations.

    Args:
        setup: Model and memory; its number of pairs is ignored.
        pairs: Pairs in memory before the new one; a multiple of the chunk size, so that canonical steps read only the
            new pair.
        random: Random generator of the images.
    """
    whole = replace(setup, pairs=pairs)
    times, natives = [], []
    for _ in range(_GROWTH_REPEATS):
        engine = _grown(whole, random)
        times.append(_ask(engine))
        natives.append(native_seconds(engine))
    engine = _grown(whole, random)
    # The counter does not see the fused attention kernel on a CPU, so attention runs in separate steps.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        _ask(engine)
    return Growth(pairs + 1, min(times), min(natives), counter.get_total_flops())


def _grown(setup: BenchmarkSetup, random: np.random.Generator) -> DelayedBatchInferenceEngine:
    """Return an engine that has answered a question and then received one new pair."""
    engine = filled_engine(setup, random)
    _ask(engine)
    add_pairs(engine, setup, random, 1)
    return engine


def native_seconds(engine: DelayedBatchInferenceEngine) -> float:
    """Return the time to first token of the faster native set-up on the kept frames, in seconds."""
    return min(_native_times(engine).values())


def _native_times(engine: DelayedBatchInferenceEngine, tokens: int = 1) -> dict[str, float]:
    """Return the time of an answer of ``tokens`` tokens by each of ``NATIVE_SETUPS`` on the kept frames, in seconds."""
    model, processor, snapshot = engine.model, engine.processor, engine.snapshot()

    def batched() -> None:
        layout, prompt = lay_out(model.config, processor, snapshot), build_prompt(processor, QUESTION)
        features = encode_snapshot(
            model, processor, adapter_for(model.config), VisionFeatureCache(), snapshot, layout, AskControl()
        ).features
        ids = torch.tensor([layout.token_ids(prompt)], device=model.device)
        encoded = adapter_for(model.config).video_output(model.config, features)
        with torch.inference_mode():
            model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                position_ids=layout.positions(prompt).to(model.device),
                mm_encoder_outputs={"video": encoded},
                max_new_tokens=tokens,
            )

    def stock() -> None:
        native_generate(model, processor, snapshot, QUESTION, max_new_tokens=tokens)

    return {"stock": _seconds(stock, model), "batched": _seconds(batched, model)}


@torch.inference_mode()
def _bare_forward(engine: DelayedBatchInferenceEngine) -> float:
    """Return the time of one forward pass of the question over the cached KV, in seconds."""
    model, snapshot = engine.model, engine.snapshot()
    layout, prompt = lay_out(model.config, engine.processor, snapshot), build_prompt(engine.processor, QUESTION)
    cache = engine.kept_prefix()
    ids = torch.tensor([prompt.after], device=model.device)
    positions = layout.positions(prompt)[..., -len(prompt.after) :].to(model.device)
    return _seconds(
        lambda: model(input_ids=ids, position_ids=positions, past_key_values=cache, logits_to_keep=1), model
    )


def _seconds(work: Callable[[], Any], model: Any) -> float:
    _wait_for(model.device)
    started = time.perf_counter()
    work()
    _wait_for(model.device)
    return time.perf_counter() - started


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


RATIOS: Mapping[str, tuple[str, str]] = {
    "ttft_first_ask": ("first_ask", "native"),
    "ttft_second_ask": ("second_ask", "native"),
    "ttft_after_1_pair": ("after_1_pair", "native_later"),
    "ttft_precomputed": ("precomputed", "native_later"),
    "ttft_over_bare_forward": ("second_ask", "bare_forward"),
}


def measure(setup: BenchmarkSetup, runs: int, seed: int) -> Iterator[dict[str, float]]:
    """Yield ``runs`` rounds of times after one warm-up round."""
    random = np.random.default_rng(seed)
    measure_round(setup, random)
    for _ in range(runs):
        yield measure_round(setup, random)


def faster_setup(rounds: Sequence[Mapping[str, float]]) -> str:
    """Return the native set-up with the lower median. Choosing per round would bias the baseline by chance."""
    return min(NATIVE_SETUPS, key=lambda name: float(np.median([times[f"native_{name}"] for times in rounds])))


def ratios(rounds: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Return the median of each of ``RATIOS`` over the rounds, and its 95 % bootstrap interval."""
    random = np.random.default_rng(0)
    setup = faster_setup(rounds)
    rounds = [{**times, **{name: times[f"{name}_{setup}"] for name in ("native", "native_later")}} for times in rounds]
    found = {}
    for name, (part, whole) in RATIOS.items():
        values = [times[part] / times[whole] for times in rounds]
        found[name] = median_interval(values, random)
    return found


def median_interval(values: Sequence[float], random: np.random.Generator) -> dict[str, float]:
    """Return the median of values and its 95 % bootstrap interval: ``median``, ``low`` and ``high``."""
    medians = np.median(random.choice(np.array(values), (4000, len(values))), axis=1)
    low, high = np.quantile(medians, (0.025, 0.975))
    return {
        "median": round(float(np.median(values)), 4),
        "low": round(float(low), 4),
        "high": round(float(high), 4),
    }
