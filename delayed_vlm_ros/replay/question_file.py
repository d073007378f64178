"""Questions to put to a recording, each at its time: the file they are written in."""

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
"""What it is called where it lies in a bag's folder."""

KINDS = ("backward", "live", "order")
"""About what has been, about what is to be seen now, about what came before what."""

_TEMPLATE = """\
# Questions to put to a recording, for 'delayed-vlm replay'. Each is asked when so much of the recording has been seen.
#
#   at:      seconds from the recording's first image; leave it out to ask at the end
#   ask:     the question, in plain words
#   expect:  the right answer, or a list of right answers; leave it out where nobody judges
#   kind:    backward (about what has been), live (about what is to be seen now) or order (what came before what)

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
    """A question to put to a recording.

    Attributes:
        ask: The question.
        at: When, in seconds from the recording's first image; None: at its end.
        expect: Right answers; empty where nobody judges.
        kind: One of ``KINDS``; empty where it was not said.
    """

    ask: str
    at: float | None = None
    expect: tuple[str, ...] = ()
    kind: str = ""

    @property
    def due(self) -> float:
        """When it is asked, with the end as infinity."""
        return math.inf if self.at is None else self.at


def template() -> str:
    """A file of questions with comments, to begin with."""
    return _TEMPLATE


def read_questions(file: Path) -> tuple[TimedQuestion, ...]:
    """Read a file of questions.

    Returns:
        Them in the order of their times.

    Raises:
        QuestionsError: It cannot be read, or something in it makes no sense; the line is named.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        remedy = "check the path, or write one with --make-questions"
        raise QuestionsError(f"{file} cannot be read ({error}): {remedy}") from error
    return parse_questions(text, str(file))


def parse_questions(text: str, name: str) -> tuple[TimedQuestion, ...]:
    """The same from text; ``name`` is what errors call it."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise QuestionsError(f"{name}{line}: {error.problem or error.context}: this is no YAML") from error
    except yaml.YAMLError as error:
        raise QuestionsError(f"{name}: this is no YAML ({error})") from error
    if not isinstance(root, yaml.SequenceNode):
        raise QuestionsError(f"{name}: expected a list of questions: each begins with '- ' and has an 'ask:'")
    if not root.value:
        raise QuestionsError(f"{name}: the list of questions is empty")
    questions = [_question(node, name) for node in root.value]
    return tuple(sorted(questions, key=lambda question: question.due))


def write_questions(file: Path, questions: Sequence[TimedQuestion]) -> None:
    """Write a file that ``read_questions`` reads.

    Raises:
        OSError: It cannot be written.
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
            raise QuestionsError(f"{line}: a question has at, ask, expect and kind, but no '{key.value}'")
        if key.value in fields:
            raise QuestionsError(f"{name}, line {key.start_mark.line + 1}: '{key.value}' stands twice in this question")
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
        raise QuestionsError(f"{wrong}: give seconds from the recording's first image, 0 or more")
    return at


def _expect(node: yaml.Node, name: str) -> tuple[str, ...]:
    answers = node.value if isinstance(node, yaml.SequenceNode) else [node]
    if not answers:
        raise QuestionsError(f"{name}, line {node.start_mark.line + 1}: 'expect' is an empty list: leave it out")
    return tuple(_text(answer, name, "expect") for answer in answers)


def _kind(node: yaml.Node, name: str) -> str:
    kind = _text(node, name, "kind")
    if kind not in KINDS:
        line = f"{name}, line {node.start_mark.line + 1}"
        raise QuestionsError(f"{line}: 'kind' is '{kind}': it must be one of {', '.join(KINDS)}")
    return kind


def _text(node: yaml.Node, name: str, field: str) -> str:
    """A scalar as it is written: a bare yes is the word, not a truth value."""
    if not isinstance(node, yaml.ScalarNode) or not node.value.strip():
        raise QuestionsError(f"{name}, line {node.start_mark.line + 1}: '{field}' is {_shown(node)}: give text")
    return str(node.value)


def _shown(node: yaml.Node) -> str:
    return f"'{node.value}'" if isinstance(node, yaml.ScalarNode) else f"a {node.id}"
