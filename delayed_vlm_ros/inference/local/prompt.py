"""The prompt of a question: the checkpoint's own chat template around one video and one question."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from delayed_vlm_ros.errors import BadRequestError, UnsupportedModelError

_THINKING = "<think>"
_THINKING_VARIABLE = "enable_thinking"


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


def chat_text(processor: Any, question: str) -> str:
    """Return the text of the checkpoint's chat template for a question about one video, without a chain of thought.

    Args:
        processor: The library's processor of the checkpoint.
        question: Plain text.

    Raises:
        BadRequestError: The question contains a control token of the model.
        UnsupportedModelError: The checkpoint always begins an answer with a chain of thought.
    """
    tokenizer = processor.tokenizer
    for token in {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}:
        if token in question:
            raise BadRequestError(f"the question contains '{token}', a control token of the model: leave it out")
    content = [{"type": "video"}, {"type": "text", "text": question}]
    messages = [{"role": "user", "content": content}]
    # transformers warns about a variable that the template does not have.
    options = {_THINKING_VARIABLE: False} if _THINKING_VARIABLE in str(processor.chat_template) else {}
    text = str(processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **options))
    if text.rstrip().endswith(_THINKING):
        raise UnsupportedModelError(
            f"the checkpoint's chat template opens a chain of thought ({_THINKING}), which would take the place of the "
            "answer: use an Instruct checkpoint"
        )
    return text


def build_prompt(processor: Any, question: str) -> Prompt:
    """Return the chat template's prompt for a question about a video.

    Args:
        processor: The library's processor of the checkpoint.
        question: Plain text.

    Raises:
        BadRequestError: The question contains a control token of the model.
        UnsupportedModelError: The chat template does not contain exactly one video, or opens a chain of thought.
    """
    parts = chat_text(processor, question).split(processor.video_token)
    if len(parts) != 2:  # noqa: PLR2004  before and after
        raise UnsupportedModelError(
            f"the checkpoint's chat template puts {len(parts) - 1} videos into a prompt with one: download its files "
            "again"
        )
    # No token spans the control token at the split: both sides have the same tokens as the whole text.
    before, after = (tuple(processor.tokenizer(part, add_special_tokens=False).input_ids) for part in parts)
    return Prompt(before, after, processor.video_token_id)
