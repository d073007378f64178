"""Time limits in the words of a question: what is understood, what is reported, and what is refused."""

import sys
import time
from datetime import datetime, timedelta

import numpy as np
import pytest

from delayed_vlm_ros.errors import BadRequestError, DependencyError, NoFramesError
from delayed_vlm_ros.inference.request import AskRequest, select_frames
from delayed_vlm_ros.inference.time_words import NO_WORDS, read_time_words
from delayed_vlm_ros.memory import SmartFrameManager

NOW = datetime(2026, 11, 30, 14, 20)  # a Monday


@pytest.fixture(autouse=True)
def berlin(monkeypatch):
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def read(question, now=NOW):
    return read_time_words(question, now.timestamp())


def limits(question):
    """Return the limits in local time, as ``day hour:minute:second``."""
    words = read(question)
    assert words.unread == ()
    return tuple(
        None if stamp is None else f"{datetime.fromtimestamp(stamp):%d %H:%M:%S}"
        for stamp in (words.since, words.until)
    )


@pytest.mark.parametrize(
    ("question", "since", "until"),
    [
        ("What happened in the last minute?", "30 14:19:00", None),
        ("Who came by in the last 5 minutes?", "30 14:15:00", None),
        ("Did a person come by in the past half hour?", "30 13:50:00", None),
        ("Anything in the last twenty-five minutes?", "30 13:55:00", None),
        ("What has changed in the last 1.5 hours?", "30 12:50:00", None),
        ("Who was here within the last hour and 30 minutes?", "30 13:20:00", None),
        ("What changed since 10 minutes ago?", "30 14:10:00", None),
        ("What changed since I left at 10:30?", "30 10:30:00", None),
        ("What changed since 16:00?", "29 16:00:00", None),
        ("What did you see after 1 pm?", "30 13:00:00", None),
        ("Was there a cup before 9 am?", None, "30 09:00:00"),
        ("Who was here before noon?", None, "30 12:00:00"),
        ("Who came since yesterday until 9 am?", "29 00:00:00", "30 09:00:00"),
        ("Did anyone come between 10 am and 11?", "30 10:00:00", "30 11:00:00"),
        ("What changed since 9?", "30 09:00:00", None),
        ("Who was here two and a half hours ago?", "30 11:12:30", "30 12:27:30"),
        ("Who was here an hour and a half ago?", "30 12:27:30", "30 13:12:30"),
        ("Who was here in the last hour and a half?", "30 12:50:00", None),
        ("Did the door open from 9:00 to 9:30?", "30 09:00:00", "30 09:30:00"),
        ("Who came between 11 pm and 1 am?", "29 23:00:00", "30 01:00:00"),
        ("Was the light on between 14:00 and 14:10 yesterday?", "29 14:00:00", "29 14:10:00"),
        ("What happened at 9?", "30 08:55:00", "30 09:05:00"),
        ("What was there at 10 o\u2019clock?", "30 09:55:00", "30 10:05:00"),
        ("Was it there at 2026-11-29 10:00?", "29 09:55:00", "29 10:05:00"),
        ("Where was it yesterday at 5pm?", "29 16:55:00", "29 17:05:00"),
        ("Was there a red box two hours ago?", "30 11:50:00", "30 12:50:00"),
        ("What happened 8 seconds ago?", "30 14:19:47", "30 14:19:57"),
        ("Was anybody here this morning?", "30 00:00:00", "30 12:00:00"),
        ("Did anyone come by this afternoon?", "30 12:00:00", None),
        ("What happened last night?", "29 18:00:00", "30 06:00:00"),
        ("How many people have you seen today?", "30 00:00:00", None),
        ("Who was here yesterday?", "29 00:00:00", "30 00:00:00"),
        ("What was on the table yesterday evening?", "29 17:00:00", "30 00:00:00"),
        ("What happened on Monday?", "23 00:00:00", "24 00:00:00"),
        ("What happened on Sunday morning?", "29 00:00:00", "29 12:00:00"),
        ("What happened this morning at 9?", "30 08:55:00", "30 09:05:00"),
    ],
)
def test_words_about_time_become_limits(question, since, until):
    assert limits(question) == (since, until)
    assert limits(question.upper()) == (since, until)


