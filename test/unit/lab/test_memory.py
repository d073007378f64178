"""Strategies, scores and the command of ``bench memory``."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from delayed_vlm_ros.benchmark.patrol import PatrolPlan, draw_patrol
from delayed_vlm_ros.benchmark.patrol_images import PatrolImages
from delayed_vlm_ros.benchmark.patrol_scores import length_name, oracle, redundancy, score_selection
from delayed_vlm_ros.memory import describe
from lab.__main__ import app
from lab.bench import memory, memory_cost
from lab.bench import strategies as strategies_module
from lab.bench.strategies import SeenFrame, features_of, strategies

PLAN = PatrolPlan(3, hours=0.05, places=3, events=1, dwell_sec=(15.0, 40.0))


@pytest.fixture(scope="module")
def stream():
    images = PatrolImages(draw_patrol(PLAN))
    frames = [images.frame(number) for number in range(images.patrol.frames)]
    return [SeenFrame(number, frame, features_of(frame)) for number, frame in enumerate(frames)]


@pytest.mark.parametrize("pairs", [3, 20])
def test_strategy_keeps_only_seen_pairs_and_at_most_its_capacity(stream, pairs):
    # given
    chosen = strategies(pairs)

    for count, seen in enumerate(stream, start=1):
        # when
        for strategy in chosen.values():
            strategy.add(seen)

        # then
        if count % 83 == 0 or count == len(stream):
            for name, strategy in chosen.items():
                kept = strategy.kept()
                assert len(kept) <= pairs, name
                assert kept == sorted(set(kept)), name
                assert set(kept) <= set(range((count + 1) // 2)), name
    assert chosen["newest"].kept() == list(range(len(stream) // 2))[-pairs:]
    assert len(chosen["reservoir"].kept()) == len(chosen["uniform"].kept()) == pairs


def test_strategies_are_deterministic(stream):
    # given
    one, other = strategies(5), strategies(5)

    # when
    for seen in stream[:120]:
        for strategy in (*one.values(), *other.values()):
            strategy.add(seen)

    # then
    assert {name: strategy.kept() for name, strategy in one.items()} == {
        name: strategy.kept() for name, strategy in other.items()
    }


def test_scene_detectors_find_cut():
    pytest.importorskip("scenedetect", reason="the extra 'scenes' is not installed")
    # given a cut at frame 20
    rooms = [np.random.default_rng(seed).integers(0, 255, (144, 192, 3), np.uint8) for seed in range(2)]
    chosen = {name: strategies(4)[name] for name in strategies_module.SCENE_DETECTORS}

    # when
    for number in range(40):
        for strategy in chosen.values():
            strategy.add(SeenFrame(number, rooms[number >= 20], features_of(rooms[0])))

    # then
    assert [strategy.kept() for strategy in chosen.values()] == [[0, 10], [0, 10]]


@pytest.mark.parametrize(("pairs", "events"), [(10, 5), (10, 30), (2, 5)])
def test_oracle_shows_every_event_that_fits(pairs, events):
    # given
    patrol = draw_patrol(PatrolPlan(0, hours=0.5, events=events))
    image = describe(PatrolImages(patrol).frame(0))

    # when
    chosen = oracle(patrol, pairs)
    score = score_selection(patrol, chosen, pairs, dict.fromkeys(chosen, image))

    # then
    assert len(chosen) <= pairs
    assert score.evidence == 1.0
    assert len(score.shown) >= min(pairs, events)
    assert score.places == 1.0 or pairs < 4 + events
    assert score_selection(patrol, [], pairs, {}).evidence == 0.0


def test_events_are_counted_by_length_and_age():
    # given
    patrol = draw_patrol(PatrolPlan(1, hours=1.0, events=20))
    kept = oracle(patrol, 8)

    # when
    black = describe(np.zeros((144, 192, 3), np.uint8))
    score = score_selection(patrol, kept, 8, dict.fromkeys(kept, black))

    # then
    for tally in (score.by_length, score.by_age):
        assert sum(all_ for _, all_ in tally.values()) == 20
        assert sum(found for found, _ in tally.values()) == len(score.shown)
    assert score.redundancy == 1.0
    assert [length_name(seconds) for seconds in (1.0, 3.0, 30.0)] == ["0 to 1.5 s", "2.5 to 4 s", "from 20 s"]


def test_redundancy_is_share_of_similar_images():
    # given
    descriptors = [
        describe(np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8).repeat(20, 0).repeat(20, 1))
        for seed in (0, 0, 1)
    ]

    # then
    assert redundancy(descriptors) == pytest.approx(2 / 3)
    assert redundancy(descriptors[:1]) == 0.0


def test_predefined_settings_fit_their_patrols():
    for setting in memory.SETTINGS:
        patrol = draw_patrol(replace(setting.plan, seed=0))
        assert len(patrol.events) == setting.plan.events
        assert patrol.frames == 14_400


def test_memory_command_prints_one_json_object():
    # when
    done = CliRunner().invoke(
        app,
        ["bench", "memory", "--pairs", "4", "--events", "1", "--places", "2", "--seeds", "2", "--hours", "0.05",
         "--no-cost", "--worlds", "design", "--json"],
    )  # fmt: skip

    # then
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert result["shape"]["seeds"] == [0, 2]
    (setting,) = result["settings"]
    assert setting["name"] == "4 pairs, 1 events, 2 places"
    for figures in setting["strategies"].values():
        assert figures["evidence"]["low"] <= figures["evidence"]["mean"] <= figures["evidence"]["high"] <= 1.0
        assert sum(one["events"] for one in figures["by_length"].values()) == 2


def test_memory_command_on_one_patrol_shows_no_ranges(monkeypatch):
    # given
    monkeypatch.setattr(strategies_module, "has_scene_detectors", lambda: False)
    short = ["bench", "memory", "--pairs", "4", "--events", "1", "--places", "2", "--hours", "0.05", "--no-cost"]

    # when
    done = CliRunner().invoke(app, [*short, "--seeds", "1", "--worlds", "design"])

    # then
    assert "patrols: 1, about 1 min" in done.output
    assert "one patrol" in done.output
    assert " to " not in done.output
    assert "PySceneDetect" in done.output


def test_memory_command_with_unknown_setting_is_rejected(monkeypatch):
    monkeypatch.setattr(strategies_module, "has_scene_detectors", lambda: False)
    done = CliRunner().invoke(app, ["bench", "memory", "--setting", "nowhere"])
    assert done.exit_code == 2
    assert "PySceneDetect" not in done.output


def test_memory_cost_is_measured_for_each_capacity():
    # when
    costs = memory_cost.measure_cost(0, capacities=(2, 20), hours=0.02)

    # then
    assert [one["pairs"] for one in costs] == [2, 20]
    assert all(0.0 < one["median_ms"] <= one["p99_ms"] for one in costs)


def test_video_is_scored_without_ground_truth(tmp_path):
    # given
    path = tmp_path / "video.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 4.0, (192, 144))
    images = PatrolImages(draw_patrol(PLAN))
    for number in range(80):
        writer.write(images.frame(number)[..., ::-1])
    writer.release()

    # when
    result = memory.run_video(path, 3)

    # then
    assert result["sampled_pairs"] == 20
    for figures in result["strategies"].values():
        assert figures["kept_pairs"] <= 3
        assert 0.0 <= figures["redundancy"] <= 1.0
        assert 0.0 <= figures["coverage"] <= 1.0
