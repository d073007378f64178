"""Captions of pairs that left the memory: their turn, their limits, and what happens when the model fails."""

import contextlib
import threading
from dataclasses import replace

import numpy as np
import pytest
from fake_metrics import metrics_of_scores

from delayed_vlm_ros.errors import (
    AskCancelledError,
    AskTimeoutError,
    DeviceMemoryError,
    ModelNotReadyError,
    NonFiniteError,
    ServerError,
)
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.request import AskRequest, AskResult
from delayed_vlm_ros.journal.captioner import MAX_CAPTION_SEC, MAX_DUTY, MAX_TOKENS, MAX_WAITING, Captioner
from delayed_vlm_ros.memory import FramePair, SmartFrameManager

QUESTION = "What do you see?"


def pairs(count):
    """Return kept pairs."""
    memory = SmartFrameManager(0, 2 * count)
    for number in range(2 * count):
        memory.add(np.full((28, 28, 3), number, np.uint8), float(number + 1))
    return memory.snapshot()


class FakeEngine:
    """Answers after some seconds of a clock, or fails."""

    def __init__(self):
        self.now = 100.0
        self.seconds = 0.5
        self.failures = []
        self.asked = []
        self.answer_text = "a red box"
        self.metrics = metrics_of_scores()
        self.meanwhile = lambda: None
        self.is_refused = False

    def answer(self, request, control=None, *, frames=None):
        self.asked.append((request, control, frames))
        self.now += self.seconds
        self.meanwhile()
        if self.failures:
            raise self.failures.pop(0)
        return AskResult(self.answer_text, self.metrics, frames, is_refused=self.is_refused)


@pytest.fixture
def engine():
    return FakeEngine()


@pytest.fixture
def captioned():
    return []


@pytest.fixture
def captioner(engine, captioned):
    return Captioner(QUESTION, captioned.append, steady=lambda: engine.now)


def offer(captioner, count, camera="front"):
    offered = pairs(count)
    for kept in offered:
        captioner.offer(camera, kept)
    return offered


def work(captioner, engine, *, after=1000.0):
    """Work once, after a pause."""
    engine.now += after
    return captioner.work({"front": engine, "rear": engine}, AskControl())


def test_pairs_get_captions_in_the_order_in_which_they_left(captioner, engine, captioned):
    first, second = offer(captioner, 2)
    assert [work(captioner, engine) for _ in range(3)] == [True, True, False]
    assert [(one.camera, one.kept, one.caption) for one in captioned] == [
        ("front", first, "a red box"),
        ("front", second, "a red box"),
    ]
    request, control, frames = engine.asked[0]
    assert 0 < control.remaining() <= MAX_CAPTION_SEC
    assert (request, frames) == (AskRequest(QUESTION, max_new_tokens=MAX_TOKENS), (first,))
    counts = captioner.counts
    assert (counts.waiting, counts.captioned, counts.dropped, counts.error) == (0, 2, 0, "")
    assert counts.device_sec == pytest.approx(1.0)


def test_engine_of_the_pair_s_camera_is_asked(captioner, engine):
    other = FakeEngine()
    offer(captioner, 1, "rear")
    captioner.work({"front": engine, "rear": other}, AskControl())
    assert (len(engine.asked), len(other.asked)) == (0, 1)


@pytest.mark.parametrize(
    ("answer", "reason", "caption"),
    [
        (" a box\n  and\ta ball. ", "stop", "a box and a ball."),
        ("a person carries a", "length", "a person carries a …"),
        ("and and and", "repetition", "and and and …"),
        ("", "stop", ""),
        (" \n", "length", ""),
    ],
)
def test_caption_is_one_line_and_shows_that_it_was_cut(captioner, engine, captioned, answer, reason, caption):
    engine.answer_text, engine.metrics = answer, replace(engine.metrics, finish_reason=reason)
    offer(captioner, 1)
    work(captioner, engine)
    assert [one.caption for one in captioned] == [caption]


