"""The prompt of a question: the checkpoint's own chat template around one video and one question."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from delayed_vlm_ros.errors import BadRequestError, UnsupportedModelError


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids of one prompt, split at the video.

    Attributes:
        before: Ids up to and including the start-of-vision token of the video.
        after: Ids from the end-of-vision token of the video on: the question and the opening of the answer.
        video_token_id: Placeholder id of every merged visual token.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]
    video_token_id: int


def build_prompt(processor: Any, question: str) -> Prompt:
    """Return the chat template's prompt for a question about a video.

    Args:
        processor: The library's processor of the checkpoint.
        question: Plain text.

    Raises:
        BadRequestError: The question contains a control token of the model.
        UnsupportedModelError: The chat template does not contain exactly one video.
    """
    tokenizer = processor.tokenizer
    for token in {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}:
        if token in question:
            raise BadRequestError(f"the question contains '{token}', a control token of the model: leave it out")
    content = [{"type": "video"}, {"type": "text", "text": question}]
    messages = [{"role": "user", "content": content}]
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    parts = text.split(processor.video_token)
    if len(parts) != 2:  # noqa: PLR2004  before and after
        raise UnsupportedModelError(
            f"the checkpoint's chat template puts {len(parts) - 1} videos into a prompt with one: download its files "
            "again"
        )
    # No token spans the control token at the split: both sides have the same tokens as the whole text.
    before, after = (tuple(tokenizer(part, add_special_tokens=False).input_ids) for part in parts)
    return Prompt(before, after, processor.video_token_id)
