"""Conversion of parameter values: what YAML and ``ros2 param set`` make of a value is often of another type.

A value is converted where its meaning is clear: ``5`` to 5.0, ``1e6`` to 1000000, and false, as which YAML reads
``off``, to the choice ``off``. Otherwise the error says what to write.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

EXPECTED = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "text",
    tuple: "a list of texts such as [front, rear]",
}
"""Descriptions of the types of parameters; ``tuple`` is a list of strings."""

# ROS reads these words as booleans, in any of three spellings, unless they are in quotes.
_BOOLEAN_WORDS = {
    True: ("true", "on", "yes", "y"),
    False: ("false", "off", "no", "n"),
}
_NULL_WORDS = ("~", "null", "Null", "NULL")  # ROS reads YAML's null as this text


def converted(value: Any, kind: type, choices: tuple[str, ...] = ()) -> Any:
    """Return a value in the type of a parameter; None if its meaning is unclear.

    Args:
        value: Value of any parameter type.
        kind: One of the keys of ``EXPECTED``.
        choices: Allowed texts; empty if any is allowed.
    """
    if kind is str:
        return _text(value, choices)
    return {bool: _boolean, int: _integer, float: _number, tuple: _texts}[kind](value)


def remedy(name: str, value: Any, kind: type, default: Any) -> str:
    """Return what to write instead of a value that ``converted`` does not accept.

    Args:
        name: ROS name of the parameter.
        value: The value.
        kind: Type of the parameter.
        default: Default value of the parameter.
    """
    if kind is str and isinstance(value, bool):
        words, example = ", ".join(_BOOLEAN_WORDS[value]), _BOOLEAN_WORDS[value][1]
        return (
            f'YAML reads the words {words} as {shown(value)}; put yours in quotes, such as "{example}" in a file and '
            f"-p '{name}:=\"{example}\"' on a command line"
        )
    if kind is str and value in _NULL_WORDS:
        return 'write "" for an empty text'
    if kind is tuple and isinstance(value, list | tuple):
        return 'put each item in quotes, such as ["front", "rear"]'
    return f"correct the parameter file; the default is {in_yaml(default)}"


def shown(value: Any) -> str:
    """Return a value of any parameter type for an error message."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return in_yaml(value)
    return repr(value if isinstance(value, str | int | float) else list(value))


def in_yaml(value: Any) -> str:
    """Return a value as one would write it in a parameter file."""
    if isinstance(value, tuple):
        return f"[{', '.join(value)}]"
    return str(value).lower() if isinstance(value, bool) else str(value) or '""'


def _text(value: Any, choices: tuple[str, ...]) -> str | None:
    if isinstance(value, bool):
        meant = [choice for choice in choices if choice in _BOOLEAN_WORDS[value]]
        return meant[0] if len(meant) == 1 else None
    if isinstance(value, int | float):
        return str(value)  # YAML reads the checkpoint 123 and the frame_id 7 as numbers
    return value if isinstance(value, str) and value not in _NULL_WORDS else None


def _boolean(value: Any) -> bool | None:
    word = value.strip().lower() if isinstance(value, str) else value
    for meaning, words in _BOOLEAN_WORDS.items():
        if word in words or (isinstance(word, int) and word == int(meaning)):
            return meaning
    return None


def _integer(value: Any) -> int | None:
    if isinstance(value, str):
        with suppress(ValueError):
            return int(value)
    number = _number(value)
    if number is None or not number.is_integer():
        return None
    return value if isinstance(value, int) else int(number)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    with suppress(ValueError, OverflowError):
        return float(value)
    return None


def _texts(value: Any) -> tuple[str, ...] | None:
    if isinstance(value, str):
        is_one_item = value and not set(value) & set(", []") and value not in _NULL_WORDS
        return (value,) if is_one_item else None
    is_list = isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
    return tuple(value) if is_list else None
