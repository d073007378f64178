"""What an ask costs beside native video inference on the same frames. See benchmarks/README.md."""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from delayed_vlm_ros.evaluation.native import native_generate
from delayed_vlm_ros.models.untrained import save_untrained
from delayed_vlm_ros.vlm.engine import DelayedBatchInferenceEngine

SEED = 3
RUNS = 7
FRAMES = 40
NEW_TOKENS = 8
QUESTION = "What is on the table?"
SHAPE = {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8, "num_attention_heads": 8}
MAX_PIXELS = 224 * 224


def make_model(folder: Path) -> tuple[Any, Any]:
    """A random Qwen2.5-VL that is large enough for the model's time to outweigh everything else."""
    save_untrained(folder, seed=SEED)
    processor = AutoProcessor.from_pretrained(folder)
    processor.video_processor.size["longest_edge"] = MAX_PIXELS
    config = AutoModelForImageTextToText.from_pretrained(folder).config
    for name, value in SHAPE.items():
        setattr(config.text_config, name, value)
    config.text_config.layer_types = ["full_attention"] * SHAPE["num_hidden_layers"]
    config.text_config.rope_parameters["mrope_section"] = [8, 12, 12]
    config.vision_config.depth, config.vision_config.hidden_size = 8, 256
    config.vision_config.intermediate_size, config.vision_config.out_hidden_size = 768, SHAPE["hidden_size"]
    torch.manual_seed(SEED)
    model = AutoModelForImageTextToText.from_config(config).eval()
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    model.generation_config.min_new_tokens = NEW_TOKENS
    return model, processor


def seconds(work: Callable[[], Any]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def turn(model: Any, processor: Any, random: np.random.Generator) -> dict[str, float]:
    """One memory filled, each way of asking timed once."""
    engine = DelayedBatchInferenceEngine(model, processor, stream_window_size=FRAMES, star_memory_size=0)

    def add(count: int) -> None:
        for _ in range(count):
            engine.add_frame(random.integers(0, 256, (240, 320, 3), dtype=np.uint8))

    def native() -> float:
        return seconds(
            lambda: native_generate(model, processor, engine.snapshot(), QUESTION, max_new_tokens=NEW_TOKENS)
        )

    def ask() -> float:
        return seconds(lambda: engine.ask(QUESTION, max_new_tokens=NEW_TOKENS))

    add(FRAMES)
    times = {"native": native(), "first_ask": ask(), "second_ask": ask()}
    add(10)
    times["native_later"] = native()
    times["after_10_frames"] = ask()
    return times


def main() -> None:
    """Measure and print."""
    random = np.random.default_rng(SEED)
    with tempfile.TemporaryDirectory() as folder:
        model, processor = make_model(Path(folder))
    turn(model, processor, random)  # warm-up
    turns = [turn(model, processor, random) for _ in range(RUNS)]

    def ratio(part: str, whole: str) -> dict[str, float]:
        ratios = sorted(one[part] / one[whole] for one in turns)
        return {"median": round(statistics.median(ratios), 3), "low": round(ratios[0], 3), "high": round(ratios[-1], 3)}

    engine = DelayedBatchInferenceEngine(model, processor, stream_window_size=FRAMES, star_memory_size=0)
    engine.add_frame(random.integers(0, 256, (240, 320, 3), dtype=np.uint8))
    result = {
        "shape": {
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "pairs": FRAMES // 2,
            "tokens_per_pair": engine.ask(QUESTION, max_new_tokens=1)[1].visual_tokens,
            "dtype": str(model.dtype),
            "device": str(model.device),
            "threads": torch.get_num_threads(),
            "runs": RUNS,
            "seed": SEED,
        },
        "native_sec": round(statistics.median(one["native"] for one in turns), 3),
        "first_ask": ratio("first_ask", "native"),
        "second_ask": ratio("second_ask", "native"),
        "after_10_frames": ratio("after_10_frames", "native_later"),
    }
    sys.stdout.write(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
