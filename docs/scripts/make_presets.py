"""Write the table of docs/presets.md, the memory that each preset of config/ needs; a test compares page and code."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from transformers import AutoConfig, AutoModelForImageTextToText

from delayed_vlm_ros.inference.local.budget import token_bytes
from delayed_vlm_ros.inference.local.cache.prefill import chunk_pairs
from delayed_vlm_ros.inference.local.cache.prefix import round_up_capacity
from delayed_vlm_ros.ingest.geometry import FrameGeometry
from delayed_vlm_ros.ros.parameters import specifications
from delayed_vlm_ros.ros.scene_memory.parameters import SceneMemoryParameters

PAGE = Path(__file__).parents[1] / "presets.md"
CONFIG = Path(__file__).parents[2] / "config"

DEVICE_GB = {"qwen2.5-vl-7b": 24, "qwen2.5-vl-3b": 12, "qwen2-vl-2b": 8}
"""The presets, each with its size of GPU memory in GB."""

_COLUMNS = (
    "preset",
    "GPU",
    "parameters",
    "weights",
    "tokens per pair",
    "images",
    "features",
    "KV",
    "`budget_mb`",
    "peak",
)
_BEGIN, _END = "<!-- made by docs/scripts/make_presets.py -->\n", "<!-- end -->\n"

_ELEMENT_BYTES = 2  # bfloat16, the dtype "auto" on CUDA
_SCORE_BYTES = 2 + 4 + 4  # an attention score, and input and output of its softmax in float32
_PIXEL_BYTES = 4 + 2  # a patch element from the processor, and in the model's dtype
_TEXT_TOKENS = 1024  # system prompt, question, and at most 512 tokens reserved for the answer
_OTHER_BYTES = 10**9  # CUDA context and libraries, and fragmentation of the allocator

_VISION_2 = {"depth": 32, "embed_dim": 1280, "mlp_ratio": 4, "num_heads": 16}
_VISION_2_5 = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "fullatt_block_indexes": [7, 15, 23, 31],
}
_MODELS: Mapping[str, dict[str, Any]] = {  # the size-defining fields of each config.json
    "Qwen/Qwen2.5-VL-7B-Instruct": {
        "model_type": "qwen2_5_vl",
        "tie_word_embeddings": False,
        "text_config": {
            "vocab_size": 152064,
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
        },
        "vision_config": {**_VISION_2_5, "out_hidden_size": 3584},
    },
    "Qwen/Qwen2.5-VL-3B-Instruct": {
        "model_type": "qwen2_5_vl",
        "tie_word_embeddings": True,
        "text_config": {
            "vocab_size": 151936,
            "hidden_size": 2048,
            "intermediate_size": 11008,
            "num_hidden_layers": 36,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
        },
        "vision_config": {**_VISION_2_5, "out_hidden_size": 2048},
    },
    "Qwen/Qwen2-VL-2B-Instruct": {
        "model_type": "qwen2_vl",
        "tie_word_embeddings": True,
        "text_config": {
            "vocab_size": 151936,
            "hidden_size": 1536,
            "intermediate_size": 8960,
            "num_hidden_layers": 28,
            "num_attention_heads": 12,
            "num_key_value_heads": 2,
        },
        "vision_config": {**_VISION_2, "hidden_size": 1536},
    },
}


class MemoryNeed(NamedTuple):
    """Memory needs of a preset whose scene memory is full.

    Attributes:
        parameters: Number of parameters of the model.
        pair_tokens: Merged visual tokens of a pair of frames.
        images: Bytes of the kept frames, in host memory.
        features: Bytes of their vision features.
        kv: Bytes of the KV cache at its allocated capacity.
        working: Bytes of the larger of one pair's vision encoding and one chunk's prefill.
    """

    parameters: int
    pair_tokens: int
    images: int
    features: int
    kv: int
    working: int

    @property
    def weights(self) -> int:
        """Weights in bytes."""
        return self.parameters * _ELEMENT_BYTES

    @property
    def peak(self) -> int:
        """Largest use of device memory in bytes; a question limited in time has a second KV cache."""
        return self.weights + self.features + 2 * self.kv + self.working + _OTHER_BYTES


def settings(preset: str) -> dict[str, Any]:
    """Return the parameters in a preset's file by ROS name."""
    content = yaml.safe_load((CONFIG / f"{preset}.yaml").read_text(encoding="utf-8"))
    return dict(_flat(content["/**"]["ros__parameters"]))


