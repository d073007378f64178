"""What an ask costs beside native video inference on the same frames, to the first token.

Native is the library's unmodified ``generate``, or the same with the vision features of a batched encoder, whichever is
the faster: without flash attention the library's own encoder loops over windows in Python, and a slow baseline would
flatter.
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
from transformers.modeling_outputs import BaseModelOutputWithPooling

from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.local.cache.vision import VisionFeatureCache, encode_snapshot
from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine
from delayed_vlm_ros.inference.local.models.adapters import adapter_of
from delayed_vlm_ros.inference.local.prompt import build_prompt
from delayed_vlm_ros.inference.local.video_input import lay_out
from delayed_vlm_ros.replay.native import native_generate

NATIVE_SETUPS = ("stock", "batched")
_GROWTH_TIMES = 2
QUESTION = "What stands on the table now?"  # 30 tokens with the template's, a token a letter


@dataclass(frozen=True)
class BenchmarkSetup:
    """What is measured.

    Attributes:
        model: The library's model.
        processor: Its processor.
        image: Height and width of the frames, already on the model's grid.
        pairs: Pairs in memory.
        canonical: How the engine computes.
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
        """An engine with an empty memory, of the given further arguments."""
        height, width = self.image
        return DelayedBatchInferenceEngine(
            self.model, self.processor, max_pixels=height * width, canonical=self.canonical, **memory
        )


def _filled(setting: BenchmarkSetup, random: np.random.Generator) -> DelayedBatchInferenceEngine:
    # Room, so that a new pair is one more.
    engine = setting.engine(stream_window_size=4 * setting.pairs + 64, star_memory_size=0)
    _add(engine, setting, random, setting.pairs)
    return engine


def _add(engine: DelayedBatchInferenceEngine, setting: BenchmarkSetup, random: np.random.Generator, pairs: int) -> None:
    for _ in range(2 * pairs):
        engine.add_frame(random.integers(0, 256, (*setting.image, 3), dtype=np.uint8))


def _ask(engine: DelayedBatchInferenceEngine) -> float:
    return _seconds(lambda: engine.ask(QUESTION, max_new_tokens=1), engine.model)


def measure_round(setting: BenchmarkSetup, random: np.random.Generator) -> dict[str, float]:
    """Fill one memory and time each way of asking once.

    Returns:
        Seconds: ``native_…`` and ``native_later_…`` (one pair more) of both set-ups, ``first_ask``, ``second_ask``,
        ``after_1_pair``, ``precomputed`` and ``bare_forward`` (one forward call of the question over a ready KV cache).
    """
    engine = _filled(setting, random)
    times = {f"native_{name}": seconds for name, seconds in _native_times(engine).items()}
    times |= {"first_ask": _ask(engine), "second_ask": _ask(engine), "bare_forward": _bare_forward(engine)}
    _add(engine, setting, random, 1)
    times |= {f"native_later_{name}": seconds for name, seconds in _native_times(engine).items()}
    times["after_1_pair"] = _ask(engine)
    _add(engine, setting, random, 1)
    engine.precompute(prefill=True)
    times["precomputed"] = _ask(engine)
    return times


def measure_parts(setting: BenchmarkSetup, random: np.random.Generator) -> dict[str, float]:
    """Fill one memory and time the parts of its first ask.

    Returns:
        Seconds: ``native``, ``vision`` (all pairs through the vision encoder), ``prefill`` (of all pairs) and
        ``question`` (to the first token, all else being ready).
    """
    engine = _filled(setting, random)
    return {
        "native": native_seconds(engine),
        "vision": _seconds(lambda: engine.precompute(prefill=False), engine.model),
        "prefill": _seconds(lambda: engine.precompute(prefill=True), engine.model),
        "question": _ask(engine),
    }


@dataclass(frozen=True)
class Growth:
    """What an ask after one new pair costs in a memory of some size.

    Attributes:
        pairs: In memory.
        seconds: To the first token.
        native_seconds: Of native inference on the same frames.
        operations: Floating-point operations of the ask, counted.
    """

    pairs: int
    seconds: float
    native_seconds: float
    operations: int


