"""Found moments on the terminal."""

from __future__ import annotations

import io

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from delayed_vlm_ros.msg import Moment
from delayed_vlm_ros.srv import FindMoments
from rich.console import Console

from delayed_vlm_ros.cli import find, terminal

DIM = "\x1b[2m"


def test_line_of_the_journal_with_half_of_the_words_is_dim_and_not_counted(monkeypatch):
    response = FindMoments.Response(
        moments=[
            Moment(id=4, score=0.6, reason="key frame"),
            Moment(id=5, score=0.4, reason="other frame"),
            Moment(journal_id=7, score=1.0, caption="all words"),
            Moment(journal_id=8, score=0.5, caption="half of them"),
        ],
        pairs_searched=2,
        journal_lines_searched=9,
    )
    shown = Console(file=io.StringIO(), width=160, force_terminal=True)
    monkeypatch.setattr(terminal, "console", lambda: shown)
    find._show(response)
    lines = shown.file.getvalue().splitlines()
    assert [DIM in line for line in lines[1:5]] == [False, True, False, True]
    assert "2 moments fit; 2 key frames and 9 lines of the journal searched" in lines[5]
