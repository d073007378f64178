"""The layers of a language model: which have keys and values, and which a recurrent state. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RECURRENT_LAYER = "linear_attention"
"""Type of a layer with a recurrent state, in the config of a language model. Others have keys and values."""

_ATTENTION_LAYER = "full_attention"
_INTERVAL, _DEFAULT_INTERVAL = "full_attention_interval", 4  # transformers' default


def layer_types(text_config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the type of each layer of a language model, as transformers derives it from the fields of its config.

    Without ``layer_types`` and ``full_attention_interval``, a config with fields of recurrent layers has the default.

    Raises:
        KeyError: The config has neither ``layer_types`` nor ``num_hidden_layers``.
    """
    if types := text_config.get("layer_types"):
        return tuple(types)
    is_recurrent = any(field.startswith("linear_") or field == _INTERVAL for field in text_config)
    interval = int(text_config.get(_INTERVAL) or _DEFAULT_INTERVAL) if is_recurrent else 1
    return tuple(
        RECURRENT_LAYER if number % interval else _ATTENTION_LAYER
        for number in range(1, int(text_config["num_hidden_layers"]) + 1)
    )
