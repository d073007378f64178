"""Yes/no questions after one encoded prefix: forward passes over the questions, no decoding.

The questions are packed, up to 512 tokens a pass: they follow each other in one sequence, each with the positions that
it has alone, and a mask hides them from each other. Each question has a pass of its own where no such mask is possible:
with recurrent layers, which read tokens in sequence, and with flash attention.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.local.cache.prefix import PrefixCache
from delayed_vlm_ros.inference.local.finite import check_finite
from delayed_vlm_ros.inference.yes_no import AnswerForms, YesNo, yes_no

_MAX_PACKED_TOKENS = 512
_MASKED_ATTENTION = frozenset({"sdpa", "eager"})  # implementations that take a mask of any form


@dataclass(frozen=True, slots=True)
class Question:
    """The part of a prompt after the prefix.

    Attributes:
        token_ids: Ids of the question and the opening of the answer.
        positions: Position ids, shape (3, 1, tokens).
    """

    token_ids: tuple[int, ...]
    positions: torch.Tensor


@torch.inference_mode()
def score_questions(
    model: Any,
    processor: Any,
    prefix: PrefixCache,
    questions: Sequence[Question],
    forms: AnswerForms,
    control: AskControl,
) -> list[YesNo]:
    """Return what the model would answer to each question.

    Args:
        model: Model from transformers.
        processor: Its processor.
        prefix: The encoded prefix; unchanged.
        questions: At least one question.
        forms: Tokens that mean yes or no.
        control: Control of the work, checked before every pass.

    Raises:
        AskCancelledError: The work was cancelled.
        AskTimeoutError: The deadline has passed.
        NonFiniteError: The logits contain NaN or infinity.
    """
    scores: list[YesNo] = []
    for packed in _packs(questions, one_by_one=not _can_pack(model, prefix)):
        control.check()
        logits = _first_logits(model, prefix, packed)
        check_finite(logits, "logits of yes/no questions")
        scores.extend(_outcome(row, forms, processor) for row in logits.float().log_softmax(-1))
    return scores


def packed_tokens(lengths: Sequence[int]) -> int:
    """Return the tokens that one pass may need after the prefix, for questions of these lengths."""
    return max(*lengths, min(sum(lengths), _MAX_PACKED_TOKENS))


def _can_pack(model: Any, prefix: PrefixCache) -> bool:
    attention = model.config._attn_implementation  # noqa: SLF001  the library has no public name for it
    return not prefix.has_recurrent_layers and attention in _MASKED_ATTENTION


def _packs(questions: Sequence[Question], *, one_by_one: bool) -> Iterator[list[Question]]:
    pack: list[Question] = []
    for question in questions:
        tokens = sum(len(packed.token_ids) for packed in pack)
        if pack and (one_by_one or tokens + len(question.token_ids) > _MAX_PACKED_TOKENS):
            yield pack
            pack = []
        pack.append(question)
    yield pack


def _first_logits(model: Any, prefix: PrefixCache, questions: Sequence[Question]) -> torch.Tensor:
    """Return the logits of the first token of each answer, shape (questions, vocabulary)."""
    lengths = torch.tensor([len(question.token_ids) for question in questions])
    ids = torch.tensor([[token for question in questions for token in question.token_ids]], device=model.device)
    mask = _mask(prefix.length, lengths, model.dtype).to(model.device) if len(questions) > 1 else None
    output = model.model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=torch.cat([question.positions for question in questions], -1).to(model.device),
        past_key_values=prefix.fork(),
        use_cache=True,
    )
    ends = lengths.cumsum(0) - 1
    logits: torch.Tensor = model.lm_head(output.last_hidden_state[0, ends.to(model.device)])
    return logits


def _mask(prefix_tokens: int, lengths: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return a mask to add to the attention scores, shape (1, 1, tokens, prefix_tokens + tokens).

    A token sees the prefix, and of its own question itself and what is before it.
    """
    tokens = int(lengths.sum())
    question = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    visible = (question[:, None] == question[None, :]).tril()
    visible = torch.cat([torch.ones(tokens, prefix_tokens, dtype=torch.bool), visible], -1)
    return torch.zeros(visible.shape, dtype=dtype).masked_fill(~visible, torch.finfo(dtype).min)[None, None]


def _outcome(log_p: torch.Tensor, forms: AnswerForms, processor: Any) -> YesNo:
    yes, no = (float(log_p[list(ids)].logsumexp(0)) for ids in (forms.yes, forms.no))
    return yes_no(yes, no, str(processor.tokenizer.decode([int(log_p.argmax())])).strip())
