"""Questions at the end of a stream, and the figures of ``bench answers``."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from typer.testing import CliRunner

from delayed_vlm_ros.scenes.questions import KINDS
from lab.__main__ import app
from lab.bench.answers import GradedAnswer, StreamAnswers, answers_json
from lab.bench.room_streams import BACKWARD, KINDS_OF, LIVE, ORDER, ROOMS, draw_stream, quiet_scene

NEWEST = 8


@pytest.mark.parametrize("room", ROOMS)
def test_past_question_is_not_answerable_from_newest_pairs(room):
    # given
    streams = [draw_stream(seed, room, 1.5, NEWEST, 2) for seed in range(12)]
    asked = [(stream, group, one) for stream in streams for group in KINDS_OF for one in stream.questions[group]]

    # then
    for stream, group, one in asked:
        pairs = range(len(stream.truths))
        assert stream.is_answerable_from(pairs, one)
        if group == LIVE:
            assert stream.is_answerable_from(pairs[-1:], one)
        elif (one.question.kind, one.question.answer) != ("was_there", "no"):
            assert not stream.is_answerable_from(pairs[-NEWEST:], one)
    assert {group for _, group, _ in asked} == {LIVE, BACKWARD, ORDER}
    assert {one.question.answer for *_, one in asked if one.question.kind == "was_there"} == {"yes", "no"}


def test_every_kind_with_short_answers_belongs_to_one_group():
    assert sorted(kind for kinds in KINDS_OF.values() for kind in kinds) == sorted({*KINDS} - {"unclear"})


def test_visits_to_quiet_room_are_brief_and_do_not_overlap():
    for seed in range(20):
        # when
        scene = quiet_scene(seed, 10.0, 190.0, 170.0)

        # then
        visits = [one for one in scene.script if one.end_sec < 170.0 and one.end_sec - one.begin_sec < 5.0]
        assert len(visits) == 8
        assert len({(one.colour, one.shape) for one in scene.script}) == len(scene.script) == 10
        assert all(1.5 <= one.end_sec - one.begin_sec <= 3.0 for one in visits)
        for lane in range(4):
            present = sorted((one.begin_sec, one.end_sec) for one in scene.script if one.lane == lane)
            assert all(end < begin for (_, end), (begin, _) in pairwise(present))


def test_stream_of_one_seed_is_reproducible():
    assert draw_stream(5, "quiet", 1.0, NEWEST, 1).questions.keys() == {LIVE, BACKWARD, ORDER}
    one, other = (draw_stream(5, "quiet", 1.0, NEWEST, 1) for _ in range(2))
    assert one.stamps == other.stamps
    assert one.scene == other.scene
    texts = [[asked.question for some in stream.questions.values() for asked in some] for stream in (one, other)]
    assert texts[0] == texts[1]


def answers_of(correct: list[bool]) -> StreamAnswers:
    return StreamAnswers(
        4, 80, tuple(GradedAnswer(LIVE, "side", "nothing", one, is_answerable=True) for one in correct)
    )


def test_differences_are_paired_by_stream():
    # given streams that differ much, in each of which one memory has one correct answer more, of two
    runs = {
        seed: {"this memory": answers_of([True, seed % 2 == 0]), "newest": answers_of([False, seed % 2 == 0])}
        for seed in range(40)
    }

    # when
    figures = answers_json(runs)["strategies"]

    # then
    mine = figures["this memory"]["groups"][LIVE]
    assert mine["accuracy"]["mean"] == 0.75
    assert mine["accuracy"]["high"] - mine["accuracy"]["low"] > 0.1
    assert mine["over"]["newest"] == {"mean": 0.5, "low": 0.5, "high": 0.5}
    assert figures["newest"]["groups"][LIVE]["over"]["this memory"]["mean"] == -0.5
    assert BACKWARD not in figures["newest"]["groups"]


def test_answers_command_gives_every_memory_equally_many_tokens():
    # when
    done = CliRunner().invoke(
        app,
        ["bench", "answers", "--device", "cpu", "--room", "quiet", "--streams", "2", "--minutes", "0.5", "--star", "6",
         "--stream", "6", "--worlds", "tuning", "--json"],
    )  # fmt: skip

    # then
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert result["rooms"]["quiet"]["seeds"] == [2_000_000, 2_000_002]
    memories = result["rooms"]["quiet"]["strategies"]
    tokens = {one["visual_tokens"] for name, one in memories.items() if "Stream alone" not in name}
    assert len(tokens) == 1
    assert len({one["groups"][LIVE]["questions"] for one in memories.values()}) == 1
    assert memories["newest"]["groups"][LIVE]["accuracy"]["mean"] > 0.5


@pytest.mark.parametrize("options", [("--room", "bath"), ("--worlds", "training")])
def test_answers_command_with_unknown_value_is_rejected_before_loading(options):
    assert CliRunner().invoke(app, ["bench", "answers", *options]).exit_code == 2
