"""Control tokens and chat template of Qwen, shared by the checkpoints that this project creates."""

from __future__ import annotations

from typing import Any

CONTROL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
END, PADDING = "<|im_end|>", "<|endoftext|>"

# Qwen's chat format: system, user with images and text, assistant.
CHAT_TEMPLATE = "".join(  # noqa: FLY002  one line each
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


def wrap_tokenizer(tokenizer: Any) -> Any:
    """Return a Transformers tokenizer with the control tokens added.

    Args:
        tokenizer: Tokenizer of the library ``tokenizers``.
    """
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415  slow to import

    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PADDING,
        extra_special_tokens=list(CONTROL_TOKENS),
    )


def control_ids(tokenizer: Any) -> dict[str, int]:
    """Return the token ids that a model's config requires, by config key."""
    names = {"vision_start": "vision_start", "vision_end": "vision_end", "image": "image_pad", "video": "video_pad"}
    return {f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>") for name, token in names.items()}


def ending_ids(tokenizer: Any) -> list[int]:
    """Return the token ids that end an answer."""
    return [tokenizer.convert_tokens_to_ids(token) for token in (END, PADDING)]