def measure_growth(setting: BenchmarkSetup, pairs: int, random: np.random.Generator) -> Growth:
    """Ask after one new pair: twice, of which the better is given, as of native, and once more, counted.

    Args:
        setting: What is measured; how many pairs it says does not count.
        pairs: In memory before the new one; whole chunks, so that canonical steps read one pair only.
        random: Of the images.
    """
    whole = replace(setting, pairs=pairs)
    times, natives = [], []
    for _ in range(_GROWTH_TIMES):
        engine = _grown(whole, random)
        times.append(_ask(engine))
        natives.append(native_seconds(engine))
    engine = _grown(whole, random)
    # Attention in single steps, since those of the fused kernel are not counted on a CPU.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        _ask(engine)
    return Growth(pairs + 1, min(times), min(natives), counter.get_total_flops())


def _grown(setting: BenchmarkSetup, random: np.random.Generator) -> DelayedBatchInferenceEngine:
    """A memory that was asked about, and has one pair more since."""
    engine = _filled(setting, random)
    _ask(engine)
    _add(engine, setting, random, 1)
    return engine


def native_seconds(engine: DelayedBatchInferenceEngine) -> float:
    """Seconds to the first token on the kept frames, of the native set-up that is the faster this time."""
    return min(_native_times(engine).values())


def _native_times(engine: DelayedBatchInferenceEngine) -> dict[str, float]:
    """Seconds to the first token on the kept frames, of each of ``NATIVE_SETUPS``."""
    model, processor, snapshot = engine.model, engine.processor, engine.snapshot()

    def batched() -> None:
        layout, prompt = lay_out(model.config, snapshot), build_prompt(processor, QUESTION)
        features = encode_snapshot(
            model, processor, adapter_of(model.config), VisionFeatureCache(), snapshot, layout, AskControl()
        ).features
        ids = torch.tensor([prompt.token_ids(layout.visual_tokens)], device=model.device)
        with torch.inference_mode():
            model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                position_ids=layout.positions(prompt).to(model.device),
                mm_encoder_outputs={"video": BaseModelOutputWithPooling(pooler_output=features)},
                max_new_tokens=1,
            )

    def stock() -> None:
        native_generate(model, processor, snapshot, QUESTION, max_new_tokens=1)

    return {"stock": _seconds(stock, model), "batched": _seconds(batched, model)}


@torch.inference_mode()
def _bare_forward(engine: DelayedBatchInferenceEngine) -> float:
    """One forward call of the question's tokens over the KV that the last ask has left."""
    model, snapshot = engine.model, engine.snapshot()
    layout, prompt = lay_out(model.config, snapshot), build_prompt(engine.processor, QUESTION)
    cache = engine.kept_prefix()
    ids = torch.tensor([prompt.after], device=model.device)
    positions = layout.positions(prompt)[..., -len(prompt.after) :].to(model.device)
    return _seconds(
        lambda: model(input_ids=ids, position_ids=positions, past_key_values=cache, logits_to_keep=1), model
    )


def _seconds(work: Callable[[], Any], model: Any) -> float:
    started = time.perf_counter()
    work()
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return time.perf_counter() - started


RATIOS: Mapping[str, tuple[str, str]] = {
    "ttft_first_ask": ("first_ask", "native"),
    "ttft_second_ask": ("second_ask", "native"),
    "ttft_after_1_pair": ("after_1_pair", "native_later"),
    "ttft_precomputed": ("precomputed", "native_later"),
    "ttft_over_bare_forward": ("second_ask", "bare_forward"),
}


def measure(setting: BenchmarkSetup, runs: int, seed: int) -> Iterator[dict[str, float]]:
    """Turn after turn, one more than ``runs``: the first, a warm-up, is not given."""
    random = np.random.default_rng(seed)
    measure_round(setting, random)
    for _ in range(runs):
        yield measure_round(setting, random)


def faster_setup(turns: Sequence[Mapping[str, float]]) -> str:
    """The native set-up with the lower median; the faster one of each turn would be faster than either, by chance."""
    return min(NATIVE_SETUPS, key=lambda name: float(np.median([turn[f"native_{name}"] for turn in turns])))


def ratios(turns: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Each of ``RATIOS``: its median over the turns, and the median's 95 % bootstrap interval."""
    random = np.random.default_rng(0)
    setup = faster_setup(turns)
    turns = [{**turn, **{name: turn[f"{name}_{setup}"] for name in ("native", "native_later")}} for turn in turns]
    found = {}
    for name, (part, whole) in RATIOS.items():
        values = np.array([turn[part] / turn[whole] for turn in turns])
        medians = np.median(random.choice(values, (4000, len(values))), axis=1)
        low, high = np.quantile(medians, (0.025, 0.975))
        found[name] = {
            "median": round(float(np.median(values)), 4),
            "low": round(float(low), 4),
            "high": round(float(high), 4),
        }
    return found
