"""Watches in a question file: settings, expected times, and errors with their line."""

import pytest

from delayed_vlm_ros.errors import QuestionsError
from delayed_vlm_ros.replay.question_file import TimedQuestion, parse_questions, template
from delayed_vlm_ros.replay.watch_file import TimedWatch, find_watches, parse_watches
from delayed_vlm_ros.watches import Gate, Watch


def test_watches_and_questions_share_a_file():
    text = """
- watch: Is the door open?
- {at: 3, ask: "Who came?"}
- watch: Is the box gone?
  name: box
  yes: [[12.0, 20.5], [31, 40]]
  last_sec: 0
  period_sec: 1
  gate: on_change
  threshold: 0.3
  yes_checks: 2
  of_checks: 3
  cooldown_sec: 5
- watch: Is it on fire?
  hold_sec: 3
  yes: []
"""
    assert parse_watches(text, "q.yaml") == (
        TimedWatch(Watch("watch 1", "Is the door open?")),
        TimedWatch(
            Watch(
                "box",
                "Is the box gone?",
                last_sec=0.0,
                period_sec=1.0,
                gate=Gate.ON_CHANGE,
                threshold=0.3,
                release=0.3,  # the default is above the threshold
                yes_checks=2,
                of_checks=3,
                cooldown_sec=5.0,
            ),
            ((12.0, 20.5), (31.0, 40.0)),
        ),
        TimedWatch(Watch("watch 3", "Is it on fire?", hold_sec=3.0), ()),
    )
    assert parse_questions(text, "q.yaml") == (TimedQuestion("Who came?", 3.0),)


def test_template_has_a_watch():
    (timed,) = parse_watches(template(), "template")
    assert timed.expect


def test_watches_of_a_recording_come_from_its_folder(tmp_path):
    (tmp_path / "questions.yaml").write_text("- watch: Is it dark?\n", encoding="utf-8")
    assert find_watches(tmp_path) == (TimedWatch(Watch("watch 1", "Is it dark?")),)
    with pytest.raises(QuestionsError, match="no questions about"):
        find_watches(tmp_path / "elsewhere" / "room.mp4")


@pytest.mark.parametrize(
    ("text", "line", "named"),
    [
        ("- watch: a\n  ask: b", 2, "unknown key 'ask': use watch, yes, name, gate"),
        ("- watch: a\n  once: true", 2, "unknown key 'once'"),
        ("- watch: a\n  camera: front", 2, "unknown key 'camera'"),
        ("- watch: a\n  watch: b", 2, "duplicate key 'watch'"),
        ("- watch: ''", 1, "'watch' is ''"),
        ("- watch: a\n  name: ''", 2, "'name' is ''"),
        ("- watch: a\n  name: b\n- watch: c\n  name: b", 3, "another watch is named 'b'"),
        ("- watch: a\n  name: watch 2\n- watch: c", 3, "another watch is named 'watch 2'"),
        ("- watch: a\n  period_sec: often", 2, "'period_sec' is 'often'"),
        ("- watch: a\n  period_sec: 0", 1, "'period_sec' must be 0.1 to 86400 seconds"),
        ("- watch: a\n  hold_sec: -1", 2, "'hold_sec' is '-1'"),
        ("- watch: a\n  threshold: .nan", 2, "'threshold' is '.nan'"),
        ("- watch: a\n  threshold: 1.5", 1, "'threshold' must be between 0 and 1"),
        ("- watch: a\n  release: 0.9", 1, "'release' not above 'threshold'"),
        ("- watch: a\n  yes_checks: 1.5", 2, "expected a whole number"),
        ("- watch: a\n  yes_checks: 3\n  of_checks: 2", 1, "not above 'of_checks'"),
        ("- watch: a\n  gate: always", 2, "every, on_change, on_event, got 'always'"),
        ("- watch: a\n  yes: 12", 2, "[from, until] in seconds, got '12'"),
        ("- watch: a\n  yes: [12, 20]", 2, "[from, until] in seconds, got '12' in it"),
        ("- watch: a\n  yes:\n  - [1, 2]\n  - [3]", 4, "got 1 numbers in it"),
        ("- watch: a\n  yes: [[1, x]]", 2, "'yes' is 'x'"),
        ("- watch: a\n  yes: [[1, .inf]]", 2, "'yes' is '.inf'"),
        ("- watch: a\n  yes: [[5, 2]]", 2, "ends at 2 s, before it begins at 5 s: swap them"),
        ("- watch: a\n  yes:\n  - [5, 9]\n  - [8, 12]", 4, "must not overlap"),
        ("- watch: a\n  yes:\n  - [5, 9]\n  - [1, 2]", 4, "ascending order"),
    ],
)
def test_error_names_file_line_and_remedy(text, line, named):
    with pytest.raises(QuestionsError) as caught:
        parse_watches(text, "q.yaml")
    message = str(caught.value)
    assert message.startswith(f"q.yaml, line {line}:"), message
    assert named in message