def parameters(preset: str) -> SceneMemoryParameters:
    """Return the node's parameters with a preset; other parameters have their defaults."""
    given = settings(preset)
    specs = specifications(SceneMemoryParameters)
    return SceneMemoryParameters(
        **{field: spec.convert(given.get(spec.name, spec.default)) for field, spec in specs.items()}
    )


def text_config(preset: str) -> Mapping[str, Any]:
    """Return the size-defining config fields of a preset's language model."""
    fields: Mapping[str, Any] = _MODELS[parameters(preset).model]["text_config"]
    return fields


def need(preset: str) -> MemoryNeed:
    """Return the memory needs of a preset."""
    chosen = parameters(preset)
    config = AutoConfig.for_model(**_MODELS[chosen.model])
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    frames = chosen.star_size + chosen.stream_size
    pair_tokens = chosen.max_pixels // FrameGeometry().factor ** 2
    visual_tokens = frames // 2 * pair_tokens
    kv_tokens = round_up_capacity(visual_tokens + _TEXT_TOKENS)
    token = token_bytes(text_config(preset), _ELEMENT_BYTES)
    return MemoryNeed(
        parameters=sum(weight.numel() for weight in model.parameters()),  # yields tied parameters once
        pair_tokens=pair_tokens,
        images=frames * chosen.max_pixels * 3,
        features=visual_tokens * token.features,
        kv=kv_tokens * token.kv,
        working=max(_vision_bytes(config.vision_config, pair_tokens), _prefill_bytes(config, pair_tokens, kv_tokens)),
    )


def page() -> str:
    """Return the page with its table generated."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}{_table()}{_END}{after}"


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _vision_bytes(vision: Any, pair_tokens: int) -> int:
    """Return the working memory of encoding a pair: pixels, activations of a layer and attention scores, in bytes."""
    patches = pair_tokens * vision.spatial_merge_size**2
    elements = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    width = getattr(vision, "embed_dim", vision.hidden_size)  # in Qwen2-VL, hidden_size is the output size
    activations = 16 * width * _ELEMENT_BYTES
    return patches * (elements * _PIXEL_BYTES + activations) + vision.num_heads * patches**2 * _SCORE_BYTES


def _prefill_bytes(config: Any, pair_tokens: int, kv_tokens: int) -> int:
    """Return the working memory of a chunk's prefill: activations, keys, values, scores and logits, in bytes."""
    text = config.text_config
    chunk = chunk_pairs(pair_tokens) * pair_tokens
    activations = chunk * (8 * text.hidden_size + 4 * text.intermediate_size) * _ELEMENT_BYTES
    repeated = 2 * kv_tokens * text.hidden_size * _ELEMENT_BYTES
    scores = text.num_attention_heads * chunk * kv_tokens * _SCORE_BYTES
    return activations + repeated + scores + text.vocab_size * _SCORE_BYTES


def _table() -> str:
    rows = [_COLUMNS, ("---",) * len(_COLUMNS), *(_row(preset) for preset in DEVICE_GB)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _row(preset: str) -> tuple[str, ...]:
    needed = need(preset)
    return (
        f"[`{preset}`](../config/{preset}.yaml)",
        f"{DEVICE_GB[preset]} GB",
        f"{needed.parameters / 10**9:.2f} · 10⁹",
        _gigabytes(needed.weights),
        str(needed.pair_tokens),
        *(f"{math.ceil(size / 10**6)} MB" for size in (needed.images, needed.features, needed.kv)),
        f"{parameters(preset).budget_mb:g}",
        f"**{_gigabytes(needed.peak)}**",
    )


def _gigabytes(size: int) -> str:
    return f"{math.ceil(size / 10**8) / 10:.1f} GB"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
