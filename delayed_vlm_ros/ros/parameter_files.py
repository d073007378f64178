"""Keys of ROS parameter files: the nodes that they select, and keys that select no node.

ROS ignores the parameters of a key that selects another node, without a message: in namespace ``/robot1`` the key
``scene_memory`` selects ``/scene_memory``, not ``/robot1/scene_memory``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

_PARAMETERS = "ros__parameters"
_WILDCARDS = {"*": r"/[^/]+", "**": r"(?:/[^/]+)*"}
_SIMILARITY = 0.75  # of the names of two nodes, for difflib
_MAX_SHOWN = 4


def unused_key_warnings(arguments: Sequence[str], node: str) -> list[str]:
    """Return a warning for each parameter file and ``-p`` argument whose parameters for a node are not used.

    Args:
        arguments: Command line of the node's process.
        node: Full name of the node, such as ``/robot1/scene_memory``.
    """
    warnings = []
    for path in _values_of(arguments, "--params-file"):
        missed = _missed_keys(_keys_of_file(path), node)
        if missed:
            warnings.append(_warning(f"parameter file {path}", missed, node))
    for rule in _values_of(arguments, "-p", "--param"):
        name = rule.partition(":=")[0].rpartition(":")[0]
        if name and not selects(name, node):
            warnings.append(_warning(f"argument -p {rule}", [name], node))
    return warnings


def selects(key: str, node: str) -> bool:
    """Return whether a key with the wildcards ``*`` and ``**`` selects a node by its full name."""
    tokens = [token for token in key.split("/") if token]
    pattern = "".join(_WILDCARDS.get(token, "/" + re.escape(token)) for token in tokens)
    return re.fullmatch(pattern, node) is not None


def with_namespace(text: str, node: str, namespace: str) -> str:
    """Return a parameter file's text with the key of a node changed to its full name, as nav2's launch files do.

    Only a key that is the node's plain name is changed; all else is kept to the letter.

    Args:
        text: Contents of the file.
        node: Plain name of the node, such as ``scene_memory``.
        namespace: Namespace of the node; empty: the text is returned unchanged.

    Raises:
        yaml.YAMLError: The text is not YAML.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    groups = [part for part in namespace.split("/") if part]
    if not groups or not isinstance(root, yaml.MappingNode):
        return text
    for key, _ in reversed(root.value):
        if str(key.value).strip("/") == node:
            full_name = "/".join(["", *groups, node])
            text = text[: key.start_mark.index] + full_name + text[key.end_mark.index :]
    return text


def _values_of(arguments: Sequence[str], *options: str) -> Iterator[str]:
    """Yield the values of an option within ``--ros-args``."""
    for option, value in zip(_ros_arguments(arguments), _ros_arguments(arguments)[1:], strict=False):
        if option in options:
            yield value


def _ros_arguments(arguments: Sequence[str]) -> list[str]:
    found: list[str] = []
    is_inside = False
    for argument in arguments:
        is_inside = argument != "--" and (is_inside or argument == "--ros-args")
        if is_inside:
            found.append(argument)
    return found


def _keys_of_file(path: str) -> list[str]:
    """Return the keys of a parameter file; empty for a file that ROS has refused anyway."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        # Only the keys matter: values stay text, also 2001-99-99, which is not a valid date.
        return list(_keys(yaml.load(text, Loader=yaml.BaseLoader)))  # noqa: S506  it makes no objects
    except (OSError, UnicodeError, yaml.YAMLError):
        return []


def _keys(content: Any, prefix: str = "") -> Iterator[str]:
    for key, value in content.items() if isinstance(content, dict) else ():
        if key == _PARAMETERS:
            yield prefix
        else:
            yield from _keys(value, f"{prefix}/{str(key).strip('/')}")


def _missed_keys(keys: Sequence[str], node: str) -> list[str]:
    """Return the keys that seem to be meant for a node but do not select it."""
    used = [key for key in keys if selects(key, node)]
    if any(not key.endswith("*") for key in used):
        return []  # parameters of its own, and those of other robots' nodes
    name = node.rpartition("/")[2]
    others = [key for key in keys if key not in used]
    return [key for key in others if _is_similar(key.rpartition("/")[2], name)]


def _is_similar(name: str, other: str) -> bool:
    return difflib.SequenceMatcher(None, name, other).ratio() >= _SIMILARITY


def _warning(source: str, missed: Sequence[str], node: str) -> str:
    shown = ", ".join(missed[:_MAX_SHOWN]) + (", …" if len(missed) > _MAX_SHOWN else "")
    return f"{source}: the parameters for {shown} are not used, because this node is {node}: use the key {node} or /**"
