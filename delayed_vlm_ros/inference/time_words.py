"""Time limits that a question states in English words: "in the last minute", "this morning", "since I left at 10:30".

This module finds the phrase that limits the time; dateparser reads the times of day, dates and durations in it. Words
about time that are not understood are reported, so that no limit is applied or left out silently.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from delayed_vlm_ros.dependencies import explained_imports
from delayed_vlm_ros.errors import BadRequestError
from delayed_vlm_ros.time import FIRST_DATE_SEC

NO_WORDS = "no time limit: the question has no words about time that are understood: all kept frames are used"

_AROUND_CLOCK = timedelta(minutes=5)
_AROUND_SHARE = 0.25  # of the time since the moment
_MIN_AROUND = timedelta(seconds=5)

_UNIT = r"(?:seconds?|secs?|s|minutes?|mins?|min|hours?|hrs?|h|days?|weeks?)\b"
_ONES = "(?:one|two|three|four|five|six|seven|eight|nine)"
_TEENS = "(?:ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|eighteen|nineteen)"
_TENS = rf"(?:twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety)(?:[ -]{_ONES})?"
_WHOLE = rf"(?:\d+(?:\.\d+)?|{_TENS}|{_TEENS}|{_ONES})"
_NUMBER = rf"(?:{_WHOLE}(?: and a half)?|half an?|half|an?)"
_SPAN = rf"{_NUMBER}[ -]?{_UNIT}(?: and {_NUMBER}[ -]?{_UNIT})*(?: and a half)?"
_ONE_UNIT = rf"{_UNIT}(?: and a half)?"
_CLOCK = r"(?:\d{1,2}:\d\d(?::\d\d)?(?: ?[ap]\.?m\b\.?)?|\d{1,2} ?[ap]\.?m\b\.?|\d{1,2} ?o'clock\b|noon\b|midnight\b)"
_WEEKDAY = r"(?:mon|tues|wednes|thurs|fri|satur|sun)day\b"
_DATE = rf"(?:today\b|yesterday\b|(?:last )?{_WEEKDAY}|\d{{4}}-\d\d-\d\d\b)"
_AT = r"(?:(?:at|around|about) )?"
_AGO = rf"{_SPAN} ago\b"
_MOMENT = rf"(?:{_AGO}|{_DATE},? {_AT}{_CLOCK}|{_CLOCK}(?: (?:on )?{_DATE})?)"
_PART = r"(?:morning|afternoon|evening|night)\b"
_DAY = rf"(?:this {_PART}|tonight\b|last night\b|{_DATE}(?: {_PART})?)"
# "at 9" means a time of day, unless a thing follows: "at 3 tables".
_BARE_HOUR = r"(?:1?\d|2[0-3])(?=$|[?.!,;]| (?:today|yesterday)\b)"
_LOOSE_MOMENT = rf"(?:{_MOMENT}|{_BARE_HOUR}(?: (?:today|yesterday)\b)?)"
# A number may begin earlier: "a hundred and five minutes ago", "1 1/2 hours ago".
_WHOLE_NUMBER = r"(?<!and )(?<!and a )(?<!hundred )(?<!/)(?<!\d )(?<!\d-)"
# A clause between the preposition and its time: "since I left at 10:30".
_CLAUSE = r"(?:[^?.!,;]{1,60}? (?:at|on) )?"

_HOURS = {"morning": (0, 12), "afternoon": (12, 18), "evening": (17, 24), "night": (18, 30)}
_LEFT_OVER = re.compile(
    rf"\b(?:{_CLOCK}|{_AGO}|{_DAY}|(?:few|couple of|some|several|next|coming) {_UNIT}|"
    rf"(?:last|past|previous) [^?.!,;]{{1,30}}? {_UNIT}|(?:between|from) \d{{1,2}} (?:and|to) \d{{1,2}}(?=$|[?.!,;])|"
    r"(?:since|until|till)\b|"
    r"recently\b|lately\b|earlier today\b)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class TimeWords:
    """What a question says about time.

    Attributes:
        since: Start of the time, in seconds; None: unbounded.
        until: End of the time, in seconds; None: unbounded.
        words: The phrases that are understood, as in the question; empty: no limit.
        unread: Further words about time, which set no limit.
        text: What was understood, for people: ``'in the last minute': from 14:19:00 to now``; empty without limits.
    """

    since: float | None = None
    until: float | None = None
    words: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    text: str = ""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What limits the meaning of an answer, one sentence each."""
        if self.unread:
            unread = ", ".join(f"'{words}'" for words in self.unread)
            return (f"words about time not understood ({unread}): set since, until or last_sec",)
        return () if self.words else (NO_WORDS,)


