"""How far an ask has come, from the worker's thread to the one that waits."""

from __future__ import annotations

import threading
import time

import pytest

from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.local.generation import whole_characters
from delayed_vlm_ros.inference.progress import Progress, ProgressFeed, Stage

PATIENCE = 10.0


def test_what_is_told_is_taken_once_in_order():
    # given
    feed = ProgressFeed()
    news = [Progress(Stage.ENCODING), Progress(Stage.GENERATING), Progress(Stage.GENERATING, "a", 1)]
    for progress in news:
        feed.report(progress)

    # then
    assert feed.take(PATIENCE) == news
    assert feed.take(0.0) == []


def test_no_text_is_wanted_until_the_last_one_is_taken():
    # given
    feed, control = ProgressFeed(), AskControl()
    assert not control.wants_text
    control.listener = feed
    assert control.wants_text

    # when / then
    control.report(Progress(Stage.GENERATING, "a", 1))
    assert not control.wants_text
    feed.take(PATIENCE)
    assert control.wants_text


@pytest.mark.parametrize("wake", [lambda feed: feed.report(Progress(Stage.ENCODING)), ProgressFeed.end])
def test_who_waits_is_woken(wake):
    # given
    feed, taken = ProgressFeed(), []
    thread = threading.Thread(target=lambda: taken.append(feed.take(PATIENCE)))
    thread.start()

    # when
    began = time.monotonic()
    wake(feed)
    thread.join(PATIENCE)

    # then
    assert len(taken) == 1
    assert time.monotonic() - began < PATIENCE


@pytest.mark.parametrize(
    ("decoded", "shown"),
    [("", ""), (" a red", "a red"), ("gr\ufffd", "gr"), ("grü \ufffd\ufffd", "grü"), ("a \ufffd b", "a \ufffd b")],
)
def test_half_characters_and_white_space_at_the_end_wait(decoded, shown):
    assert whole_characters(decoded) == shown
