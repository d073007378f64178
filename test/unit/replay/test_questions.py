"""Question files: content, order, and errors with their line."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delayed_vlm_ros.errors import QuestionsError
from delayed_vlm_ros.replay.question_file import (
    KINDS,
    TimedQuestion,
    find_questions,
    parse_questions,
    read_questions,
    template,
    write_questions,
)


def test_questions_are_ordered_by_time():
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


def test_template_is_a_valid_question_file():
    assert {question.kind for question in parse_questions(template(), "template")} <= {*KINDS, ""}


@pytest.mark.parametrize(
    ("text", "line", "named"),
    [
        ("", None, ""),
        ("ask: What?", None, ""),
        ("[]", None, ""),
        ("- at: 1\n- ask: a", 1, "'ask:'"),
        ("- ask: a\n- ask: b\n  at: soon", 3, "'at' is 'soon'"),
        ("- ask: a\n  at: -1", 2, "'at' is '-1'"),
        ("- ask: a\n  at: [1]", 2, "'at' is a sequence"),
        ("- ask: a\n  at: .nan", 2, "'at' is '.nan'"),
        ("- ask: a\n\n  when: 3", 3, "'when'"),
        ("- ask: a\n  ask: b", 2, "'ask'"),
        ("- ask: ''", 1, "'ask' is ''"),
        ("- ask: [a]", 1, "'ask' is a sequence"),
        ("- ask: a\n  kind: past", 2, "backward, live, order, got 'past'"),
        ("- ask: a\n  expect: []", 2, "'expect'"),
        ("- ask: a\n  expect: {a: b}", 2, "'expect' is a mapping"),
        ("- what is it?", 1, "'what is it?'"),
        ("- ask: a\n  at: 'x\n", 3, "YAML"),
        ("- ask: a\n\tat: 3", 2, "YAML"),
        ("- ? [a]\n  : b", 1, "at, ask, expect and kind"),
    ],
)
def test_error_names_file_line_and_key(text, line, named):
    with pytest.raises(QuestionsError) as caught:
        parse_questions(text, "q.yaml")
    message = str(caught.value)
    assert message.startswith("q.yaml:" if line is None else f"q.yaml, line {line}:")
    assert named in message


def test_unreadable_file_raises_an_error_with_its_name(tmp_path):
    (tmp_path / "image.yaml").write_bytes(b"\xff\xd8\xff\xe0")
    for name in ("missing.yaml", "image.yaml"):
        with pytest.raises(QuestionsError) as caught:
            read_questions(tmp_path / name)
        assert name in str(caught.value)


def test_recording_without_question_file_raises_an_error_with_its_name(tmp_path):
    with pytest.raises(QuestionsError) as caught:
        find_questions(tmp_path / "room.mp4")
    assert "room.mp4" in str(caught.value)


def test_question_file_is_found_in_the_folder_of_the_recording(tmp_path):
    write_questions(tmp_path / "questions.yaml", [TimedQuestion("own?")])
    write_questions(tmp_path / "other.yaml", [TimedQuestion("other?")])
    (tmp_path / "bag.mcap").touch()
    assert find_questions(tmp_path) == find_questions(tmp_path / "bag.mcap") == (TimedQuestion("own?"),)
    assert find_questions(tmp_path, tmp_path / "other.yaml") == (TimedQuestion("other?"),)


@given(st.text(max_size=200))
def test_any_text_raises_no_other_error(text):
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
def test_written_questions_are_read_back(tmp_path_factory, questions):
    file = tmp_path_factory.mktemp("questions") / "q.yaml"
    write_questions(file, questions)
    assert read_questions(file) == tuple(sorted(questions, key=lambda question: question.due))
