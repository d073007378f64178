"""Random-weight models of a given size, for timing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from delayed_vlm_ros.benchmark.random_checkpoint import save_random_checkpoint


@dataclass(frozen=True)
class ModelShape:
    """Size of a Qwen2.5-VL model.

    Attributes:
        text: Config fields of the language model.
        vision: Config fields of the vision encoder.
        mrope_section: Rotary frequencies per head for time, rows and columns.
    """

    text: Mapping[str, int]
    vision: Mapping[str, Any]
    mrope_section: tuple[int, int, int]


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


def make_random_model(
    shape: ModelShape, folder: Path, max_pixels: int, seed: int, dtype: Any, device: str
) -> tuple[Any, Any]:
    """Return a Qwen2.5-VL model with random weights and its processor.

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

    save_random_checkpoint(folder, seed=seed)
    processor = AutoProcessor.from_pretrained(folder)
    processor.video_processor.size["longest_edge"] = max_pixels
    config = AutoConfig.from_pretrained(folder).to_dict()
    text = config["text_config"]
    text.update(shape.text, layer_types=["full_attention"] * shape.text["num_hidden_layers"], initializer_range=0.02)
    text["rope_parameters"]["mrope_section"] = list(shape.mrope_section)
    depth = shape.vision["depth"]
    config["vision_config"].update({"fullatt_block_indexes": [depth // 2 - 1, depth - 1]} | dict(shape.vision))
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(seed)
        model = AutoModelForImageTextToText.from_config(AutoConfig.for_model(**config), dtype=dtype)
    model.generation_config = GenerationConfig(
        eos_token_id=[], pad_token_id=processor.tokenizer.pad_token_id, do_sample=False
    )
    return model.eval(), processor