def test_captions_take_at_most_their_share_of_the_device_s_time(captioner, engine):
    # given more pairs than can be captioned, and a model that needs 0.5 s
    start = engine.now
    for _ in range(2000):
        if captioner.counts.waiting < 5:
            offer(captioner, 5)
        captioner.work({"front": engine}, AskControl())
        engine.now += 0.1
    share = captioner.counts.device_sec / (engine.now - start)
    assert MAX_DUTY - 0.01 < share <= MAX_DUTY


def test_least_important_and_then_oldest_waiting_pairs_are_dropped_and_counted(captioner, engine, captioned):
    # given ordinary pairs, and one that shows an event
    event, *ordinary = (
        replace(kept, pair=FramePair(kept.id, replace(kept.pair.first, importance=0.1), None), deferred_score=score)
        for kept, score in zip(pairs(MAX_WAITING + 3), [0.9] + [0.0] * MAX_WAITING + [0.5, 0.0], strict=True)
    )
    for kept in (event, *ordinary):
        captioner.offer("front", kept)
    assert (captioner.counts.waiting, captioner.counts.dropped) == (MAX_WAITING, 3)
    for _ in range(MAX_WAITING):
        work(captioner, engine)
    assert [one.kept for one in captioned] == [event, *ordinary[3:]]


