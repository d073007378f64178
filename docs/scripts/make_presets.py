"""Write the table of docs/presets.md, the memory that each preset of config/ needs; a test compares page and code."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from transformers import AutoConfig, AutoModelForImageTextToText

from delayed_vlm_ros.inference.local.memory_plan import MemoryPlan, plan_memory
from delayed_vlm_ros.ros.parameters import specifications
from delayed_vlm_ros.ros.scene_memory.parameters import SceneMemoryParameters

PAGE = Path(__file__).parents[1] / "presets.md"
CONFIG = Path(__file__).parents[2] / "config"

DEVICE_GB = {
    "qwen3-vl-8b": 24,
    "qwen3-vl-4b": 16,
    "qwen3-vl-2b": 8,
    "qwen3.5-4b": 16,
    "qwen3.5-2b": 8,
    "qwen2.5-vl-7b": 24,
    "qwen2.5-vl-3b": 12,
    "qwen2-vl-2b": 8,
}
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

_VISION_2 = {"depth": 32, "embed_dim": 1280, "mlp_ratio": 4, "num_heads": 16}
_VISION_2_5 = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "fullatt_block_indexes": [7, 15, 23, 31],
}
_VISION_3 = {
    "depth": 24,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_heads": 16,
    "patch_size": 16,
    "num_position_embeddings": 2304,
}
_VISION_3_LARGE = {**_VISION_3, "depth": 27, "hidden_size": 1152, "intermediate_size": 4304}
_RECURRENT = {
    "full_attention_interval": 4,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_num_key_heads": 16,
}
_MODELS: Mapping[str, dict[str, Any]] = {  # the size-defining fields of each config.json
    "Qwen/Qwen3-VL-8B-Instruct": {
        "model_type": "qwen3_vl",
        "tie_word_embeddings": False,
        "text_config": {
            "vocab_size": 151936,
            "hidden_size": 4096,
            "intermediate_size": 12288,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
        },
        "vision_config": {**_VISION_3_LARGE, "out_hidden_size": 4096, "deepstack_visual_indexes": [8, 16, 24]},
    },
    "Qwen/Qwen3-VL-4B-Instruct": {
        "model_type": "qwen3_vl",
        "tie_word_embeddings": True,
        "text_config": {
            "vocab_size": 151936,
            "hidden_size": 2560,
            "intermediate_size": 9728,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
        },
        "vision_config": {**_VISION_3, "out_hidden_size": 2560, "deepstack_visual_indexes": [5, 11, 17]},
    },
    "Qwen/Qwen3-VL-2B-Instruct": {
        "model_type": "qwen3_vl",
        "tie_word_embeddings": True,
        "text_config": {
            "vocab_size": 151936,
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
        },
        "vision_config": {**_VISION_3, "out_hidden_size": 2048, "deepstack_visual_indexes": [5, 11, 17]},
    },
    "Qwen/Qwen3.5-4B": {
        "model_type": "qwen3_5",
        "tie_word_embeddings": True,
        "text_config": {
            **_RECURRENT,
            "vocab_size": 248320,
            "hidden_size": 2560,
            "intermediate_size": 9216,
            "num_hidden_layers": 32,
            "num_attention_heads": 16,
            "num_key_value_heads": 4,
            "head_dim": 256,
            "linear_num_value_heads": 32,
        },
        "vision_config": {**_VISION_3, "out_hidden_size": 2560},
    },
    "Qwen/Qwen3.5-2B": {
        "model_type": "qwen3_5",
        "tie_word_embeddings": True,
        "text_config": {
            **_RECURRENT,
            "vocab_size": 248320,
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "num_hidden_layers": 24,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
            "head_dim": 256,
            "linear_num_value_heads": 16,
        },
        "vision_config": {**_VISION_3, "out_hidden_size": 2048},
    },
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
    """Number of parameters of a preset's model, and the memory it needs when the scene memory is full."""

    parameters: int
    plan: MemoryPlan


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


def model_config(preset: str) -> dict[str, Any]:
    """Return the config of a preset's model."""
    fields: dict[str, Any] = AutoConfig.for_model(**_MODELS[parameters(preset).model]).to_dict()
    return fields


def factor(preset: str) -> int:
    """Return the divisor of both image sides of a preset's model, in pixels."""
    vision = model_config(preset)["vision_config"]
    return int(vision["patch_size"]) * int(vision["spatial_merge_size"])


def need(preset: str) -> MemoryNeed:
    """Return the memory needs of a preset."""
    chosen = parameters(preset)
    config = AutoConfig.for_model(**_MODELS[chosen.model])
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    count = sum(weight.numel() for weight in model.parameters())  # yields tied parameters once
    plan = plan_memory(
        config.to_dict(),
        parameters=count,
        element_bytes=_ELEMENT_BYTES,
        frames=chosen.star_size + chosen.stream_size,
        frame_pixels=chosen.max_pixels,
        factor=factor(preset),
    )
    return MemoryNeed(count, plan)


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


def _table() -> str:
    rows = [_COLUMNS, ("---",) * len(_COLUMNS), *(_row(preset) for preset in DEVICE_GB)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _row(preset: str) -> tuple[str, ...]:
    count, needed = need(preset)
    return (
        f"[`{preset}`](../config/{preset}.yaml)",
        f"{DEVICE_GB[preset]} GB",
        f"{count / 10**9:.2f} · 10⁹",
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
