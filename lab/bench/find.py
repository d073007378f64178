"""Search for moments over hours of synthetic rooms: which described events are among the first moments found.

Images pass through the memory; the search then asks the model. An event is a visit of an object, as in
``watched_rooms``. It is *kept* if a kept pair shows the object clearly in both images, and *in the journal* if no such
pair is kept but a caption of an evicted one is. It is *found* if one of the first moments has a pair of the event.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine
from delayed_vlm_ros.inference.moments import (
    DEFAULT_MAX_MOMENTS,
    FITS,
    FoundMoments,
    Moment,
    find_moments,
    questions_of,
)
from delayed_vlm_ros.inference.request import AskRequest
from delayed_vlm_ros.inference.yes_no import ScoreResult
from delayed_vlm_ros.journal import JournalEntry, JournalStore
from delayed_vlm_ros.journal.grouping import LINES_PER_MOMENT, ShownSpan, group_lines, without_shown
from delayed_vlm_ros.memory import KeptPair, Snapshot
from delayed_vlm_ros.scenes import render
from delayed_vlm_ros.scenes.sprites import COLOURS, PERSON
from delayed_vlm_ros.time import NANOSECONDS_PER_SECOND, seconds_of
from lab.bench.asked_scenes import bootstrap_weights
from lab.bench.watched_rooms import IMAGE_SIZE, Visit, WatchedObject, draw_room

SEARCH, NEWEST, IMPORTANT, RANDOM, JOURNAL = "search", "newest", "most important", "random", "journal"
METHODS = (SEARCH, NEWEST, IMPORTANT, RANDOM)
"""Orders of the kept pairs: this project's, and three that do not know the description."""

_CAPTION_QUESTION = "What do you see?"
_CAPTION_TOKENS = 64
_CAMERA = "camera"
_ROWS, _BYTES = 100_000, 512_000_000


@dataclass(frozen=True)
class FindPlan:
    """Streams and sizes of the memory.

    Attributes:
        room: One of ``watched_rooms.ROOMS``.
        minutes: Length of a stream in minutes.
        star_frames: Frames in Star memory.
        stream_frames: Frames in Stream memory.
        has_journal: Whether evicted pairs of Star memory get captions.
    """

    room: str
    minutes: float
    star_frames: int
    stream_frames: int
    has_journal: bool


@dataclass(frozen=True)
class DescriptionGrade:
    """Outcome of one description in one stream.

    Attributes:
        kind: ``object``, ``shape``, ``colour`` or ``person``: what it names.
        kept_events: Events that are kept.
        journal_events: Events that are in the journal only.
        found: Events among the first moments, by method; of ``JOURNAL`` those of the journal only.
        fitting: Moments that fit, among the first ones.
        right: Those whose best pair shows the object, at least partly.
    """

    kind: str
    kept_events: int
    journal_events: int
    found: dict[str, int]
    fitting: int
    right: int


@dataclass(frozen=True)
class StreamGrade:
    """Outcome of one stream.

    Attributes:
        descriptions: Outcome of each description.
        pairs: Kept pairs.
        search_sec: Processor time of one search, in seconds.
        lines: Lines of the journal.
        caption_sec: Device time of all captions, in seconds.
        hours: Length of the stream in hours.
    """

    descriptions: tuple[DescriptionGrade, ...]
    pairs: int
    search_sec: float
    lines: int
    caption_sec: float
    hours: float


def search_room(engine: DelayedBatchInferenceEngine, seed: int, plan: FindPlan, folder: Path) -> StreamGrade:
    """Return the outcome of all descriptions in the stream of a seed.

    Args:
        engine: Engine with the model; its memory is not used.
        seed: Seed of the stream.
        plan: Streams and sizes.
        folder: Empty folder for the journal.
    """
    room = draw_room(seed, plan.room, plan.minutes)
    own = DelayedBatchInferenceEngine(
        engine.model, engine.processor, star_memory_size=plan.star_frames, stream_window_size=plan.stream_frames
    )
    journal = _Journal(own, folder) if plan.has_journal else None
    for stamp in room.stamps:
        own.add_frame(render(room.scene, stamp, *IMAGE_SIZE), stamp)
        if journal is not None:
            journal.write()
    snapshot = own.snapshot()
    descriptions = {one.wanted: describe(one.wanted) for one in room.watched}
    search_sec = _search_sec(own, snapshot, next(iter(descriptions.values())))
    shared = _SharedWindows(own, [one for text in descriptions.values() for one in questions_of(text)])
    orders = _orders(snapshot, seed)
    grades = tuple(
        _grade(watched, find_moments(shared, snapshot, descriptions[watched.wanted]), snapshot, orders, journal)
        for watched in room.watched
    )
    return StreamGrade(
        grades,
        len(snapshot),
        search_sec,
        journal.lines if journal else 0,
        journal.caption_sec if journal else 0.0,
        plan.minutes / 60.0,
    )