def test_model_is_needed_when_many_pairs_wait(captioner):
    offer(captioner, MAX_WAITING // 2 - 1)
    assert not captioner.needs_model
    offer(captioner, 1)
    assert captioner.needs_model


def test_question_cancels_a_caption_which_is_tried_again(captioner, engine, captioned):
    first, _ = offer(captioner, 2)
    for _ in range(5):  # however often
        engine.failures = [AskCancelledError("a question came")]
        with pytest.raises(AskCancelledError):
            work(captioner, engine)
    assert captioner.counts.waiting == 2
    assert captioner.counts.error == ""
    assert captioner.counts.device_sec == pytest.approx(2.5)
    work(captioner, engine)
    assert [one.kept for one in captioned] == [first]


@pytest.mark.parametrize("error", [DeviceMemoryError("out of memory"), MemoryError()])
def test_shortage_of_memory_reaches_the_worker_and_the_pair_waits(captioner, engine, captioned, error):
    (kept,) = offer(captioner, 1)
    engine.failures = [error]
    with pytest.raises(type(error)):
        work(captioner, engine)
    assert (captioner.counts.waiting, captioner.counts.error) == (1, str(error) or "MemoryError")
    assert work(captioner, engine)
    assert ([one.kept for one in captioned], captioner.counts.error) == ([kept], "")


@pytest.mark.parametrize("error", [ServerError("refused"), ModelNotReadyError("the server is away")])
def test_pair_waits_while_the_model_server_is_away(captioner, engine, captioned, error):
    (kept,) = offer(captioner, 1)
    engine.failures = [error] * 20
    for _ in range(20):
        assert work(captioner, engine)
        assert captioner.counts.error == str(error)
    assert work(captioner, engine)
    assert ([one.kept for one in captioned], captioner.counts.dropped) == ([kept], 0)


def test_pair_waits_while_the_model_server_hangs_and_the_timeouts_are_no_device_time(captioner, engine, captioned):
    # given a server that hangs for the longest time of a caption, again and again
    (kept,) = offer(captioner, 1)
    engine.failures, engine.seconds = [AskTimeoutError("hangs")] * 5, MAX_CAPTION_SEC
    for _ in range(5):
        engine.now += 11.0  # no rest of nine times as long
        assert captioner.work({"front": engine}, AskControl(), uses_server=True)
        assert captioner.counts.error == "hangs"
    assert (captioner.counts.waiting, captioner.counts.dropped, captioner.counts.device_sec) == (1, 0, 0.0)

    # when it is back
    engine.seconds = 0.5
    engine.now += 11.0
    assert captioner.work({"front": engine}, AskControl(), uses_server=True)
    assert ([one.kept for one in captioned], captioner.counts.device_sec) == ([kept], 0.5)


def test_timeouts_of_a_model_on_this_machine_are_device_time(captioner, engine):
    offer(captioner, 1)
    engine.failures, engine.seconds = [AskTimeoutError("slow")], MAX_CAPTION_SEC
    assert work(captioner, engine)
    assert captioner.counts.device_sec == MAX_CAPTION_SEC
    assert not work(captioner, engine, after=MAX_CAPTION_SEC * 8)


@pytest.mark.parametrize("error", [NonFiniteError("NaN"), KeyError("defect"), AskTimeoutError("hangs")])
def test_pair_that_the_model_cannot_read_is_dropped_after_three_attempts(captioner, engine, captioned, error):
    _, second = offer(captioner, 2)
    engine.failures = [error] * 3
    for _ in range(4):
        assert work(captioner, engine)
    assert [one.kept for one in captioned] == [second]
    assert (captioner.counts.waiting, captioner.counts.dropped) == (0, 1)


def test_failure_pauses_captions(captioner, engine):
    engine.seconds = 0.001
    offer(captioner, 2)
    engine.failures = [ServerError("refused")]
    assert work(captioner, engine)
    assert not work(captioner, engine, after=9.0)
    assert work(captioner, engine, after=2.0)


def test_warnings_of_the_model_are_reported(captioner, engine):
    engine.metrics = replace(engine.metrics, warnings=("demo model, synthetic scenes only",))
    offer(captioner, 1)
    work(captioner, engine)
    assert captioner.counts.warnings == ("demo model, synthetic scenes only",)


def test_refusal_of_unknown_images_is_no_caption_but_an_error(captioner, engine, captioned):
    offer(captioner, 2)
    engine.is_refused, engine.answer_text = True, "I know only synthetic scenes."
    assert work(captioner, engine)
    assert captioned == []
    counts = captioner.counts
    assert (counts.captioned, counts.dropped, counts.waiting) == (0, 1, 1)
    assert counts.error == "no caption: I know only synthetic scenes."
    engine.is_refused = False
    assert work(captioner, engine)
    assert (len(captioned), captioner.counts.error) == (1, "")


@pytest.mark.parametrize("failure", [None, AskCancelledError("cancelled"), NonFiniteError("NaN")])
def test_clear_also_drops_the_pair_at_work(captioner, engine, captioned, failure):
    offer(captioner, 3)
    engine.failures = [failure] if failure else []
    engine.meanwhile = captioner.clear
    with contextlib.suppress(AskCancelledError):
        work(captioner, engine)
    assert captioned == []
    assert captioner.counts.waiting == 0
    engine.meanwhile = lambda: None
    offer(captioner, 1)
    work(captioner, engine)
    assert len(captioned) == 1


def test_no_caption_follows_a_clear_that_has_returned(engine):
    # given a clear while a caption is handed over
    events = []

    def clear():
        captioner.clear()
        events.append("cleared")

    clearing = threading.Thread(target=clear)

    def hand_over(_):
        clearing.start()
        clearing.join(0.2)
        events.append("handed over")

    captioner = Captioner(QUESTION, hand_over, steady=lambda: engine.now)
    offer(captioner, 1)
    assert work(captioner, engine)
    clearing.join(10.0)
    assert events == ["handed over", "cleared"]


def test_pairs_may_leave_the_memory_while_the_model_works(captioner, engine):
    offered = pairs(MAX_WAITING)

    def leave():
        thread = threading.Thread(target=lambda: [captioner.offer("front", kept) for kept in offered])
        thread.start()
        thread.join(5.0)
        assert not thread.is_alive()

    engine.meanwhile = leave
    captioner.offer("front", offered[0])
    engine.failures = [AskCancelledError("cancelled")]
    with pytest.raises(AskCancelledError):
        work(captioner, engine)
    assert (captioner.counts.waiting, captioner.counts.dropped) == (MAX_WAITING, 1)
