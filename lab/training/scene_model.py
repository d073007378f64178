"""The embedded model: a tiny Qwen2.5-VL with a vocabulary for the synthetic scenes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    GenerationConfig,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from delayed_vlm_ros.benchmark.chat_files import CHAT_TEMPLATE, control_ids, ending_ids, wrap_tokenizer
from delayed_vlm_ros.scenes import answers, phrasing
from delayed_vlm_ros.scenes.questions import NOT_UNDERSTOOD
from delayed_vlm_ros.scenes.sprites import COLOURS, PERSON, SHAPES

FRAME_HEIGHT, FRAME_WIDTH = 112, 140
MERGED = 28  # side of a merged token in pixels: two patches of 14
ROWS, COLUMNS = FRAME_HEIGHT // MERGED, FRAME_WIDTH // MERGED
UNKNOWN = "[UNK]"

_HIDDEN = 128
_WORD = r"[\w']+|[^\w\s]"
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


def vocabulary() -> list[str]:
    """Return all words of the model, in a fixed order."""
    words = set(_TEMPLATE_WORDS.split()) | set(_ANSWER_WORDS) | set(_MORE_WORDS)
    words |= {*COLOURS, *SHAPES, PERSON, *answers.NUMBERS, *map(str, answers.AGES_SEC)}
    sentences = [text for texts in phrasing.PHRASINGS.values() for text in texts]
    sentences += [*(one for many in phrasing.SYNONYMS.values() for one in many), *phrasing.PLURALS.values()]
    words |= {word.strip("?,.") for text in sentences for word in text.lower().split() if "{" not in word}
    replies = [NOT_UNDERSTOOD, answers.NOT_SEEN_NOW, answers.NOT_SEEN_EVER, answers.NOTHING, answers.OLDER]
    replies += ["about seconds ago", *answers.REGIONS.values(), answers.EMPTY_ROOM, answers.NOTHING_HAPPENED]
    words |= {word for text in replies for word in text.split()}
    return [UNKNOWN, *sorted(words - {""})]


def make_processor() -> Any:
    """Return the processor: word-level tokenizer, Qwen's chat template, and video processor for one image size."""
    words = vocabulary()
    tokenizer = Tokenizer(models.WordLevel(vocab={word: index for index, word in enumerate(words)}, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_WORD), behavior="removed", invert=True)
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)  # joins words, without a space before a comma
    pixels = FRAME_HEIGHT * FRAME_WIDTH
    size = {"shortest_edge": pixels, "longest_edge": pixels}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=size),
        tokenizer=wrap_tokenizer(tokenizer),
        video_processor=Qwen2VLVideoProcessor(size=size),
        chat_template=CHAT_TEMPLATE,
    )


def make_model(tokenizer: Any, seed: int) -> Any:
    """Return the model with random weights.

    Args:
        tokenizer: Tokenizer of the processor.
        seed: Seed of the weights.
    """
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": _HIDDEN,
        "intermediate_size": 384,
        "num_hidden_layers": 5,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 256,
        # With the usual 1e6 and heads of 32, most axes would hardly rotate within a video.
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0, "mrope_section": [8, 4, 4]},
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "tie_word_embeddings": True,
    }
    depth = 3
    vision = {
        "depth": depth,
        "hidden_size": 96,
        "intermediate_size": 256,
        "num_heads": 3,
        "out_hidden_size": _HIDDEN,
        "fullatt_block_indexes": list(range(depth)),
        "tokens_per_second": 1,
    }
    config = AutoConfig.for_model(
        "qwen2_5_vl", text_config=text, vision_config=vision, tie_word_embeddings=True, **control_ids(tokenizer)
    )
    config.frame_size = [FRAME_HEIGHT, FRAME_WIDTH]
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
