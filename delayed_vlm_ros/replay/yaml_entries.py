"""Read a YAML file with a list of entries, so that errors name the line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import yaml

from delayed_vlm_ros.errors import QuestionsError


def read_text(file: Path) -> str:
    """Return the text of a file.

    Raises:
        QuestionsError: The file cannot be read.
    """
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        remedy = "check the path, or create a file with --make-questions"
        raise QuestionsError(f"cannot read {file} ({error}): {remedy}") from error


def list_entries(text: str, name: str) -> list[yaml.Node]:
    """Return the nodes of the entries of a list.

    Args:
        text: Text of the file.
        name: Name of the file for error messages.

    Raises:
        QuestionsError: The text is not a list with at least one entry.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise QuestionsError(f"{name}{line}: invalid YAML ({error.problem or error.context})") from error
    except yaml.YAMLError as error:
        raise QuestionsError(f"{name}: invalid YAML ({error})") from error
    if not isinstance(root, yaml.SequenceNode):
        raise QuestionsError(f"{name}: expected a list of questions: start each with '- ' and an 'ask:'")
    if not root.value:
        raise QuestionsError(f"{name}: the list of questions is empty: add at least one")
    return list(root.value)


def has_key(node: yaml.Node, key: str) -> bool:
    """Return whether an entry has a key."""
    return isinstance(node, yaml.MappingNode) and any(one.value == key for one, _ in node.value)


def entry_fields(node: yaml.Node, name: str, keys: Sequence[str], required: str) -> dict[str, yaml.Node]:
    """Return the values of an entry by key.

    Args:
        node: Node of the entry.
        name: Name of the file for error messages.
        keys: Possible keys.
        required: The key that every entry has.

    Raises:
        QuestionsError: The entry is not a mapping, or has an unknown or a duplicate key, or lacks the required one.
    """
    if not isinstance(node, yaml.MappingNode):
        raise QuestionsError(f"{location(node, name)}: expected a question with '{required}:', got {shown(node)}")
    fields: dict[str, yaml.Node] = {}
    for key, value in node.value:
        if key.value not in keys:
            *others, last = keys
            raise QuestionsError(f"{location(key, name)}: unknown key {shown(key)}: use {', '.join(others)} and {last}")
        if key.value in fields:
            raise QuestionsError(f"{location(key, name)}: duplicate key '{key.value}' in this question")
        fields[key.value] = value
    if required not in fields:
        raise QuestionsError(f"{location(node, name)}: this question has no '{required}:'")
    return fields


def text_of(node: yaml.Node, name: str, field: str) -> str:
    """Return a scalar as written: an unquoted yes is text, not a boolean.

    Raises:
        QuestionsError: The node is not a scalar, or is empty.
    """
    if not isinstance(node, yaml.ScalarNode) or not node.value.strip():
        raise QuestionsError(f"{location(node, name)}: '{field}' is {shown(node)}: expected text")
    return str(node.value)


def seconds_of(node: yaml.Node, name: str, field: str, meaning: str) -> float:
    """Return a scalar as seconds, 0 or more.

    Args:
        node: Node of the value.
        name: Name of the file for error messages.
        field: Key of the value.
        meaning: What the seconds count, for error messages.

    Raises:
        QuestionsError: The node is not such a number.
    """
    try:
        seconds = float(node.value) if isinstance(node, yaml.ScalarNode) else math.nan
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds >= 0):
        raise QuestionsError(f"{location(node, name)}: '{field}' is {shown(node)}: expected {meaning}, 0 or more")
    return seconds


def location(node: yaml.Node, name: str) -> str:
    """Return the file and the line of a node."""
    return f"{name}, line {node.start_mark.line + 1}"


def shown(node: yaml.Node) -> str:
    """Return a node for error messages."""
    return f"'{node.value}'" if isinstance(node, yaml.ScalarNode) else f"a {node.id}"
