"""The demo model: the Qwen2.5-VL architecture, tiny, with random weights. It shows that everything works, not what.

No weights can be fetched at set-up, and all that a random model says is noise, which its notice tells. It loads
through the same code as ``Qwen/Qwen2.5-VL-3B-Instruct``.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

NOTICE = "untrained demo model: random weights, its answers are noise"

_SEED = 20
_REVISION = "2"  # counts up whenever the files made here change

_CONTROL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)

# The form of Qwen's chat: system, user with pictures and text, assistant.
_CHAT_TEMPLATE = "".join(  # noqa: FLY002  a line each
    (
        "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}",
        "{% for message in messages %}<|im_start|>{{ message.role }}\n",
        "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}",
        "{% if part.type == 'text' %}{{ part.text }}",
        "{% else %}<|vision_start|><|{{ part.type }}_pad|><|vision_end|>{% endif %}{% endfor %}{% endif %}",
        "<|im_end|>\n{% endfor %}",
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    )
)


def untrained_checkpoint() -> Path:
    """Folder of the demo checkpoint, made on first use (about ten seconds, most of it importing torch).

    Returns:
        A folder in the user's cache directory (``$XDG_CACHE_HOME``), or a fresh temporary one where that is read-only.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "delayed_vlm_ros"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        usable = os.access(cache, os.W_OK)
    except OSError:
        usable = False
    if not usable:
        cache = Path(tempfile.mkdtemp(prefix="delayed_vlm_ros-"))
    folder = cache / f"untrained-{_REVISION}"
    if not (folder / "config.json").is_file():
        _publish(folder)
    return folder


def _publish(folder: Path) -> None:
    """Write the checkpoint beside its place and move it there in one step, so that nobody sees half of it."""
    draft = Path(tempfile.mkdtemp(prefix="untrained-", dir=folder.parent))
    try:
        draft.chmod(0o755)
        save_untrained(draft)
        with suppress(OSError):  # another process was first
            draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def save_untrained(folder: Path, *, model_type: str = "qwen2_5_vl", seed: int = _SEED) -> None:
    """Write a tiny checkpoint with random weights: model, tokenizer, processor and chat template.

    Args:
        folder: An existing folder.
        model_type: ``qwen2_5_vl`` or ``qwen2_vl``.
        seed: Of the random weights.
    """
    import torch  # noqa: PLC0415  takes seconds
    from transformers import AutoModelForImageTextToText, GenerationConfig  # noqa: PLC0415
    from transformers.utils import logging  # noqa: PLC0415

    logging.disable_progress_bar()  # the files are small

    processor = _processor(model_type)
    config = _config(model_type, processor.tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    model.generation_config = GenerationConfig(
        eos_token_id=[processor.tokenizer.convert_tokens_to_ids(token) for token in ("<|im_end|>", "<|endoftext|>")],
        pad_token_id=processor.tokenizer.convert_tokens_to_ids("<|endoftext|>"),
        repetition_penalty=1.05,
        do_sample=False,
        min_new_tokens=8,  # an empty answer would look like a fault
        suppress_tokens=_unreadable(processor.tokenizer),
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def _processor(model_type: str) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers  # noqa: PLC0415
    from transformers import (  # noqa: PLC0415
        PreTrainedTokenizerFast,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLProcessor,
        Qwen2VLVideoProcessor,
    )

    # One token a byte: any question comes through whole.
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",  # noqa: S106  no secret
        pad_token="<|endoftext|>",  # noqa: S106  no secret
        extra_special_tokens=list(_CONTROL_TOKENS),
    )
    size = {"shortest_edge": 4 * 28 * 28, "longest_edge": 16 * 28 * 28}
    processors = {"qwen2_5_vl": Qwen2_5_VLProcessor, "qwen2_vl": Qwen2VLProcessor}
    return processors[model_type](
        image_processor=Qwen2VLImageProcessor(size=size),
        tokenizer=fast,
        video_processor=Qwen2VLVideoProcessor(size=size),
        chat_template=_CHAT_TEMPLATE,
    )


def _config(model_type: str, tokenizer: Any) -> Any:
    from transformers import AutoConfig  # noqa: PLC0415

    ids = {
        f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>")
        for name, token in (
            ("vision_start", "vision_start"),
            ("vision_end", "vision_end"),
            ("image", "image_pad"),
            ("video", "video_pad"),
        )
    }
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
        "initializer_range": 0.2,  # large enough for the answers to depend on the pictures
    }
    if model_type == "qwen2_5_vl":
        vision = {
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 4,
            "out_hidden_size": 64,
            "fullatt_block_indexes": [1],
            "tokens_per_second": 2,
            "initializer_range": 0.2,
        }
    else:
        vision = {
            "depth": 2,
            "embed_dim": 64,
            "hidden_size": 64,
            "mlp_ratio": 2,
            "num_heads": 4,
            "initializer_range": 0.2,
        }
    return AutoConfig.for_model(model_type, text_config=text, vision_config=vision, tie_word_embeddings=True, **ids)


def _unreadable(tokenizer: Any) -> list[int]:
    """Ids that an answer must not contain, so that noise stays readable: all but printable ASCII."""
    endings = {tokenizer.convert_tokens_to_ids(token) for token in ("<|im_end|>", "<|endoftext|>")}
    unreadable = []
    for index in range(len(tokenizer)):
        text = tokenizer.decode([index])
        printable = len(text) == 1 and text.isascii() and text.isprintable()
        if not printable and index not in endings:
            unreadable.append(index)
    return unreadable


if __name__ == "__main__":
    sys.stdout.write(f"      {untrained_checkpoint()}\n")
