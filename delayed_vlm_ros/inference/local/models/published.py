"""The sizes of published checkpoints, so that a plan needs neither their files nor transformers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from delayed_vlm_ros.inference.local.models.adapters.registry import MODEL_FACTS

_MERGED_PATCHES = 2  # on each side of a visual token


@dataclass(frozen=True, slots=True)
class PublishedModel:
    """Sizes of a checkpoint on the model hub.

    Attributes:
        parameters: Number of parameters; tied embeddings count once.
        vision_parameters: Those of the vision encoder.
        config: The fields of its ``config.json`` that define sizes.
    """

    parameters: int
    vision_parameters: int
    config: Mapping[str, Any]

    @property
    def factor(self) -> int:
        """Divisor of both image sides, in pixels."""
        return MODEL_FACTS[self.config["model_type"]].patch_size * _MERGED_PATCHES


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
PUBLISHED_MODELS: Mapping[str, PublishedModel] = {
    "Qwen/Qwen3-VL-8B-Instruct": PublishedModel(
        parameters=8_767_123_696,
        vision_parameters=576_388_336,
        config={
            "model_type": "qwen3_vl",
            "tie_word_embeddings": False,
            "text_config": {
                "vocab_size": 151936,
                "max_position_embeddings": 262144,
                "hidden_size": 4096,
                "intermediate_size": 12288,
                "num_hidden_layers": 36,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "head_dim": 128,
            },
            "vision_config": {**_VISION_3_LARGE, "out_hidden_size": 4096, "deepstack_visual_indexes": [8, 16, 24]},
        },
    ),
    "Qwen/Qwen3-VL-4B-Instruct": PublishedModel(
        parameters=4_437_815_808,
        vision_parameters=415_347_712,
        config={
            "model_type": "qwen3_vl",
            "tie_word_embeddings": True,
            "text_config": {
                "vocab_size": 151936,
                "max_position_embeddings": 262144,
                "hidden_size": 2560,
                "intermediate_size": 9728,
                "num_hidden_layers": 36,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "head_dim": 128,
            },
            "vision_config": {**_VISION_3, "out_hidden_size": 2560, "deepstack_visual_indexes": [5, 11, 17]},
        },
    ),
    "Qwen/Qwen3-VL-2B-Instruct": PublishedModel(
        parameters=2_127_532_032,
        vision_parameters=406_957_056,
        config={
            "model_type": "qwen3_vl",
            "tie_word_embeddings": True,
            "text_config": {
                "vocab_size": 151936,
                "max_position_embeddings": 262144,
                "hidden_size": 2048,
                "intermediate_size": 6144,
                "num_hidden_layers": 28,
                "num_attention_heads": 16,
                "num_key_value_heads": 8,
                "head_dim": 128,
            },
            "vision_config": {**_VISION_3, "out_hidden_size": 2048, "deepstack_visual_indexes": [5, 11, 17]},
        },
    ),
    "Qwen/Qwen3.5-4B": PublishedModel(
        parameters=4_539_265_536,
        vision_parameters=333_514_240,
        config={
            "model_type": "qwen3_5",
            "tie_word_embeddings": True,
            "text_config": {
                **_RECURRENT,
                "vocab_size": 248320,
                "max_position_embeddings": 262144,
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
    ),
    "Qwen/Qwen3.5-2B": PublishedModel(
        parameters=2_213_241_664,
        vision_parameters=331_416_576,
        config={
            "model_type": "qwen3_5",
            "tie_word_embeddings": True,
            "text_config": {
                **_RECURRENT,
                "vocab_size": 248320,
                "max_position_embeddings": 262144,
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
    ),
    "Qwen/Qwen2.5-VL-7B-Instruct": PublishedModel(
        parameters=8_292_166_656,
        vision_parameters=676_550_144,
        config={
            "model_type": "qwen2_5_vl",
            "tie_word_embeddings": False,
            "text_config": {
                "vocab_size": 152064,
                "max_position_embeddings": 128000,
                "hidden_size": 3584,
                "intermediate_size": 18944,
                "num_hidden_layers": 28,
                "num_attention_heads": 28,
                "num_key_value_heads": 4,
            },
            "vision_config": {**_VISION_2_5, "out_hidden_size": 3584},
        },
    ),
    "Qwen/Qwen2.5-VL-3B-Instruct": PublishedModel(
        parameters=3_754_622_976,
        vision_parameters=668_684_288,
        config={
            "model_type": "qwen2_5_vl",
            "tie_word_embeddings": True,
            "text_config": {
                "vocab_size": 151936,
                "max_position_embeddings": 128000,
                "hidden_size": 2048,
                "intermediate_size": 11008,
                "num_hidden_layers": 36,
                "num_attention_heads": 16,
                "num_key_value_heads": 2,
            },
            "vision_config": {**_VISION_2_5, "out_hidden_size": 2048},
        },
    ),
    "Qwen/Qwen2-VL-2B-Instruct": PublishedModel(
        parameters=2_208_985_600,
        vision_parameters=665_271_296,
        config={
            "model_type": "qwen2_vl",
            "tie_word_embeddings": True,
            "text_config": {
                "vocab_size": 151936,
                "max_position_embeddings": 32768,
                "hidden_size": 1536,
                "intermediate_size": 8960,
                "num_hidden_layers": 28,
                "num_attention_heads": 12,
                "num_key_value_heads": 2,
            },
            "vision_config": {**_VISION_2, "hidden_size": 1536},
        },
    ),
}
"""Sizes of the published models, by name on the hub."""


def published_name(name: str) -> str | None:
    """Return the name on the hub for a name such as ``qwen2.5-vl-3b``, in any case; None for an unknown one."""
    return next((known for known in PUBLISHED_MODELS if _short(known) == _short(name)), None)


def _short(name: str) -> str:
    return name.strip().lower().removeprefix("qwen/").removesuffix("-instruct")