class _Limits(NamedTuple):
    """A part of the past, in local time; None: unbounded."""

    since: datetime | None
    until: datetime | None
    needs_date: bool = True


@dataclass(frozen=True, slots=True)
class _Phrase:
    """Words of a text with their limits."""

    words: str
    start: int
    since: datetime | None
    until: datetime | None
    needs_date: bool


def read_time_words(question: str, now: float) -> TimeWords:
    """Return the time limits that a question states.

    Args:
        question: Text of the question, in English.
        now: Present time on the clock of the stamps, in seconds since 1970; times of day are in the local time zone.

    Raises:
        BadRequestError: The words contradict one another, or need a date while the clock is that of a simulation.
        DependencyError: dateparser is not installed.
    """
    text = _normalized(question)
    try:
        phrases = _find(text, datetime.fromtimestamp(now))
        unread = _left_over(text, phrases)
        return _combined(phrases, unread, now) if phrases else TimeWords(unread=unread)
    except (OverflowError, OSError, ValueError) as error:  # years that the calendar lacks
        raise BadRequestError(
            f"cannot read the times in the question ({error}): set since, until or last_sec"
        ) from error


def _combined(phrases: Sequence[_Phrase], unread: tuple[str, ...], now: float) -> TimeWords:
    for phrase in phrases:
        if phrase.needs_date and now < FIRST_DATE_SEC:
            raise BadRequestError(
                f"'{phrase.words}' needs a date, but the clock of the stamps shows {now:.1f} s: set last_sec, since or "
                "until"
            )
    since = max((phrase.since for phrase in phrases if phrase.since is not None), default=None)
    until = min((phrase.until for phrase in phrases if phrase.until is not None), default=None)
    quoted = " and ".join(f"'{phrase.words}'" for phrase in phrases)
    if until is not None and (until.timestamp() <= 0 or (since is not None and since >= until)):
        raise BadRequestError(f"{quoted}: no time lies within these limits: set since and until")
    if since is not None and since.timestamp() > now:
        raise BadRequestError(f"{quoted} is in the future: set since and until")
    return TimeWords(
        None if since is None else max(0.0, since.timestamp()),
        None if until is None else until.timestamp(),
        tuple(phrase.words for phrase in phrases),
        unread,
        f"{quoted}: {_describe(since, until, now)}",
    )


def _normalized(question: str) -> str:
    return re.sub(r"\s+", " ", question.replace("\u2019", "'"))


def _find(text: str, now: datetime) -> list[_Phrase]:
    """Return the phrases of a text, in order; each word belongs to one phrase at most."""
    found: dict[tuple[int, int], _Phrase] = {}
    for pattern, limits_of in _PATTERNS:
        for match in pattern.finditer(text):
            if not any(match.start() < end and start < match.end() for start, end in found):
                found[match.span()] = _Phrase(match[0], match.start(), *limits_of(match, now))
    return [found[span] for span in sorted(found)]


def _left_over(text: str, phrases: Sequence[_Phrase]) -> tuple[str, ...]:
    """Return the words about time that belong to no phrase."""
    for phrase in phrases:
        end = phrase.start + len(phrase.words)
        text = text[: phrase.start] + "|" * len(phrase.words) + text[end:]
    return tuple(match[0].strip() for match in _LEFT_OVER.finditer(text))


def _last(match: re.Match[str], now: datetime) -> _Limits:
    span = match["span"].lower()
    has_number = re.match(_SPAN, span) is not None
    return _Limits(_before(now, span if has_number else f"1 {span}"), None, needs_date=False)


def _between(match: re.Match[str], now: datetime) -> _Limits:
    first, second = _moment(match["first"], now), _moment(match["second"], now)
    if first > second:  # "between 11 pm and 1 am", seen at noon: the first one is of the day before
        first -= timedelta(days=1)
    return _Limits(first, second, _needs_date(match["first"]) or _needs_date(match["second"]))


def _since(match: re.Match[str], now: datetime) -> _Limits:
    return _Limits(_start(match["moment"], now), None, _needs_date(match["moment"]))


def _until(match: re.Match[str], now: datetime) -> _Limits:
    return _Limits(None, _start(match["moment"], now), _needs_date(match["moment"]))


def _around(match: re.Match[str], now: datetime) -> _Limits:
    moment = _moment(match["moment"], now)
    needs_date = _needs_date(match["moment"])
    tolerance = _AROUND_CLOCK if needs_date else max((now - moment) * _AROUND_SHARE, _MIN_AROUND)
    return _Limits(moment - tolerance, moment + tolerance, needs_date)


