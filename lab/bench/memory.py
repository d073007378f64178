"""What memories keep of long patrols: settings, runs and tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from delayed_vlm_ros.benchmark.patrol import FRAME_SEC, PatrolPlan, draw_patrol
from delayed_vlm_ros.benchmark.patrol_images import HEIGHT, WIDTH, PatrolImages
from delayed_vlm_ros.benchmark.patrol_scores import SelectionScore, coverage, redundancy, score_selection
from delayed_vlm_ros.benchmark.process_pool import map_in_processes, single_threaded_opencv
from delayed_vlm_ros.images.video import open_video
from delayed_vlm_ros.memory import describe
from delayed_vlm_ros.memory.frame import FRAMES_PER_PAIR
from lab.bench.strategies import SeenFrame, features_of, strategies

BIG, SMALL = (0.03, 0.10), (0.01, 0.03)
"""Shares of the image that events cover."""

_VIDEO_LOOKS = 500  # images of a video that its coverage is measured on, at most


@dataclass(frozen=True)
class Setting:
    """A row of the table.

    Attributes:
        name: For people.
        pairs: Pairs that a strategy may keep.
        plan: What its patrols are drawn from, but for the seed.
    """

    name: str
    pairs: int
    plan: PatrolPlan = field(default_factory=lambda: PatrolPlan(0))


def _sized(name: str, pairs: int, **plan: Any) -> tuple[Setting, Setting]:
    return tuple(
        Setting(f"{name}, {size}", pairs, PatrolPlan(0, event_area=area, **plan))
        for size, area in (("big", BIG), ("small", SMALL))
    )


_FEW = {"events": 5, "places": 4}
_STILL = {"events": 0, "places": 1, "walkers_per_minute": 0.0, "pan": 0.0, "blackouts_per_hour": 0.0}

MAIN_SETTINGS = (
    *_sized("10 pairs, 5 events, 4 places", 10, events=5, places=4),
    *_sized("50 pairs, 40 events, 8 places", 50, events=40, places=8),
    *_sized("10 pairs, 30 events, 4 places", 10, events=30, places=4),
)
"""What a memory has to show."""

FURTHER_SETTINGS = (
    *(
        Setting(f"events of {seconds} s, big", 10, PatrolPlan(0, event_sec=(seconds, seconds), **_FEW))
        for seconds in (5, 10, 30)
    ),
    Setting("stays of 5 to 30 s, big", 10, PatrolPlan(0, dwell_sec=(5.0, 30.0), **_FEW)),
    Setting("camera always moving, big", 10, PatrolPlan(0, pan=0.2, pan_period_sec=20.0, **_FEW)),
    Setting("moving shadows, big", 10, PatrolPlan(0, moving_shadows=True, **_FEW)),
    Setting("shaking camera, big", 10, PatrolPlan(0, shake=0.015, **_FEW)),
)
"""Where memories have their holes."""

STILL_SETTINGS = (
    Setting(
        "still: noise", 10, PatrolPlan(0, shake=0.0, flicker=0.0, daylight=0.0, exposure_jumps_per_minute=0.0, **_STILL)
    ),
    Setting("still: flicker", 10, PatrolPlan(0, shake=0.0, flicker=0.06, exposure_jumps_per_minute=0.0, **_STILL)),
    Setting("still: daylight", 10, PatrolPlan(0, shake=0.0, daylight=0.4, exposure_jumps_per_minute=0.0, **_STILL)),
    Setting("still: shaking", 10, PatrolPlan(0, shake=0.015, exposure_jumps_per_minute=0.0, **_STILL)),
)
"""Nothing happens: how much is kept of it."""

SETTINGS = (*MAIN_SETTINGS, *FURTHER_SETTINGS, *STILL_SETTINGS)


def run_patrol(
    setting: Setting, seed: int, hours: float, on_frame: Callable[[int, int], None] = lambda _done, _all: None
) -> dict[str, SelectionScore]:
    """Show one patrol to all strategies.

    Args:
        setting: Which.
        seed: Of the patrol.
        hours: Its length.
        on_frame: Is told how many frames of how many have been seen.

    Returns:
        The judgement on each strategy, by its name.
    """
    patrol = draw_patrol(replace(setting.plan, seed=seed, hours=hours))
    with single_threaded_opencv():
        return _show_all(setting, PatrolImages(patrol), on_frame)


def _show_all(
    setting: Setting, images: PatrolImages, on_frame: Callable[[int, int], None]
) -> dict[str, SelectionScore]:
    patrol = images.patrol
    chosen = strategies(setting.pairs)
    for number in range(patrol.frames):
        image = images.frame(number)
        seen = SeenFrame(number, image, features_of(image))
        for strategy in chosen.values():
            strategy.add(seen)
        on_frame(number + 1, patrol.frames)
    kept = {name: strategy.kept() for name, strategy in chosen.items()}
    looks = {pair: describe(images.frame(FRAMES_PER_PAIR * pair)) for pair in set().union(*kept.values())}
    return {name: score_selection(patrol, one, setting.pairs, looks) for name, one in kept.items()}


def run_all(
    settings: Sequence[Setting], seeds: Sequence[int], hours: float, jobs: int
) -> Iterator[tuple[Setting, int, dict[str, SelectionScore]]]:
    """Run every setting on every seed, over so many processes; results come as they are ready."""
    units = [(setting, seed) for seed in seeds for setting in settings]
    run = partial(_run_unit, hours=hours)
    results = ((unit, run(unit)) for unit in units) if jobs == 1 else map_in_processes(run, units, jobs)
    for (setting, seed), judged in results:
        yield setting, seed, judged


def _run_unit(unit: tuple[Setting, int], hours: float) -> dict[str, SelectionScore]:
    return run_patrol(*unit, hours)


def setting_json(setting: Setting, runs: Mapping[int, Mapping[str, SelectionScore]]) -> dict[str, Any]:
    """A setting's figures, by strategy.

    Args:
        setting: Which.
        runs: For each seed, the judgement on each strategy.
    """
    names = list(next(iter(runs.values())))
    plan = setting.plan
    return {
        "name": setting.name,
        "pairs": setting.pairs,
        "events": plan.events,
        "event_sec": list(plan.event_sec),
        "event_area": list(plan.event_area),
        "places": plan.places,
        "dwell_sec": list(plan.dwell_sec),
        "seeds": sorted(runs),
        "strategies": {name: _strategy_json([runs[seed][name] for seed in sorted(runs)]) for name in names},
    }


def _strategy_json(judgements: Sequence[SelectionScore]) -> dict[str, Any]:
    evidence = [one.evidence for one in judgements if one.evidence is not None]
    return {
        "evidence": _spread(evidence) if evidence else None,
        "by_length": _shares([one.by_length for one in judgements]),
        "by_age": _shares([one.by_age for one in judgements]),
        "places": _spread([one.places for one in judgements]),
        "redundancy": _spread([one.redundancy for one in judgements]),
        "kept_pairs": _spread([one.kept for one in judgements]),
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {
        "mean": round(float(np.mean(values)), 3),
        "low": round(float(min(values)), 3),
        "high": round(float(max(values)), 3),
    }


def _shares(tallies: Sequence[Mapping[str, tuple[int, int]]]) -> dict[str, dict[str, float]]:
    names = sorted({name for tally in tallies for name in tally})
    sums = {name: np.sum([tally.get(name, (0, 0)) for tally in tallies], axis=0) for name in names}
    return {
        name: {"share": round(float(found / events), 3), "events": int(events)}
        for name, (found, events) in sums.items()
    }


def run_video(path: Path, pairs: int) -> dict[str, Any]:
    """Show a video to all strategies; nothing is known of its events.

    Returns:
        For each strategy how many pairs it kept, its ``redundancy``, and the ``coverage``: the share of the video's
        images that look like a kept one.

    Raises:
        VideoSourceError: It cannot be read.
    """
    chosen = strategies(pairs)
    looks = {}
    with open_video(str(path)) as video:
        for number, frame in enumerate(video.frames(1.0 / FRAME_SEC)):
            image = np.asarray(cv2.resize(frame.image, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA), np.uint8)
            seen = SeenFrame(number, image, features_of(image))
            for strategy in chosen.values():
                strategy.add(seen)
            if number % FRAMES_PER_PAIR == 0:
                looks[number // FRAMES_PER_PAIR] = describe(image)
    every = max(1, len(looks) // _VIDEO_LOOKS)
    stream = [looks[pair] for pair in sorted(looks)[::every]]
    kept = {name: strategy.kept() for name, strategy in chosen.items()}
    return {
        "sampled_pairs": len(looks),
        "pairs": pairs,
        "strategies": {
            name: {
                "kept_pairs": len(one),
                "redundancy": round(redundancy([looks[pair] for pair in one]), 3),
                "coverage": round(coverage(stream, [looks[pair] for pair in one]), 3),
            }
            for name, one in kept.items()
        },
    }
