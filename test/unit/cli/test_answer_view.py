"""Answers in the terminal: standing warnings once a session, warnings of an answer with it, costs on request."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from rich.console import Console
from rich.padding import Padding

from delayed_vlm_ros.cli.output import AnswerView, live_answer
from delayed_vlm_ros.cli.terminal import EscapingConsole

STANDING = "demo model, synthetic scenes only"
CUT = "answer cut at 128 tokens (max_new_tokens): ask for more tokens, or for a shorter answer"
METRICS = {
    "encoding_latency": 0.5,
    "time_to_first_token": 0.625,
    "total_latency": 1.5,
    "answer_tokens": 7,
    "frames_encoded": 4,
    "frames_reused": 6,
    "visual_tokens": 80,
    "kv_cache_length": 100,
    "kv_tokens_reused": 30,
    "exact": True,
    "warnings": [STANDING, CUT],
}


@pytest.fixture
def session():
    """Return a function that shows two answers, and returns the lines of the session."""

    def show(*, verbose=False):
        console = Console(file=io.StringIO(), width=40)
        view = AnswerView(console, verbose)
        view.show_standing([STANDING])
        for question in ("Who?", "Where?"):
            view.show_standing([STANDING])
            view.show(question, "a red [box]", METRICS)
        return console.file.getvalue().splitlines()

    return show


def test_standing_warning_is_shown_once_before_the_first_answer(session):
    lines = session()
    assert [line for line in lines if STANDING in line] == [lines[0]] == [f"warning: {STANDING}"]


def test_warning_of_an_answer_is_shown_with_each_answer(session):
    lines = session()
    assert lines[1:4] == ["Q: Who?", "A: a red [box]", f"   warning: {CUT}"]
    assert sum(CUT in line for line in lines) == 2


def test_costs_are_shown_on_request_only(session):
    assert not any("visual tokens" in line or "first token" in line for line in session())
    costs = [line for line in session(verbose=True) if "visual tokens" in line]
    assert len(costs) == 2
    assert "4 frames encoded in 0.500 s, 6 reused; 80 visual tokens, KV cache 100 (30 reused); exact: true" in costs[0]


def test_streamed_text_cannot_control_the_terminal():
    shown = io.StringIO()
    console = EscapingConsole(file=shown, force_terminal=True, width=100)
    with live_answer(console) as show:
        show(SimpleNamespace(text="a red \x1b]0;owned\x07\x9b2J box", stage=2))
    console.print(Padding("[dim]x\x1b[2Jy[/]", (0, 0, 0, 3)), highlight=False)
    assert "\x1b[1mA:" in shown.getvalue()  # the colours of the command itself stay
    assert "a red \\x1b]0;owned" in shown.getvalue()
    assert "x\\x1b[2Jy" in shown.getvalue()
    assert not any(sequence in shown.getvalue() for sequence in ("\x1b]", "\x07", "\x9b", "\x1b[2Jy"))
