"""Deadline and cancellation of a question."""

from __future__ import annotations

import threading
import time

import pytest

from delayed_vlm_ros.errors import AskCancelledError, AskTimeoutError
from delayed_vlm_ros.inference.control import AskControl


def test_check_without_deadline_passes():
    # given
    control = AskControl()

    # then
    control.check()
    assert control.remaining() is None


def test_check_before_the_deadline_passes():
    # given
    control = AskControl(time.monotonic() + 60)

    # then
    control.check()
    assert 59 < control.remaining() <= 60


def test_check_after_the_deadline_raises():
    # given
    control = AskControl(time.monotonic() - 1)

    # then
    assert control.remaining() <= -1
    with pytest.raises(AskTimeoutError):
        control.check()


def test_deadline_may_be_set_later():
    # given
    control = AskControl()

    # when
    control.deadline = time.monotonic() - 1

    # then
    with pytest.raises(AskTimeoutError):
        control.check()


def test_cancel_from_another_thread_is_permanent_and_precedes_the_deadline():
    # given
    control = AskControl(time.monotonic() - 1)
    thread = threading.Thread(target=control.cancel)

    # when
    thread.start()
    thread.join()

    # then
    for _ in range(2):
        with pytest.raises(AskCancelledError):
            control.check()
