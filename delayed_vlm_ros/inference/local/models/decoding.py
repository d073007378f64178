"""The settings in a checkpoint's ``generation_config.json``: which of them answers follow.

Answers are greedy: the most likely token at each step, after the checkpoint's penalties. So the same question about the
same frames has the same answer. This module imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_TOKENS = frozenset({"bos_token_id", "eos_token_id", "pad_token_id"})
_PENALTIES = frozenset(
    {
        "bad_words_ids",
        "begin_suppress_tokens",
        "encoder_no_repeat_ngram_size",
        "encoder_repetition_penalty",
        "exponential_decay_length_penalty",
        "min_length",
        "min_new_tokens",
        "no_repeat_ngram_size",
        "repetition_penalty",
        "sequence_bias",
        "suppress_tokens",
    }
)
_SAMPLING = frozenset(
    {
        "do_sample",
        "epsilon_cutoff",
        "eta_cutoff",
        "min_p",
        "temperature",
        "top_h",
        "top_k",
        "top_p",
        "typical_p",
    }
)
# Set by this package, or without effect on a greedy answer: leaving them out needs no report.
_WITHOUT_EFFECT = frozenset(
    {
        "assistant_confidence_threshold",
        "assistant_lookbehind",
        "cache_config",
        "cache_implementation",
        "compile_config",
        "disable_compile",
        "early_stopping",
        "forced_bos_token_id",
        "is_assistant",
        "length_penalty",
        "low_memory",
        "max_cache_len",
        "max_length",
        "max_matching_ngram_size",
        "max_new_tokens",
        "num_assistant_tokens",
        "num_assistant_tokens_schedule",
        "output_attentions",
        "output_hidden_states",
        "output_logits",
        "output_scores",
        "prefill_chunk_size",
        "remove_invalid_values",
        "renormalize_logits",
        "return_dict_in_generate",
        "target_lookbehind",
        "transformers_version",
        "use_cache",
    }
)
# Values that transformers requires where it accepts no None.
_NEUTRAL: Mapping[str, Any] = {
    "do_sample": False,
    "early_stopping": False,
    "num_beams": 1,
    "num_beam_groups": 1,
    "num_return_sequences": 1,
    "use_cache": True,
}
# Numbers that switch a setting off; 0 for all others.
_NEUTRAL_NUMBERS = dict.fromkeys(
    ("guidance_scale", "num_beams", "num_beam_groups", "num_return_sequences", "temperature", "top_p", "typical_p"), 1
)
_MAX_VALUE_CHARACTERS = 40


@dataclass(frozen=True, slots=True)
class DecodingSettings:
    """The settings of a checkpoint, divided.

    Attributes:
        kept: Settings that answers follow.
        ignored: Settings that answers do not follow although they would change them.
    """

    kept: Mapping[str, Any]
    ignored: Mapping[str, Any]

    @property
    def is_sampled(self) -> bool:
        """Whether answers are sampled."""
        return bool(self.kept.get("do_sample"))

    def notes(self, name: str) -> tuple[str, ...]:
        """Return one sentence about the settings that answers do not follow; nothing if there are none.

        Args:
            name: Name of the model.
        """
        if not self.ignored:
            return ()
        values = ", ".join(f"{key} {_shortened(value)}" for key, value in sorted(self.ignored.items()))
        remedy = ". Set model.sampling to follow the sampling settings" if "do_sample" in self.ignored else ""
        return (
            f"answers of {name} are greedy and ignore these settings of its generation_config.json: {values}{remedy}",
        )


def decoding_settings(settings: Mapping[str, Any], *, sampling: bool) -> DecodingSettings:
    """Divide the settings of a checkpoint.

    Args:
        settings: Content of ``generation_config.json``, or fields of a ``GenerationConfig``.
        sampling: Whether to follow the sampling settings.
    """
    given = {key: value for key, value in settings.items() if value is not None and not key.startswith("_")}
    wants_sampling = bool(given.get("do_sample"))
    followed = _TOKENS | _PENALTIES | (_SAMPLING if sampling and wants_sampling else frozenset())
    silent = _WITHOUT_EFFECT if wants_sampling else _WITHOUT_EFFECT | _SAMPLING
    return DecodingSettings(
        kept={key: value for key, value in given.items() if key in followed},
        ignored={
            key: value
            for key, value in given.items()
            if key not in followed and key not in silent and not _is_neutral(key, value)
        },
    )


def generate_arguments(settings: Mapping[str, Any], max_new_tokens: int, *, sampling: bool) -> dict[str, Any]:
    """Return arguments of ``generate`` that replace every setting of the model's config that answers do not follow.

    Args:
        settings: Fields of the model's ``GenerationConfig``.
        max_new_tokens: Length limit of the answer in tokens.
        sampling: Whether to follow the sampling settings.
    """
    kept = decoding_settings(settings, sampling=sampling).kept
    replaced = {
        key: _NEUTRAL.get(key)
        for key, value in settings.items()
        if value is not None and key not in kept and not key.startswith("_") and key != "transformers_version"
    }
    if kept.get("min_new_tokens"):
        replaced["min_new_tokens"] = min(
            kept["min_new_tokens"], max_new_tokens
        )  # transformers would warn at each question
    return {**replaced, "max_new_tokens": max_new_tokens}


def _is_neutral(key: str, value: Any) -> bool:
    if value is True:
        return False
    return bool(value == _NEUTRAL_NUMBERS.get(key, 0)) or value in (False, "", [], {})


def _shortened(value: Any) -> str:
    text = "true" if value is True else str(value)
    return text if len(text) <= _MAX_VALUE_CHARACTERS else f"{text[:_MAX_VALUE_CHARACTERS]}…"
