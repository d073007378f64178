"""Deadline and cancellation of an ask."""

from __future__ import annotations

import threading
import time

import pytest

from delayed_vlm_ros.errors import AskCancelledError, AskTimeoutError
from delayed_vlm_ros.inference.control import AskControl


def test_without_deadline_it_goes_on():
    # given
    control = AskControl()

    # then
    control.check()
    assert control.remaining() is None


def test_deadline_in_the_future():
    # given
    control = AskControl(time.monotonic() + 60)

    # then
    control.check()
    assert 59 < control.remaining() <= 60


def test_deadline_that_has_passed():
    # given
    control = AskControl(time.monotonic() - 1)

    # then
    assert control.remaining() <= -1
    with pytest.raises(AskTimeoutError, match="allow more time, fewer tokens or fewer frames"):
        control.check()


def test_deadline_may_be_set_later():
    # given
    control = AskControl()

    # when
    control.deadline = time.monotonic() - 1

    # then
    with pytest.raises(AskTimeoutError):
        control.check()


def test_cancelled_from_another_thread_for_good():
    # given
    control = AskControl(time.monotonic() - 1)  # cancelled is the more telling of the two
    thread = threading.Thread(target=control.cancel)

    # when
    thread.start()
    thread.join()

    # then
    for _ in range(2):
        with pytest.raises(AskCancelledError, match="was cancelled before its answer was complete"):
            control.check()
