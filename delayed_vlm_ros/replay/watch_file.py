"""Read the watches in a question file: standing questions about a recording, with the times at which they are true."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from delayed_vlm_ros.errors import BadRequestError, QuestionsError
from delayed_vlm_ros.replay.question_file import question_file, question_text
from delayed_vlm_ros.replay.yaml_entries import (
    entry_fields,
    has_key,
    list_entries,
    location,
    read_text,
    seconds_of,
    shown,
    text_of,
)
from delayed_vlm_ros.watches import Gate, Watch, check_watch

NUMBERS = ("last_sec", "period_sec", "threshold", "release", "hold_sec", "cooldown_sec")
COUNTS = ("yes_checks", "of_checks")
KEYS = ("watch", "yes", "name", "gate", *NUMBERS, *COUNTS)
"""Keys of a watch."""

_TIMES_ARE = "'yes' must be a list of times [from, until] in seconds"


@dataclass(frozen=True)
class TimedWatch:
    """A standing question about a recording.

    Attributes:
        watch: The question and its settings.
        expect: Times from which and until which the answer is yes, in seconds from the recording's first image,
            ascending; empty: never; None: not known.
    """

    watch: Watch
    expect: tuple[tuple[float, float], ...] | None = None


def find_watches(recording: Path, file: Path | None = None) -> tuple[TimedWatch, ...]:
    """Read the watches of a recording from its question file.

    Args:
        recording: Path of the recording.
        file: Question file; None reads ``questions.yaml`` in the recording's folder.

    Raises:
        QuestionsError: The file does not exist, cannot be read, or is invalid.
    """
    path = question_file(recording, file)
    return parse_watches(read_text(path), str(path))


def parse_watches(text: str, name: str) -> tuple[TimedWatch, ...]:
    """Return the watches in the text of a question file; questions are left out.

    Args:
        text: Text of the file.
        name: Name of the file for error messages.

    Raises:
        QuestionsError: The text is invalid; the message names the line.
    """
    watches: dict[str, TimedWatch] = {}
    for node in list_entries(text, name):
        if not has_key(node, "watch"):
            continue
        timed = _timed_watch(node, name, f"watch {len(watches) + 1}")
        if timed.watch.name in watches:
            raise QuestionsError(
                f"{location(node, name)}: another watch is named '{timed.watch.name}': give each a 'name' of its own"
            )
        watches[timed.watch.name] = timed
    return tuple(watches.values())


def _timed_watch(node: yaml.Node, name: str, default_name: str) -> TimedWatch:
    fields = entry_fields(node, name, KEYS, "watch")
    settings: dict[str, Any] = {"question": question_text(fields["watch"], name, "watch")}
    settings |= {key: seconds_of(fields[key], name, key, "a number") for key in NUMBERS if key in fields}
    settings |= {key: _count(fields[key], name, key) for key in COUNTS if key in fields}
    if "gate" in fields:
        settings["gate"] = _gate(fields["gate"], name)
    if "threshold" in settings:
        settings.setdefault("release", min(Watch.release, settings["threshold"]))
    watch = Watch(text_of(fields["name"], name, "name") if "name" in fields else default_name, **settings)
    try:
        check_watch(watch)
    except BadRequestError as error:
        raise QuestionsError(f"{location(node, name)}: {error}") from error
    return TimedWatch(watch, _times(fields["yes"], name) if "yes" in fields else None)


def _count(node: yaml.Node, name: str, field: str) -> int:
    count = seconds_of(node, name, field, "a whole number")
    if not count.is_integer():
        raise QuestionsError(f"{location(node, name)}: '{field}' is {shown(node)}: expected a whole number, 0 or more")
    return int(count)


def _gate(node: yaml.Node, name: str) -> Gate:
    gate = text_of(node, name, "gate")
    if gate not in {one.value for one in Gate}:
        choices = ", ".join(one.value for one in Gate)
        raise QuestionsError(f"{location(node, name)}: 'gate' must be one of {choices}, got '{gate}'")
    return Gate(gate)


def _times(node: yaml.Node, name: str) -> tuple[tuple[float, float], ...]:
    if not isinstance(node, yaml.SequenceNode):
        raise QuestionsError(f"{location(node, name)}: {_TIMES_ARE}, got {shown(node)}")
    times = tuple(_time(one, name) for one in node.value)
    for number, (earlier, later) in enumerate(pairwise(times), start=1):
        if later[0] <= earlier[1]:
            raise QuestionsError(
                f"{location(node.value[number], name)}: 'yes' has {list(later)} after {list(earlier)}: times must "
                "be in ascending order and must not overlap"
            )
    return times


def _time(node: yaml.Node, name: str) -> tuple[float, float]:
    limits = node.value if isinstance(node, yaml.SequenceNode) else []
    if len(limits) != 2:  # noqa: PLR2004  from and until
        raise QuestionsError(f"{location(node, name)}: {_TIMES_ARE}, got {_described(node)} in it")
    begin, end = (seconds_of(limit, name, "yes", "seconds from the recording's first image") for limit in limits)
    if not begin < end:
        raise QuestionsError(
            f"{location(node, name)}: 'yes' ends at {end:g} s, before it begins at {begin:g} s: swap them"
        )
    return begin, end


def _described(node: yaml.Node) -> str:
    return f"{len(node.value)} numbers" if isinstance(node, yaml.SequenceNode) else shown(node)
