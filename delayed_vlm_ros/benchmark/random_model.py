"""Random-weight models of a given size, for timing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from delayed_vlm_ros.benchmark.random_checkpoint import save_random_checkpoint
from delayed_vlm_ros.inference.local.models.adapters.registry import MODEL_FACTS
from delayed_vlm_ros.inference.local.models.layer_types import layer_types
from delayed_vlm_ros.inference.local.models.published import PUBLISHED_MODELS

_MERGE_SIZE = 2  # of all supported model types, as the random checkpoint writes it
_WHOLE_VIDEO_FRAMES = 10_000  # more than a benchmark keeps
_SMALL_VISION_3 = {  # of Qwen3-VL and Qwen3.5
    "depth": 8,
    "hidden_size": 320,
    "intermediate_size": 1280,
    "num_heads": 4,
    "out_hidden_size": 768,
    "num_position_embeddings": 2304,
}


@dataclass(frozen=True)
class ModelShape:
    """Size of a model.

    Attributes:
        text: Config fields of the language model.
        vision: Config fields of the vision encoder.
        mrope_section: Rotary frequencies per head for time, rows and columns.
        model_type: Architecture, one of ``SUPPORTED_MODEL_TYPES``.
        is_tied: Whether one matrix embeds tokens and computes logits.
    """

    text: Mapping[str, int]
    vision: Mapping[str, Any]
    mrope_section: tuple[int, int, int]
    model_type: str = "qwen2_5_vl"
    is_tied: bool = True

    @property
    def factor(self) -> int:
        """Divisor of both image sides, in pixels."""
        return MODEL_FACTS[self.model_type].patch_size * _MERGE_SIZE


SHAPES: Mapping[str, ModelShape] = MappingProxyType(
    {
        "tiny": ModelShape(
            text={
                "hidden_size": 64,
                "intermediate_size": 128,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 1,
            },
            vision={"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 64},
            mrope_section=(4, 6, 6),
        ),
        "small": ModelShape(
            text={
                "hidden_size": 768,
                "intermediate_size": 2304,
                "num_hidden_layers": 14,
                "num_attention_heads": 12,
                "num_key_value_heads": 2,
            },
            vision={"depth": 8, "hidden_size": 320, "intermediate_size": 960, "num_heads": 4, "out_hidden_size": 768},
            mrope_section=(8, 12, 12),
        ),
        "small-qwen3-vl": ModelShape(
            text={
                "hidden_size": 768,
                "intermediate_size": 2304,
                "num_hidden_layers": 14,
                "num_attention_heads": 12,
                "num_key_value_heads": 4,
                "head_dim": 64,
            },
            vision={**_SMALL_VISION_3, "deepstack_visual_indexes": [2, 4, 6]},
            mrope_section=(12, 10, 10),
            model_type="qwen3_vl",
        ),
        "small-qwen3.5": ModelShape(
            text={
                "hidden_size": 768,
                "intermediate_size": 2304,
                "num_hidden_layers": 12,
                "num_attention_heads": 6,
                "num_key_value_heads": 2,
                "head_dim": 128,
                "linear_key_head_dim": 64,
                "linear_value_head_dim": 64,
                "linear_num_key_heads": 8,
                "linear_num_value_heads": 16,
            },
            vision=_SMALL_VISION_3,
            mrope_section=(6, 5, 5),
            model_type="qwen3_5",
        ),
        "qwen2.5-vl-3b": ModelShape(
            text={
                "hidden_size": 2048,
                "intermediate_size": 11008,
                "num_hidden_layers": 36,
                "num_attention_heads": 16,
                "num_key_value_heads": 2,
            },
            vision={
                "depth": 32,
                "hidden_size": 1280,
                "intermediate_size": 3420,
                "num_heads": 16,
                "out_hidden_size": 2048,
                "fullatt_block_indexes": [7, 15, 23, 31],
            },
            mrope_section=(16, 24, 24),
        ),
    }
)


_PUBLISHED_SECTIONS = {
    "qwen2_vl": (16, 24, 24),
    "qwen2_5_vl": (16, 24, 24),
    "qwen3_vl": (24, 20, 20),
    "qwen3_5": (11, 11, 10),
}


def published_shape(name: str) -> ModelShape:
    """Return the shape of a published model, its whole vocabulary included.

    Args:
        name: Key of ``PUBLISHED_MODELS``.
    """
    config = PUBLISHED_MODELS[name].config
    model_type = config["model_type"]
    return ModelShape(
        text=config["text_config"],
        vision=config["vision_config"],
        mrope_section=_PUBLISHED_SECTIONS[model_type],
        model_type=model_type,
        is_tied=config["tie_word_embeddings"],
    )


def make_random_model(
    shape: ModelShape, folder: Path, max_pixels: int, seed: int, dtype: Any, device: str
) -> tuple[Any, Any]:
    """Return a model with random weights and its processor.

    Args:
        shape: Size of the model.
        folder: Folder for the processor's files; it must exist.
        max_pixels: Maximum height × width of an image.
        seed: Seed of the random weights.
        dtype: Torch dtype of the weights.
        device: Device of the weights.
    """
    import torch  # noqa: PLC0415  slow to import
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, GenerationConfig  # noqa: PLC0415

    save_random_checkpoint(folder, model_type=shape.model_type, seed=seed)
    processor = AutoProcessor.from_pretrained(folder)
    frames = _WHOLE_VIDEO_FRAMES if MODEL_FACTS[shape.model_type].limits_whole_video else 1
    processor.video_processor.size["longest_edge"] = frames * max_pixels
    config = AutoConfig.from_pretrained(folder).to_dict()
    config["tie_word_embeddings"] = shape.is_tied
    text, vision = config["text_config"], config["vision_config"]
    text.pop("layer_types", None)
    text.update(shape.text, initializer_range=0.02)
    text["layer_types"] = list(layer_types(text))
    text["rope_parameters"]["mrope_section"] = list(shape.mrope_section)
    if "fullatt_block_indexes" in vision:
        depth = shape.vision["depth"]
        vision["fullatt_block_indexes"] = [depth // 2 - 1, depth - 1]
    vision.update(shape.vision)
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(seed)
        model = AutoModelForImageTextToText.from_config(AutoConfig.for_model(**config), dtype=dtype)
    model.generation_config = GenerationConfig(
        eos_token_id=[], pad_token_id=processor.tokenizer.pad_token_id, do_sample=False
    )
    return model.eval(), processor
