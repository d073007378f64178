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
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        remedy = "check the path, or create a file with --make-questions"
        raise QuestionsError(f"cannot read {file} ({error}): {remedy}") from error
    return parse_questions(text, str(file))


def find_questions(recording: Path, file: Path | None = None) -> tuple[TimedQuestion, ...]:
    """Read the questions about a recording.

    Args:
        recording: Path of the recording.
        file: Question file; None reads ``questions.yaml`` in the recording's folder.

    Raises:
        QuestionsError: The file does not exist, cannot be read, or is invalid.
    """
    if file is not None:
        return read_questions(file)
    own = (recording if recording.is_dir() else recording.parent) / FILE_NAME
    if not own.is_file():
        raise QuestionsError(
            f"no questions about {recording} ({own} does not exist): name a file with --questions, or create one with "
            "'delayed-vlm replay --make-questions'"
        )
    return read_questions(own)


def parse_questions(text: str, name: str) -> tuple[TimedQuestion, ...]:
    """Parse the text of a question file; ``name`` is the file name for error messages."""
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
    questions = [_question(node, name) for node in root.value]
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
    where = f"{name}, line {node.start_mark.line + 1}"
    if not isinstance(node, yaml.MappingNode):
        raise QuestionsError(f"{where}: expected a question with 'ask:', got {_shown(node)}")
    fields: dict[str, yaml.Node] = {}
    for key, value in node.value:
        if key.value not in ("at", "ask", "expect", "kind"):
            line = f"{name}, line {key.start_mark.line + 1}"
            raise QuestionsError(f"{line}: unknown key '{key.value}': use at, ask, expect and kind")
        if key.value in fields:
            raise QuestionsError(
                f"{name}, line {key.start_mark.line + 1}: duplicate key '{key.value}' in this question"
            )
        fields[key.value] = value
    if "ask" not in fields:
        raise QuestionsError(f"{where}: this question has no 'ask:'")
    return TimedQuestion(
        ask=_ask(fields["ask"], name),
        at=_at(fields["at"], name) if "at" in fields else None,
        expect=_expect(fields["expect"], name) if "expect" in fields else (),
        kind=_kind(fields["kind"], name) if "kind" in fields else "",
    )


def _ask(node: yaml.Node, name: str) -> str:
    question = _text(node, name, "ask")
    try:
        check_request(AskRequest(question))
    except BadRequestError as error:
        raise QuestionsError(f"{name}, line {node.start_mark.line + 1}: {error}") from error
    return question


def _at(node: yaml.Node, name: str) -> float:
    try:
        at = float(node.value) if isinstance(node, yaml.ScalarNode) else math.nan
    except ValueError:
        at = math.nan
    if not (math.isfinite(at) and at >= 0):
        wrong = f"{name}, line {node.start_mark.line + 1}: 'at' is {_shown(node)}"
        raise QuestionsError(f"{wrong}: expected seconds from the recording's first image, 0 or more")
    return at


def _expect(node: yaml.Node, name: str) -> tuple[str, ...]:
    answers = node.value if isinstance(node, yaml.SequenceNode) else [node]
    if not answers:
        raise QuestionsError(f"{name}, line {node.start_mark.line + 1}: 'expect' is an empty list: omit it")
    return tuple(_text(answer, name, "expect") for answer in answers)


def _kind(node: yaml.Node, name: str) -> str:
    kind = _text(node, name, "kind")
    if kind not in KINDS:
        line = f"{name}, line {node.start_mark.line + 1}"
        raise QuestionsError(f"{line}: 'kind' must be one of {', '.join(KINDS)}, got '{kind}'")
    return kind


def _text(node: yaml.Node, name: str, field: str) -> str:
    """Return a scalar as written: an unquoted yes is text, not a boolean."""
    if not isinstance(node, yaml.ScalarNode) or not node.value.strip():
        raise QuestionsError(f"{name}, line {node.start_mark.line + 1}: '{field}' is {_shown(node)}: expected text")
    return str(node.value)


def _shown(node: yaml.Node) -> str:
    return f"'{node.value}'" if isinstance(node, yaml.ScalarNode) else f"a {node.id}"