@pytest.mark.parametrize(
    "question",
    [
        "Where is the second box?",
        "What may be in the room now?",
        "What did you see first?",
        "What was there at the start?",
        "Is there a box on the 3rd shelf?",
        "Are there 2 boxes at 3 tables?",
        "Is the man in the march outfit here?",
        "What was there before the person came?",
        "Which of the last 3 boxes is red?",
        "What is on tables 1 and 2?",
        "Were there between 2 and 3 people?",
        "What is between the two chairs?",
        "Was the sun shining from 2 sides?",
    ],
)
def test_other_words_set_no_limit_and_the_answer_says_so(question):
    words = read(question)
    assert (words.since, words.until, words.text, words.unread) == (None, None, "", ())
    assert words.warnings == (NO_WORDS,)


@pytest.mark.parametrize(
    ("question", "unread"),
    [
        ("What happened recently?", "recently"),
        ("Did anyone come between 10 and 11?", "between 10 and 11"),
        ("Did the number of boxes go from 3 to 4?", "from 3 to 4"),
        ("Who was here a hundred and five minutes ago?", "five minutes ago"),
        ("Who was here 1 1/2 hours ago?", "2 hours ago"),
        ("Who was here in the last 2 1/2 hours?", "last 2 1/2 hours"),
        ("What happened a few minutes ago?", "few minutes"),
        ("Who came since lunch?", "since"),
        ("Who came since lunch today?", "since"),
    ],
)
def test_words_that_are_not_understood_are_reported(question, unread):
    (warning,) = read(question).warnings
    assert f"'{unread}'" in warning


def test_understood_words_are_quoted_with_their_limits():
    assert read("What changed since I left at 10:30?").text == "'since I left at 10:30': from 10:30:00 to now"
    assert read("Who was here yesterday?").text == ("'yesterday': from 2026-11-29 00:00:00 to 00:00:00")
    assert read("Who was here before noon?").text == "'before noon': from the start to 12:00:00"


@pytest.mark.parametrize(
    "question",
    [
        "Who came after 11:00 and before 10:00?",
        "Who comes tonight?",
        "Who came on 2026-12-24?",
        "at 2026-99-99?",
        "since 0001-01-01?",
        "before 1960-01-01?",
        "99999999999 days ago",
    ],
)
def test_limits_that_cannot_hold_are_refused(question):
    with pytest.raises(BadRequestError, match="since"):
        read(question)


def test_simulated_clock_has_durations_only():
    assert read_time_words("What happened in the last 10 seconds?", 100.0).since == 90.0
    assert read_time_words("What happened in the last minute?", 5.0).since == 0.0
    for question in ("What happened this morning?", "What changed since 10:30?", "What happened at noon?"):
        with pytest.raises(BadRequestError, match=r"5\.0 s"):
            read_time_words(question, 5.0)


def test_durations_are_exact_when_summer_time_ends():
    now = datetime(2026, 10, 25, 3, 30).timestamp()  # an hour after 3:00 became 2:00
    assert now - read_time_words("What happened in the last 2 hours?", now).since == timedelta(hours=2).total_seconds()


def test_error_of_a_time_without_frames_names_the_words():
    memory = SmartFrameManager(4, 4)
    for number in range(4):
        memory.add(np.full((8, 8, 3), number, np.uint8), NOW.timestamp() - 10 + number)
    words = read("Who came yesterday?")
    request = AskRequest("Who came yesterday?", since=words.since, until=words.until, time_words=words)
    with pytest.raises(NoFramesError, match="'yesterday': from 2026-11-29"):
        select_frames(memory.snapshot(), request)


def test_missing_parser_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "dateparser", None)
    with pytest.raises(DependencyError, match=r"dateparser.*\[time\]"):
        read("What happened at 10:30?")
