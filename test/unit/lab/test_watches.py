"""Streams with standing questions, the grades of their alerts, and ``bench watches``."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from typer.testing import CliRunner

from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine
from delayed_vlm_ros.scenes import TUNING_SEEDS
from delayed_vlm_ros.watches import Watch
from lab.__main__ import app
from lab.bench import watches as bench
from lab.bench.unknown_words import QUESTIONS, score_unknown_words, unknown_words_json
from lab.bench.watch_cost import WATCHES, cost_json, questions
from lab.bench.watched_rooms import LIVELY, VISITS, Visit, draw_room, visits_of, visits_scene
from lab.bench.watches import CheckedTruth, RoomGrade, WatchGrade, WatchPlan, grades_json, watch_room

VISITS_SEED = TUNING_SEEDS[9000]


@pytest.fixture(scope="module")
def demo():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the command does
    yield DelayedBatchInferenceEngine.from_pretrained("demo", device="cpu")
    torch.set_num_threads(threads)


def flags(text: str) -> tuple[list[float], list[bool], list[bool]]:
    """Stamps of half seconds, and where an object is partly (p or c) and clearly (c) visible."""
    return [0.5 * number for number in range(len(text))], [one in "pc" for one in text], [one == "c" for one in text]


@pytest.mark.parametrize(
    ("text", "visits"),
    [
        ("..........", ()),
        ("..ccccccc.", (Visit(1.0, 4.0, 1.0),)),
        ("..cccccc..", (Visit(1.0, 3.5, None),)),  # clearly visible for 2.5 s
        (".ppcpcccccccp.", (Visit(0.5, 6.0, 2.5),)),
        ("cccccccpccc", (Visit(0.0, 5.0, 0.0),)),
        ("ccccccc.....c", (Visit(0.0, 3.0, 0.0), Visit(6.0, 6.0, None))),  # away for 3 s
        ("ccccccc....c", (Visit(0.0, 5.5, 0.0),)),
    ],
)
def test_visit_is_event_from_three_clear_seconds(text, visits):
    assert visits_of(*flags(text)) == visits


def test_brief_visits_of_one_lane_do_not_overlap_and_colours_differ():
    for seed in range(10):
        scene = visits_scene(seed, 10.0, 190.0)
        for lane in range(4):
            present = sorted((one.begin_sec, one.end_sec) for one in scene.script if one.lane == lane)
            assert all(begin - end >= 4.0 for (_, end), (begin, _) in pairwise(present))
        for one in scene.script:
            others = [other for other in scene.script if other.lane != one.lane]
            together = [o for o in others if o.begin_sec <= one.end_sec and one.begin_sec <= o.end_sec]
            assert one.colour not in {other.colour for other in together}


@pytest.mark.parametrize("kind", [LIVELY, VISITS])
def test_room_has_questions_about_objects_that_come_and_that_never_come(kind):
    watched = [one for seed in TUNING_SEEDS[:4] for one in draw_room(seed, kind, 2.0).watched]
    assert any(visit.is_event for one in watched for visit in one.visits)
    assert sum(not one.visits for one in watched) >= 4
    for one in watched:
        assert any(one.truths.values()) <= bool(one.visits)
        assert all(one.truths[stamp] is not False for visit in one.visits for stamp in (visit.begin, visit.end))


def test_stream_of_one_seed_is_reproducible():
    assert draw_room(5, VISITS, 1.0) == draw_room(5, VISITS, 1.0)


VISIT_PAIR = (Visit(10.0, 20.0, 11.0), Visit(25.0, 30.0, 26.0))


@pytest.mark.parametrize(
    ("alerts", "of_visit"),
    [
        ([9.9], [[], []]),  # too early
        ([10.5, 22.9, 23.1], [[10.5, 22.9], []]),  # the last one is too late
        ([24.0, 25.0], [[], [25.0]]),
        ([33.0, 33.1], [[], [33.0]]),
    ],
)
def test_alert_belongs_to_the_visit_that_has_begun_last(alerts, of_visit):
    assert bench._by_visit(VISIT_PAIR, alerts, 3.0) == of_visit


@pytest.mark.parametrize(("hidden", "repeated"), [(None, 1), (15.0, 0)])
def test_repeated_alert_is_wrong_while_the_object_is_clearly_visible(hidden, repeated):
    truths = {float(stamp): True for stamp in range(10, 21)} | ({} if hidden is None else {hidden: None})
    assert bench._repeated(truths, [12.0, 18.0]) == repeated


def test_delay_that_counts_as_found_follows_from_hold_and_period():
    settings = Watch("watch", "?", period_sec=2.0, hold_sec=4.0)
    assert WatchPlan(settings).delay_sec == 7.0
    assert WatchPlan(replace(settings, hold_sec=0.0, yes_checks=2, of_checks=3)).delay_sec == 5.0


def grade(events: int, found: int, false_alarms: int, **others) -> WatchGrade:
    return WatchGrade(
        "object", events, found, false_alarms, **{"delays_sec": (1.0,) * found, "is_absent": not events, "checks": 100,
        "device_sec": 2.0, **others},
    )  # fmt: skip


def truth(p_yes: float, *, yes: bool = True, steady: bool = True) -> CheckedTruth:
    return CheckedTruth(p_yes, yes, steady)


def test_figures_count_all_watches_of_all_streams():
    # given two streams of half an hour
    rooms = [
        RoomGrade(0.5, (grade(4, 3, 0), grade(0, 0, 1)), (truth(0.97), truth(0.98, yes=False, steady=False)), 50),
        RoomGrade(
            0.5, (grade(6, 6, 2, delays_sec=(3.0,) * 6), grade(0, 0, 0)), (truth(0.97), truth(0.3, yes=False)), 50
        ),
    ]

    # when
    figures = grades_json(rooms)

    # then
    assert (figures["events"], figures["found"], figures["false_alarms"]) == (10, 9, 3)
    assert (figures["precision"], figures["recall"], figures["f1"]["mean"]) == (0.75, 0.9, 0.8182)
    assert figures["delay_sec"] == {"median": 3.0, "p90": 3.0}
    assert figures["absent_false_alarms_per_hour"] == 1.0
    assert figures["device_sec_per_hour"] == 8.0
    assert figures["device_ms_per_check"] == 20.0
    assert figures["unclear_share"] == 0.25
    low, high = figures["reliability"]
    assert (low["from"], low["checks"], low["true_yes"], low["steady_true_yes"]) == (0.2, 1, 0.0, 0.0)
    assert (high["from"], high["checks"], high["true_yes"], high["steady_true_yes"]) == (0.95, 3, 0.6667, 1.0)


def test_figures_without_events_are_empty_instead_of_perfect():
    figures = grades_json([RoomGrade(0.5, (grade(0, 0, 0),), (), 0)])
    assert figures["precision"] is figures["recall"] is figures["delay_sec"]["median"] is None


def test_watches_find_the_visits_of_a_room(demo):
    # when
    found = watch_room(demo, VISITS_SEED, WatchPlan(room=VISITS, minutes=0.5))

    # then
    figures = grades_json([found])
    assert figures["events"] >= 2
    assert figures["f1"]["mean"] == 1.0
    assert figures["unclear_share"] == 0.0
    assert {watch.checks for watch in found.watches} <= set(range(12, 31))


@pytest.mark.parametrize("method", [bench.ANSWERS, bench.CLIPS])
def test_decoded_answers_take_part_in_the_same_schedule(demo, monkeypatch, method):
    # given a room with three watches
    plan = WatchPlan(room=VISITS, minutes=0.1)
    room = draw_room(VISITS_SEED, plan.room, plan.minutes)
    monkeypatch.setattr(bench, "draw_room", lambda *_: replace(room, watched=room.watched[:3]))

    # when
    found, watched = (watch_room(demo, VISITS_SEED, plan, one) for one in (method, bench.WATCHES))

    # then
    assert [one.checks > 1 for one in found.watches] == [True] * 3
    assert len(found.outcomes) + found.unclear >= len(found.watches)
    assert sum(one.device_sec for one in found.watches) > sum(one.device_sec for one in watched.watches)


def test_mirrored_truth_is_graded_as_wrong(demo, monkeypatch):
    # given an engine whose yes means no
    score = DelayedBatchInferenceEngine.score

    def mirrored(*arguments, **options):
        result = score(*arguments, **options)
        return replace(result, scores=tuple(replace(one, p_yes=1.0 - one.p_yes) for one in result.scores))

    monkeypatch.setattr(DelayedBatchInferenceEngine, "score", mirrored)

    # when
    figures = grades_json([watch_room(demo, VISITS_SEED, WatchPlan(room=VISITS, minutes=0.5))])

    # then
    assert figures["f1"]["mean"] < 0.5
    assert figures["absent_false_alarms"] >= 3


def test_unknown_words_are_neither_yes_nor_no(demo):
    outcomes = list(score_unknown_words(demo, TUNING_SEEDS[:2]))
    assert unknown_words_json(outcomes) == {
        "questions": len(QUESTIONS),
        "outcomes": 2 * len(QUESTIONS),
        "unknown_share": 1.0,
        "clear_questions": {},
    }


def test_clear_outcome_of_unknown_words_is_listed(demo):
    outcomes = list(score_unknown_words(demo, TUNING_SEEDS[:1]))
    outcomes[3] = replace(outcomes[3], score=replace(outcomes[3].score, mass=0.9, p_yes=0.8))
    assert unknown_words_json(outcomes)["clear_questions"] == {QUESTIONS[3]: {"share": 1.0, "yes": 1, "mass": 0.9}}


def test_cost_ratios_are_medians_within_rounds():
    moving = {f"moving_{name}": 1.0 for name in ("native", "first", "steady", "step", "mean")}
    rounds = [
        {"native": scale, "one_watch": 0.1 * scale, "watches": 2.0 * scale, "answers_1": 10.0 * scale, **moving}
        for scale in (1.0, 2.0, 9.0)
    ]
    figures = cost_json(rounds, (1,))
    assert figures["ratios"]["watches_over_answers_1"] == 0.2
    assert figures["ratios"]["one_more_over_native"] == 0.1
    assert figures["median_sec"]["native"] == 2.0
    assert len(set(questions())) == WATCHES == 20


def test_interrupted_command_continues_with_the_missing_streams(tmp_path, monkeypatch):
    # given a run with one stream
    options = ["bench", "watches", "--device", "cpu", "--room", VISITS, "--minutes", "0.5", "--compared", "0",
               "--worlds", "tuning", "--work", str(tmp_path), "--json"]  # fmt: skip
    first = CliRunner().invoke(app, [*options, "--streams", "1"])
    assert first.exit_code == 0, first.output
    seen = []
    monkeypatch.setattr(bench, "watch_room", lambda _, seed, *__: seen.append(seed) or RoomGrade(0.5, (), (), 0))

    # when
    second = CliRunner().invoke(app, [*options, "--streams", "2"])

    # then
    assert seen == [TUNING_SEEDS[1]]
    assert json.loads(second.stdout)["all"]["events"] == json.loads(first.stdout)["all"]["events"] > 0

    # when another setting makes the kept results useless
    CliRunner().invoke(app, [*options, "--streams", "1", "--threshold", "0.7"])
    assert seen == [TUNING_SEEDS[1], TUNING_SEEDS[0]]


@pytest.mark.parametrize(
    "options", [("--room", "bath"), ("--worlds", "training"), ("--threshold", "0.2"), ("--confirm", "3", "2")]
)
def test_watches_command_with_invalid_value_is_rejected_before_loading(options):
    assert CliRunner().invoke(app, ["bench", "watches", *options]).exit_code == 2
