"""Files of questions: what they may say, and what is said about an error in them."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delayed_vlm_ros.errors import QuestionsError
from delayed_vlm_ros.replay.question_file import (
    KINDS,
    TimedQuestion,
    parse_questions,
    read_questions,
    template,
    write_questions,
)


def test_questions_come_in_the_order_of_their_times():
    questions = parse_questions(
        """
- ask: What happened?
- {at: 12.5, ask: "Who came?", expect: [nobody, "no one"], kind: backward}
- at: 3
  ask: Is there a box?
  expect: yes
  kind: live
""",
        "q.yaml",
    )
    assert questions == (
        TimedQuestion("Is there a box?", 3.0, ("yes",), "live"),
        TimedQuestion("Who came?", 12.5, ("nobody", "no one"), "backward"),
        TimedQuestion("What happened?"),
    )


def test_the_template_is_a_file_of_questions():
    assert {question.kind for question in parse_questions(template(), "template")} <= {*KINDS, ""}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "q.yaml: expected a list of questions"),
        ("ask: What?", "q.yaml: expected a list of questions"),
        ("[]", "the list of questions is empty"),
        ("- at: 1\n- ask: a", "q.yaml, line 1: this question has no 'ask:'"),
        ("- ask: a\n- ask: b\n  at: soon", "q.yaml, line 3: 'at' is 'soon': give seconds"),
        ("- ask: a\n  at: -1", "line 2: 'at' is '-1': give seconds from the recording's first image, 0 or more"),
        ("- ask: a\n  at: [1]", "line 2: 'at' is a sequence"),
        ("- ask: a\n  at: .nan", "line 2: 'at' is '.nan'"),
        ("- ask: a\n\n  when: 3", "line 3: a question has at, ask, expect and kind, but no 'when'"),
        ("- ask: a\n  ask: b", "line 2: 'ask' stands twice"),
        ("- ask: ''", "line 1: 'ask' is '': give text"),
        ("- ask: [a]", "line 1: 'ask' is a sequence: give text"),
        ("- ask: a\n  kind: past", "line 2: 'kind' is 'past': it must be one of backward, live, order"),
        ("- ask: a\n  expect: []", "line 2: 'expect' is an empty list"),
        ("- ask: a\n  expect: {a: b}", "line 2: 'expect' is a mapping: give text"),
        ("- what is it?", "line 1: expected a question with 'ask:', got 'what is it?'"),
        ("- ask: a\n  at: 'x\n", "line 3.*this is no YAML"),
        ("- ask: a\n\tat: 3", "line 2.*this is no YAML"),
        ("- ? [a]\n  : b", "line 1: a question has at, ask, expect and kind"),
    ],
)
def test_an_error_names_its_line(text, expected):
    with pytest.raises(QuestionsError, match=expected.replace("[", r"\[").replace("?", r"\?")):
        parse_questions(text, "q.yaml")


def test_a_file_that_cannot_be_read_is_said_to_be_so(tmp_path):
    with pytest.raises(QuestionsError, match=r"cannot be read .*--make-questions"):
        read_questions(tmp_path / "nothing.yaml")
    (tmp_path / "image.yaml").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(QuestionsError, match="cannot be read"):
        read_questions(tmp_path / "image.yaml")


@given(st.text(max_size=200))
def test_no_text_whatever_causes_another_error(text):
    with suppress(QuestionsError):
        parse_questions(text, "q.yaml")


words = st.text(st.characters(categories=["L", "N", "P", "Zs"]), min_size=1, max_size=30).filter(str.strip)
timed = st.builds(
    TimedQuestion,
    ask=words,
    at=st.none() | st.floats(0, 1e6),
    expect=st.lists(words, max_size=3).map(tuple),
    kind=st.sampled_from(["", *KINDS]),
)


@given(st.lists(timed, min_size=1, max_size=5))
def test_what_is_written_is_read_again(tmp_path_factory, questions):
    file = tmp_path_factory.mktemp("questions") / "q.yaml"
    write_questions(file, questions)
    assert read_questions(file) == tuple(sorted(questions, key=lambda question: question.due))
