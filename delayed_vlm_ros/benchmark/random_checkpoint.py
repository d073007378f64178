"""Tiny checkpoints of the supported architectures with random weights, for tests and benchmarks.

They load through the same code as ``Qwen/Qwen2.5-VL-3B-Instruct``. Their answers are random text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from delayed_vlm_ros.benchmark.chat_files import CHAT_TEMPLATE, control_ids, ending_ids, wrap_tokenizer
from delayed_vlm_ros.inference.local.models.adapters.registry import MODEL_FACTS

_SEED = 20
_VISION_FIELDS: dict[str, dict[str, Any]] = {
    "qwen2_vl": {"embed_dim": 64, "mlp_ratio": 2},
    "qwen2_5_vl": {
        "intermediate_size": 128,
        "out_hidden_size": 64,
        "fullatt_block_indexes": [1],
        "tokens_per_second": 2,
    },
    "qwen3_vl": {
        "depth": 3,
        "intermediate_size": 128,
        "out_hidden_size": 64,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0, 1],
    },
    "qwen3_5": {"intermediate_size": 128, "out_hidden_size": 64, "num_position_embeddings": 64},
}
_TEXT_FIELDS: dict[str, dict[str, Any]] = {
    "qwen3_vl": {
        "num_hidden_layers": 3,
        "head_dim": 16,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e6,
            "mrope_section": [2, 3, 3],
            "mrope_interleaved": True,
        },
    },
    "qwen3_5": {  # three recurrent layers, then one with attention
        "num_hidden_layers": 4,
        "head_dim": 32,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e6,
            "partial_rotary_factor": 0.25,
            "mrope_section": [2, 1, 1],
            "mrope_interleaved": True,
        },
    },
}


def save_random_checkpoint(folder: Path, *, model_type: str = "qwen2_5_vl", seed: int = _SEED) -> None:
    """Write a tiny checkpoint with random weights: model, tokenizer, processor and chat template.

    Args:
        folder: Target folder; it must exist.
        model_type: Architecture, one of ``SUPPORTED_MODEL_TYPES``.
        seed: Seed of the random weights.
    """
    import torch  # noqa: PLC0415  slow to import
    from transformers import AutoModelForImageTextToText, GenerationConfig  # noqa: PLC0415
    from transformers.utils import logging  # noqa: PLC0415

    logging.disable_progress_bar()  # the files are small

    processor = _processor(model_type)
    config = _config(model_type, processor.tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    model.generation_config = GenerationConfig(
        eos_token_id=ending_ids(processor.tokenizer),
        pad_token_id=processor.tokenizer.pad_token_id,
        repetition_penalty=1.05,
        do_sample=False,
        min_new_tokens=8,  # an empty answer would look like an error
        suppress_tokens=_unreadable(processor.tokenizer),
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def _processor(model_type: str) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers  # noqa: PLC0415
    from transformers import (  # noqa: PLC0415
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLProcessor,
        Qwen2VLVideoProcessor,
        Qwen3VLProcessor,
        Qwen3VLVideoProcessor,
    )

    # One token per byte, so that every text round-trips.
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = wrap_tokenizer(tokenizer)
    processors: dict[str, Any] = {"qwen2_5_vl": Qwen2_5_VLProcessor, "qwen2_vl": Qwen2VLProcessor}
    video_processor: Any = Qwen2VLVideoProcessor
    if model_type not in processors:
        processors[model_type], video_processor = Qwen3VLProcessor, Qwen3VLVideoProcessor
    patch = MODEL_FACTS[model_type].patch_size
    pixels = (2 * patch) ** 2
    size = {"shortest_edge": 4 * pixels, "longest_edge": 16 * pixels}
    return processors[model_type](
        image_processor=Qwen2VLImageProcessor(size=size, patch_size=patch),
        tokenizer=fast,
        video_processor=video_processor(size=size, patch_size=patch),
        chat_template=CHAT_TEMPLATE,
    )


def _config(model_type: str, tokenizer: Any) -> Any:
    from transformers import AutoConfig  # noqa: PLC0415

    ids = control_ids(tokenizer)
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32768,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
        "bos_token_id": None,
        "eos_token_id": tokenizer.convert_tokens_to_ids("<|im_end|>"),
        "initializer_range": 0.2,  # large enough that answers depend on the images
    }
    text |= _TEXT_FIELDS.get(model_type, {})
    vision = {"depth": 2, "hidden_size": 64, "num_heads": 4, "initializer_range": 0.2} | _VISION_FIELDS[model_type]
    return AutoConfig.for_model(model_type, text_config=text, vision_config=vision, tie_word_embeddings=True, **ids)


def _unreadable(tokenizer: Any) -> list[int]:
    """Return the token ids to suppress so that answers stay readable: all except printable ASCII."""
    endings = set(ending_ids(tokenizer))
    unreadable = []
    for index in range(len(tokenizer)):
        text = tokenizer.decode([index])
        printable = len(text) == 1 and text.isascii() and text.isprintable()
        if not printable and index not in endings:
            unreadable.append(index)
    return unreadable