def _during(match: re.Match[str], now: datetime) -> _Limits:
    return _day(match["day"], now)


def _start(words: str, now: datetime) -> datetime:
    if re.fullmatch(_DAY, words, re.IGNORECASE):
        since = _day(words, now).since
        assert since is not None  # noqa: S101  for the type checker: a day has a start
        return since
    return _moment(words, now)


def _day(words: str, now: datetime) -> _Limits:
    words = words.lower()
    part = words.rpartition(" ")[2]
    if words == "tonight":
        words, part = "today", "night"
    elif words == "last night":
        words, part = "yesterday", "night"
    elif words.startswith("this "):
        words = "today"
    date = (
        now if words.startswith("today") else _parse(words.removesuffix(f" {part}") if part in _HOURS else words, now)
    )
    midnight = date.replace(hour=0, minute=0, second=0, microsecond=0)
    first, last = _HOURS.get(part, (0, 24))
    start, end = midnight + timedelta(hours=first), midnight + timedelta(hours=last)
    return _Limits(start, end if end < now else None)


def _needs_date(words: str) -> bool:
    return not words.lower().endswith("ago")


def _moment(words: str, now: datetime) -> datetime:
    words = words.lower()
    if words.endswith("ago"):
        return _before(now, words.removesuffix(" ago"))
    words = re.sub(r" ?o'clock", ":00", words)
    words = re.sub(r"(?<![:\d-])(\d{1,2})(?=$| (?:today|yesterday)$)", r"\1:00", words)
    return _parse(re.sub(r",|\b(?:at|around|about|on) ", "", words), now)


def _before(now: datetime, duration: str) -> datetime:
    noon = datetime(2000, 1, 3, 12)
    words = re.sub(rf"({_WHOLE}) and a half ({_UNIT})", r"\1 \2 and half \2", duration)
    words = re.sub(rf"({_UNIT}) and a half$", r"\1 and half \1", words)
    words = re.sub(r"\bhalf (?:an? )?", "0.5 ", words).replace("-", " ")
    parts = (noon - _parse(f"{part} ago", noon) for part in words.split(" and "))
    span = sum(parts, start=timedelta())
    # Not a difference of local times: the clock may have changed to summer time.
    return datetime.fromtimestamp(now.timestamp() - span.total_seconds())


def _parse(words: str, now: datetime) -> datetime:
    with explained_imports():
        import dateparser  # noqa: PLC0415  optional
    settings = {"RELATIVE_BASE": now, "PREFER_DATES_FROM": "past"}
    parsed: datetime | None = dateparser.parse(words, languages=["en"], settings=settings)
    if parsed is None:
        raise BadRequestError(f"cannot read the time '{words}': set since, until or last_sec")
    return parsed


def _describe(since: datetime | None, until: datetime | None, now: float) -> str:
    today = datetime.fromtimestamp(now).date()

    def clock(moment: datetime) -> str:
        return f"{moment:%H:%M:%S}" if moment.date() == today else f"{moment:%Y-%m-%d %H:%M:%S}"

    start = "the start" if since is None else clock(since)
    return f"from {start} to {'now' if until is None else clock(until)}"


_Reader = Callable[["re.Match[str]", datetime], _Limits]

_FORMS: tuple[tuple[str, _Reader], ...] = (
    (rf"(?:(?:in|during|over|within|for) )?(?:the )?(?:last|past|previous) (?P<span>{_SPAN}|{_ONE_UNIT})", _last),
    (rf"(?:between|from) (?P<first>{_MOMENT}) (?:and|to|until|till) (?P<second>{_LOOSE_MOMENT})", _between),
    (rf"(?:since|after) {_CLAUSE}(?P<moment>{_MOMENT}|{_DAY})", _since),
    (rf"since {_CLAUSE}(?P<moment>{_LOOSE_MOMENT})", _since),
    (rf"(?:until|till|before) {_CLAUSE}(?P<moment>{_LOOSE_MOMENT}|{_DAY})", _until),
    (rf"(?:at|around|about|near) (?P<moment>{_LOOSE_MOMENT})", _around),
    (rf"{_WHOLE_NUMBER}(?P<moment>{_MOMENT})", _around),
    (rf"(?:(?:on|during) )?(?P<day>{_DAY})", _during),
)
# A word belongs to the first form that takes it: the longer forms come first.
_PATTERNS = tuple((re.compile(rf"\b{form}", re.IGNORECASE), reader) for form, reader in _FORMS)
