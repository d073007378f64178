"""Read and write ``questions.yaml``: questions about a recording, each with its time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from delayed_vlm_ros.errors import BadRequestError, QuestionsError
from delayed_vlm_ros.inference.request import AskRequest, check_request
from delayed_vlm_ros.replay.yaml_entries import (
    entry_fields,
    has_key,
    list_entries,
    location,
    read_text,
    seconds_of,
    text_of,
)

FILE_NAME = "questions.yaml"
"""Name of the file in a bag's folder."""

KINDS = ("backward", "live", "order")
"""Questions about the past, about the present, and about the order of events."""

_TEMPLATE = """\
# Questions about a recording, for 'delayed-vlm replay'. Each is asked when the replay reaches its time.
#
#   at:      seconds from the recording's first image; omit it to ask at the end
#   ask:     the question
#   expect:  the expected answer, or a list of accepted answers; omit it to leave the answer unscored
#   kind:    backward (about the past), live (about the present) or order (about the order of events)

- at: 12.5
  ask: What is on the table?
  expect: a red box
  kind: live

- at: 60
  ask: Did anyone come by?
  expect: ["yes", "yes, a person"]
  kind: backward

- ask: What happened?

# A watch is a yes/no question that is checked again and again; see docs/watches.md. Its settings have the names and
# defaults of the node's parameters.
#
#   watch:   the question
#   yes:     times from which and until which the answer is yes, in seconds; [] for never; omit it to leave it unscored

- watch: Is the door open?
  yes: [[12.0, 20.5], [31.0, 40.0]]
  last_sec: 5
  hold_sec: 2
"""


@dataclass(frozen=True)
class TimedQuestion:
    """A question about a recording.

    Attributes:
        ask: Question text.
        at: Time of the question, in seconds from the recording's first image; None for its end.
        expect: Accepted answers; empty if the answer is not scored.
        kind: One of ``KINDS``; empty if unknown.
    """

    ask: str
    at: float | None = None
    expect: tuple[str, ...] = ()
    kind: str = ""

    @property
    def due(self) -> float:
        """Time of the question in seconds; infinity for the end."""
        return math.inf if self.at is None else self.at


def template() -> str:
    """Return an example file with comments."""
    return _TEMPLATE


def read_questions(file: Path) -> tuple[TimedQuestion, ...]:
    """Read a question file.

    Returns:
        Questions in the order of their times.

    Raises:
        QuestionsError: The file cannot be read or is invalid; the message names the line.
    """
    return parse_questions(read_text(file), str(file))


def find_questions(recording: Path, file: Path | None = None) -> tuple[TimedQuestion, ...]:
    """Read the questions about a recording.

    Args:
        recording: Path of the recording.
        file: Question file; None reads ``questions.yaml`` in the recording's folder.

    Raises:
        QuestionsError: The file does not exist, cannot be read, or is invalid.
    """
    return read_questions(question_file(recording, file))


def question_file(recording: Path, file: Path | None = None) -> Path:
    """Return the question file of a recording.

    Args:
        recording: Path of the recording.
        file: Question file; None: ``questions.yaml`` in the recording's folder.

    Raises:
        QuestionsError: The recording's folder has no such file.
    """
    if file is not None:
        return file
    own = (recording if recording.is_dir() else recording.parent) / FILE_NAME
    if not own.is_file():
        raise QuestionsError(
            f"no questions about {recording} ({own} does not exist): name a file with --questions, or create one with "
            "'delayed-vlm replay --make-questions'"
        )
    return own


def parse_questions(text: str, name: str) -> tuple[TimedQuestion, ...]:
    """Parse the text of a question file; ``name`` is the file name for error messages. Watches are left out."""
    questions = [_question(node, name) for node in list_entries(text, name) if not has_key(node, "watch")]
    return tuple(sorted(questions, key=lambda question: question.due))


def write_questions(file: Path, questions: Sequence[TimedQuestion]) -> None:
    """Write a question file for ``read_questions``.

    Raises:
        OSError: The file cannot be written.
    """
    entries = []
    for question in questions:
        entry: dict[str, Any] = {} if question.at is None else {"at": question.at}
        entry["ask"] = question.ask
        if question.expect:
            entry["expect"] = question.expect[0] if len(question.expect) == 1 else list(question.expect)
        if question.kind:
            entry["kind"] = question.kind
        entries.append(entry)
    file.write_text(yaml.safe_dump(entries, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _question(node: yaml.Node, name: str) -> TimedQuestion:
    fields = entry_fields(node, name, ("at", "ask", "expect", "kind"), "ask")
    return TimedQuestion(
        ask=question_text(fields["ask"], name, "ask"),
        at=seconds_of(fields["at"], name, "at", "seconds from the recording's first image") if "at" in fields else None,
        expect=_expect(fields["expect"], name) if "expect" in fields else (),
        kind=_kind(fields["kind"], name) if "kind" in fields else "",
    )


def question_text(node: yaml.Node, name: str, field: str) -> str:
    """Return the text of a question.

    Args:
        node: Node of the text.
        name: Name of the file for error messages.
        field: Key of the text.

    Raises:
        QuestionsError: The node is not the text of a question.
    """
    question = text_of(node, name, field)
    try:
        check_request(AskRequest(question))
    except BadRequestError as error:
        raise QuestionsError(f"{location(node, name)}: {error}") from error
    return question


def _expect(node: yaml.Node, name: str) -> tuple[str, ...]:
    answers = node.value if isinstance(node, yaml.SequenceNode) else [node]
    if not answers:
        raise QuestionsError(f"{location(node, name)}: 'expect' is an empty list: omit it")
    return tuple(text_of(answer, name, "expect") for answer in answers)


def _kind(node: yaml.Node, name: str) -> str:
    kind = text_of(node, name, "kind")
    if kind not in KINDS:
        raise QuestionsError(f"{location(node, name)}: 'kind' must be one of {', '.join(KINDS)}, got '{kind}'")
    return kind
