"""Tiny models with a vocabulary for the synthetic scenes: the embedded Qwen2.5-VL, and models of other types."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoConfig, AutoModelForImageTextToText, GenerationConfig, Qwen2VLImageProcessor

from delayed_vlm_ros.benchmark.chat_files import CHAT_TEMPLATE, control_ids, ending_ids, wrap_tokenizer
from delayed_vlm_ros.inference.local.models.adapters.registry import MODEL_FACTS
from delayed_vlm_ros.memory.grid import Grid
from delayed_vlm_ros.scenes import answers, phrasing
from delayed_vlm_ros.scenes.questions import NOT_UNDERSTOOD
from delayed_vlm_ros.scenes.sprites import COLOURS, PERSON, SHAPES

EMBEDDED = "qwen2_5_vl"
"""Model type of the embedded model."""
ROWS, COLUMNS = 4, 5
"""Merged tokens of a pair."""
MAX_PAIRS = 24
"""Largest number of pairs of a video."""
UNKNOWN = "[UNK]"

_MERGE = 2  # side of a merged token in patches
_HIDDEN = 128
_WORD = r"[\w']+|[^\w\s]"
_WORD_OR_DIGIT = r"\d|[\w']+|[^\w\s]"  # times are written digit by digit, as in Qwen's tokenizers
_TIME_TOKENS = [*"0123456789", "<", ">", ".", "seconds"]
_TEMPLATE_WORDS = "system user assistant you are a helpful . , ?"
_ANSWER_WORDS = ["yes", "no", "now", "a", "an", "and", "came", "left", "by", "the", "room", "is", "empty", "happened"]
_MORE_WORDS = [
    "red",
    "one",
    "two",
    "three",
    "please",
    "object",
    "objects",
    "thing",
    "things",
    "i",
    "me",
    "it",
    "in",
    "on",
    "at",
    "of",
    "to",
    "be",
    "can",
    "not",
]


_VISION_DEPTH = 3
_VISION_FIELDS: dict[str, dict[str, Any]] = {
    "qwen2_5_vl": {"fullatt_block_indexes": list(range(_VISION_DEPTH)), "tokens_per_second": 1},
    "qwen3_vl": {"num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1]},
    "qwen3_5": {"num_position_embeddings": 64},
}
_TEXT_FIELDS: dict[str, dict[str, Any]] = {
    "qwen2_5_vl": {
        "max_position_embeddings": 256,
        # With the usual 1e6 and heads of 32, most axes would hardly rotate within a video.
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0, "mrope_section": [8, 4, 4]},
    },
    "qwen3_vl": {
        "max_position_embeddings": 1024,
        "head_dim": 32,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1000.0,
            "mrope_section": [6, 5, 5],
            "mrope_interleaved": True,
        },
    },
    "qwen3_5": {  # recurrent layers and layers with attention take turns
        "num_hidden_layers": 6,
        "full_attention_interval": 2,
        "max_position_embeddings": 1024,
        "head_dim": 32,
        "linear_key_head_dim": 32,
        "linear_value_head_dim": 32,
        "linear_num_key_heads": 4,
        "linear_num_value_heads": 4,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1000.0,
            "partial_rotary_factor": 0.5,
            "mrope_section": [4, 2, 2],
            "mrope_interleaved": True,
        },
    },
}
TRAINED_TYPES = tuple(_TEXT_FIELDS)
"""Model types of the tiny models."""


def frame_grid(model_type: str) -> Grid:
    """Return the only size of images of a tiny model."""
    side = _MERGE * MODEL_FACTS[model_type].patch_size
    return Grid(ROWS * side, COLUMNS * side)


def vocabulary(model_type: str = EMBEDDED) -> list[str]:
    """Return all words of a model, in a fixed order."""
    words = set(_TEMPLATE_WORDS.split()) | set(_ANSWER_WORDS) | set(_MORE_WORDS)
    words |= {*COLOURS, *SHAPES, PERSON, *answers.NUMBERS, *map(str, answers.AGES_SEC)}
    sentences = [text for texts in phrasing.PHRASINGS.values() for text in texts]
    sentences += [*(one for many in phrasing.SYNONYMS.values() for one in many), *phrasing.PLURALS.values()]
    words |= {word.strip("?,.") for text in sentences for word in text.lower().split() if "{" not in word}
    replies = [NOT_UNDERSTOOD, answers.NOT_SEEN_NOW, answers.NOT_SEEN_EVER, answers.NOTHING, answers.OLDER]
    replies += ["about seconds ago", *answers.REGIONS.values(), answers.EMPTY_ROOM, answers.NOTHING_HAPPENED]
    words |= {word for text in replies for word in text.split()}
    if MODEL_FACTS[model_type].time_is_text:
        words |= set(_TIME_TOKENS)
    return [UNKNOWN, *sorted(words - {""})]


def make_processor(model_type: str = EMBEDDED) -> Any:
    """Return the processor: word-level tokenizer, Qwen's chat template, and video processor for one image size."""
    facts = MODEL_FACTS[model_type]
    words = vocabulary(model_type)
    tokenizer = Tokenizer(models.WordLevel(vocab={word: index for index, word in enumerate(words)}, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    pattern = Regex(_WORD_OR_DIGIT if facts.time_is_text else _WORD)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pattern, behavior="removed", invert=True)
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)  # joins words, without a space before a comma
    grid = frame_grid(model_type)
    pixels = grid.height * grid.width
    size = {"shortest_edge": pixels, "longest_edge": pixels}
    video_size = size | ({"longest_edge": 2 * MAX_PAIRS * pixels} if facts.limits_whole_video else {})
    return getattr(transformers, facts.processors[0])(
        image_processor=Qwen2VLImageProcessor(size=size, patch_size=facts.patch_size),
        tokenizer=wrap_tokenizer(tokenizer),
        video_processor=getattr(transformers, facts.video_processor)(size=video_size, patch_size=facts.patch_size),
        chat_template=CHAT_TEMPLATE,
    )


def make_model(tokenizer: Any, seed: int, model_type: str = EMBEDDED) -> Any:
    """Return a model with random weights.

    Args:
        tokenizer: Tokenizer of the processor.
        seed: Seed of the weights.
        model_type: One of ``TRAINED_TYPES``.
    """
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": _HIDDEN,
        "intermediate_size": 384,
        "num_hidden_layers": 5,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "tie_word_embeddings": True,
    } | _TEXT_FIELDS[model_type]
    vision = {
        "depth": _VISION_DEPTH,
        "hidden_size": 96,
        "intermediate_size": 256,
        "num_heads": 3,
        "out_hidden_size": _HIDDEN,
    } | _VISION_FIELDS[model_type]
    config = AutoConfig.for_model(
        model_type, text_config=text, vision_config=vision, tie_word_embeddings=True, **control_ids(tokenizer)
    )
    grid = frame_grid(model_type)
    config.frame_size = [grid.height, grid.width]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    model.generation_config = GenerationConfig(
        eos_token_id=ending_ids(tokenizer), pad_token_id=tokenizer.pad_token_id, do_sample=False
    )
    return model


def save(model: Any, processor: Any, folder: Path) -> None:
    """Write a checkpoint with half-precision weights and the processor's files."""
    folder.mkdir(parents=True, exist_ok=True)
    model.to(torch.float16).save_pretrained(folder)
    model.to(torch.float32)
    processor.save_pretrained(folder)
