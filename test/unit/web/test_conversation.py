"""Questions on their way from the page: caps, rate, one at a time, stop."""

from __future__ import annotations

import pytest

from delayed_vlm_ros.errors import BadRequestError, BusyError
from delayed_vlm_ros.inference.progress import Progress, Stage
from delayed_vlm_ros.web.backend import AskOutcome, Question
from delayed_vlm_ros.web.conversation import Conversation


class Source:
    """Answers when the test says so."""

    def __init__(self):
        self.asked = []
        self.stopped = 0

    def ask(self, question, progress, ended):
        self.asked.append((question, progress, ended))
        return self

    def stop(self):
        self.stopped += 1

    def answer(self, text="a red box"):
        self.asked[-1][2](AskOutcome(answer=text))


@pytest.fixture
def source():
    return Source()


@pytest.fixture
def clock():
    return [100.0]


@pytest.fixture
def conversation(source, clock):
    return Conversation(source, max_characters=20, questions_per_minute=3, clock=lambda: clock[0])


def test_an_exchange_follows_its_answer(conversation, source):
    exchange = conversation.ask(Question("What is there?"))
    assert conversation.running is exchange
    source.asked[0][1](Progress(Stage.GENERATING, "a red"))
    assert exchange.progress.text == "a red"
    source.answer()
    assert exchange.outcome.answer == "a red box"
    assert conversation.running is None
    assert conversation.exchanges == (exchange,)


@pytest.mark.parametrize("text", ["", "  \n", "x" * 21])
def test_what_is_no_question_goes_nowhere(conversation, source, text):
    with pytest.raises(BadRequestError):
        conversation.ask(Question(text))
    assert source.asked == []
    assert conversation.exchanges == ()


def test_one_at_a_time(conversation, source):
    conversation.ask(Question("One?"))
    with pytest.raises(BusyError, match="not answered yet"):
        conversation.ask(Question("Two?"))
    assert len(source.asked) == 1


def test_so_many_within_a_minute(conversation, source, clock):
    for _ in range(3):
        conversation.ask(Question("Again?"))
        source.answer()
        clock[0] += 10
    with pytest.raises(BusyError, match="again in 30 s"):
        conversation.ask(Question("Again?"))
    clock[0] += 30.5
    conversation.ask(Question("Again?"))
    assert len(source.asked) == 4


def test_stop_is_passed_on(conversation, source):
    conversation.stop()
    exchange = conversation.ask(Question("What?"))
    conversation.stop()
    assert exchange.is_stopping
    assert source.stopped == 1
    source.answer()
    conversation.stop()
    assert source.stopped == 1


def test_it_remembers_a_bounded_number():
    source = Source()
    conversation = Conversation(source, max_characters=20, questions_per_minute=1000)
    for _ in range(100):
        conversation.ask(Question("What?"))
        source.answer()
    assert len(conversation.exchanges) == 40
    assert conversation.exchanges[-1].number == 100
