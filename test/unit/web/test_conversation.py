"""Questions from the page: length and rate limits, one at a time, stop."""

from __future__ import annotations

import pytest

from delayed_vlm_ros.errors import BadRequestError, BusyError
from delayed_vlm_ros.inference.progress import Progress, Stage
from delayed_vlm_ros.web.backend import AskOutcome, Question
from delayed_vlm_ros.web.conversation import Conversation


class FakeBackend:
    """Answers a question when the test calls ``answer``."""

    def __init__(self):
        self.asked = []
        self.stopped = 0

    def ask(self, question, on_progress, on_done):
        self.asked.append((question, on_progress, on_done))
        return self

    def stop(self):
        self.stopped += 1

    def report(self, progress):
        self.asked[-1][1](progress)

    def answer(self, text="a red box"):
        self.asked[-1][2](AskOutcome(answer=text))


@pytest.fixture
def backend():
    return FakeBackend()


@pytest.fixture
def clock():
    return [100.0]


@pytest.fixture
def conversation(backend, clock):
    return Conversation(backend, max_characters=20, questions_per_minute=3, clock=lambda: clock[0])


def test_exchange_follows_progress_and_result(conversation, backend):
    exchange = conversation.ask(Question("What is there?"))
    assert conversation.running is exchange
    backend.report(Progress(Stage.GENERATING, "a red"))
    assert exchange.progress.text == "a red"
    backend.answer()
    assert exchange.outcome.answer == "a red box"
    assert conversation.running is None
    assert conversation.exchanges == (exchange,)


@pytest.mark.parametrize("text", ["", "  \n", "x" * 21, "half \ud83d"])
def test_empty_long_or_broken_question_is_rejected(conversation, backend, text):
    with pytest.raises(BadRequestError):
        conversation.ask(Question(text))
    assert backend.asked == []
    assert conversation.exchanges == ()


def test_second_question_is_rejected_while_one_is_running(conversation, backend):
    conversation.ask(Question("One?"))
    with pytest.raises(BusyError):
        conversation.ask(Question("Two?"))
    assert len(backend.asked) == 1


def test_question_above_the_rate_limit_is_rejected_until_a_minute_has_passed(conversation, backend, clock):
    for _ in range(3):
        conversation.ask(Question("Again?"))
        backend.answer()
        clock[0] += 10
    with pytest.raises(BusyError, match="30 s"):
        conversation.ask(Question("Again?"))
    clock[0] += 30.5
    conversation.ask(Question("Again?"))
    assert len(backend.asked) == 4


def test_stop_reaches_the_running_question_only(conversation, backend):
    conversation.stop()
    exchange = conversation.ask(Question("What?"))
    conversation.stop()
    assert exchange.is_stopping
    assert backend.stopped == 1
    backend.answer()
    conversation.stop()
    assert backend.stopped == 1


def test_number_of_stored_exchanges_is_bounded(backend):
    conversation = Conversation(backend, max_characters=20, questions_per_minute=1000)
    for _ in range(100):
        conversation.ask(Question("What?"))
        backend.answer()
    assert len(conversation.exchanges) == 40
    assert conversation.exchanges[-1].number == 100
