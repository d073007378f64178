"""Progress of a question, from the worker's thread to the client."""

from __future__ import annotations

import threading
import time

import pytest

from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.local.generation import whole_characters
from delayed_vlm_ros.inference.progress import TEXT_PERIOD_SEC, Progress, ProgressFeed, Stage, ThrottledListener

PATIENCE = 10.0


def test_feed_returns_reports_once_in_order():
    # given
    feed = ProgressFeed()
    reports = [Progress(Stage.ENCODING), Progress(Stage.GENERATING), Progress(Stage.GENERATING, "a", 1)]
    for progress in reports:
        feed.report(progress)

    # then
    assert feed.take(PATIENCE) == reports
    assert feed.take(0.0) == []


def test_feed_wants_no_text_until_the_last_report_is_taken():
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


@pytest.mark.parametrize("timeout_sec", [PATIENCE, None])
@pytest.mark.parametrize("wake", [lambda feed: feed.report(Progress(Stage.ENCODING)), ProgressFeed.close])
def test_report_and_close_wake_the_reader(wake, timeout_sec):
    # given
    feed, taken = ProgressFeed(), []
    thread = threading.Thread(target=lambda: taken.append(feed.take(timeout_sec)))
    thread.start()

    # when
    began = time.monotonic()
    wake(feed)
    thread.join(PATIENCE)

    # then
    assert len(taken) == 1
    assert time.monotonic() - began < PATIENCE


def test_throttled_listener_passes_on_every_stage_and_wants_text_after_a_period():
    # given
    reports = []
    listener = ThrottledListener(reports.append)
    stages = [Progress(Stage.ENCODING), Progress(Stage.GENERATING)]

    # when / then
    for stage in stages:
        listener.report(stage)
    assert listener.wants_text
    text = Progress(Stage.GENERATING, "a", 1)
    listener.report(text)
    assert not listener.wants_text
    assert reports == [*stages, text]
    time.sleep(TEXT_PERIOD_SEC)
    assert listener.wants_text


def test_cancelled_question_reports_no_progress():
    reports, control = [], AskControl()
    control.listener = ThrottledListener(reports.append)
    control.cancel()
    control.report(Progress(Stage.ENCODING))
    assert reports == []


@pytest.mark.parametrize(
    ("decoded", "shown"),
    [("", ""), (" a red", "a red"), ("gr\ufffd", "gr"), ("grü \ufffd\ufffd", "grü"), ("a \ufffd b", "a \ufffd b")],
)
def test_whole_characters_omits_incomplete_characters_and_outer_white_space(decoded, shown):
    assert whole_characters(decoded) == shown