class _Journal:
    """Captions of pairs that leave Star memory, and the time they take."""

    def __init__(self, engine: DelayedBatchInferenceEngine, folder: Path) -> None:
        self._engine = engine
        self._store = JournalStore(folder, max_rows=_ROWS, max_bytes=_BYTES)
        self._evicted: list[KeptPair] = []
        self._stamps: list[tuple[float, float]] = []
        self.caption_sec = 0.0
        engine.frame_manager.set_eviction_listener(self._evicted.append)

    @property
    def lines(self) -> int:
        return len(self._stamps)

    def write(self) -> None:
        for kept in self._evicted:
            started = time.process_time()
            request = AskRequest(_CAPTION_QUESTION, max_new_tokens=_CAPTION_TOKENS)
            caption = self._engine.answer(request, frames=(kept,)).answer
            self.caption_sec += time.process_time() - started
            first_ns, last_ns = (round(stamp * NANOSECONDS_PER_SECOND) for stamp in kept.stamps)
            self._store.add(JournalEntry(0, _CAMERA, "", first_ns, last_ns, kept.id, caption))
            self._stamps.append(kept.stamps)
        self._evicted.clear()

    def shows(self, watched: WatchedObject, visit: Visit) -> bool:
        return any(_shows(watched, visit, stamps) for stamps in self._stamps)

    def search(self, description: str, shown: Sequence[Moment]) -> list[tuple[float, float]]:
        """Return the spans of the first moments that the found key frames do not show, as ``~/find_moments`` does."""
        lines = self._store.search(description, limit=LINES_PER_MOMENT * DEFAULT_MAX_MOMENTS)
        spans = [ShownSpan(_CAMERA, *(round(at * NANOSECONDS_PER_SECOND) for at in one.stamps)) for one in shown]
        moments = group_lines(without_shown(lines, spans), DEFAULT_MAX_MOMENTS)
        return [(seconds_of(one.stamp_ns), seconds_of(one.end_stamp_ns)) for one in moments]


class _SharedWindows:
    """An engine that asks all questions of a stream about a window together, so that the window is encoded once."""

    def __init__(self, engine: DelayedBatchInferenceEngine, questions: Sequence[str]) -> None:
        self._engine = engine
        self._questions = tuple(questions)
        self._known: dict[tuple[int, ...], ScoreResult] = {}

    def score(self, questions: Sequence[str], *, frames: Snapshot, control: AskControl) -> ScoreResult:
        ids = tuple(kept.id for kept in frames)
        if ids not in self._known:
            self._known[ids] = self._engine.score(self._questions, frames=frames, control=control)
        known = self._known[ids]
        scores = tuple(known.scores[self._questions.index(one)] for one in questions)
        return ScoreResult(scores, frames, known.metrics)


def _search_sec(engine: DelayedBatchInferenceEngine, snapshot: Snapshot, description: str) -> float:
    """Return the processor time of one search over pairs with cached features."""
    engine.precompute(prefill=False)
    started = time.process_time()
    find_moments(engine, snapshot, description)
    return time.process_time() - started


def describe(wanted: str) -> str:
    """Return the description of objects.

    Args:
        wanted: Words of their names: a colour, a shape, both, or ``person``.
    """
    if wanted == PERSON:
        return "anyone"  # as in the questions that the embedded model knows
    thing = f"{wanted} object" if wanted in COLOURS else wanted
    return f"{'an' if thing[0] in 'aeiou' else 'a'} {thing}"


def _words(wanted: str) -> str:
    """Return the description for captions, which call people persons."""
    return wanted if wanted == PERSON else describe(wanted)


def _orders(snapshot: Snapshot, seed: int) -> dict[str, Sequence[KeptPair]]:
    random = np.random.default_rng([seed, 24])
    return {
        NEWEST: snapshot[::-1],
        IMPORTANT: sorted(snapshot, key=lambda kept: -kept.importance),
        RANDOM: [snapshot[index] for index in random.permutation(len(snapshot))],
    }


def _grade(
    watched: WatchedObject,
    result: FoundMoments,
    snapshot: Snapshot,
    orders: dict[str, Sequence[KeptPair]],
    journal: _Journal | None,
) -> DescriptionGrade:
    kept = [visit for visit in watched.visits if any(_shows(watched, visit, pair.stamps) for pair in snapshot)]
    gone = [visit for visit in watched.visits if visit not in kept and journal and journal.shows(watched, visit)]
    first = {SEARCH: [pair.stamps for moment in result.moments for pair in moment.pairs]}
    first |= {name: [pair.stamps for pair in order[:DEFAULT_MAX_MOMENTS]] for name, order in orders.items()}
    found = {name: _found(kept, stamps) for name, stamps in first.items()}
    fitting = [moment for moment in result.moments if moment.score >= FITS]
    if journal is not None:
        found[JOURNAL] = _found(gone, journal.search(_words(watched.wanted), fitting))
    right = sum(any(watched.truths[stamp] is not False for stamp in moment.best.stamps) for moment in fitting)
    return DescriptionGrade(_kind(watched.wanted), _countable(kept), _countable(gone), found, len(fitting), right)


def _shows(watched: WatchedObject, visit: Visit, stamps: tuple[float, float]) -> bool:
    """Return whether a pair shows the object of a visit clearly in both images."""
    return visit.begin <= stamps[0] and stamps[1] <= visit.end and all(watched.truths[one] is True for one in stamps)


def _countable(events: Sequence[Visit]) -> int:
    """Return the number of events that the first moments can show."""
    return min(len(events), DEFAULT_MAX_MOMENTS)


def _found(events: Sequence[Visit], first: Sequence[tuple[float, float]]) -> int:
    """Return the number of events that overlap one of the first pairs."""
    hits = (any(begin <= event.end and event.begin <= end for begin, end in first) for event in events)
    return min(sum(hits), DEFAULT_MAX_MOMENTS)


def _kind(wanted: str) -> str:
    if wanted == PERSON:
        return "person"
    return "object" if " " in wanted else "colour" if wanted in COLOURS else "shape"


def find_json(grades: Sequence[StreamGrade]) -> dict[str, Any]:
    """Return the figures of some streams, with 95 % intervals over streams."""
    every = [one for grade in grades for one in grade.descriptions]
    weights = bootstrap_weights(len(grades), seed=0)
    kinds = sorted({one.kind for one in every})
    kept = np.array([sum(one.kept_events for one in grade.descriptions) for grade in grades])
    recall = {}
    for method in METHODS:
        found = np.array([sum(one.found[method] for one in grade.descriptions) for grade in grades])
        sampled = (weights @ found) / np.maximum(weights @ kept, 1)
        low, high = (round(float(np.quantile(sampled, share)), 4) for share in (0.025, 0.975))
        recall[method] = {"mean": _share(found.sum(), kept.sum()), "low": low, "high": high}
    hours = sum(grade.hours for grade in grades)
    in_journal = sum(one.journal_events for one in every)
    return {
        "streams": len(grades),
        "descriptions": len(every),
        "kept_pairs": _share(sum(grade.pairs for grade in grades), len(grades)),
        "kept_events": int(kept.sum()),
        "recall_first_10": recall,
        "recall_by_kind": {
            kind: _share(
                sum(one.found[SEARCH] for one in every if one.kind == kind),
                sum(one.kept_events for one in every if one.kind == kind),
            )
            for kind in kinds
        },
        "right_of_fitting": _share(sum(one.right for one in every), sum(one.fitting for one in every)),
        "search_sec": _share(sum(grade.search_sec for grade in grades), len(grades)),
        "journal": {
            "lines_per_hour": _share(sum(grade.lines for grade in grades), hours),
            "device_sec_per_hour": _share(sum(grade.caption_sec for grade in grades), hours),
            "events": in_journal,
            "recall_first_10": _share(sum(one.found.get(JOURNAL, 0) for one in every), in_journal),
        },
    }


def _share(part: float, whole: float) -> float | None:
    return round(float(part) / float(whole), 4) if whole else None
