"""Which pairs the strategies keep of long patrols: settings, runs and figures."""

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

IMAGE_SIZE = (HEIGHT, WIDTH)
"""Height and width of the patrols' images in pixels."""
BIG, SMALL = (0.03, 0.10), (0.01, 0.03)
"""Shares of the image that events cover."""

_COVERAGE_IMAGES = 500  # of a video, at most


@dataclass(frozen=True)
class Setting:
    """A kind of patrol and a size of the memory.

    Attributes:
        name: Name in the tables.
        pairs: Capacity of each strategy in pairs.
        plan: Plan of the patrols; the seed and the length are set for each run.
    """

    name: str
    pairs: int
    plan: PatrolPlan = field(default_factory=lambda: PatrolPlan(0))


def _both_sizes(name: str, pairs: int, *, events: int, places: int) -> tuple[Setting, Setting]:
    plan = PatrolPlan(0, events=events, places=places)
    big = Setting(f"{name}, big", pairs, replace(plan, event_area=BIG))
    return big, Setting(f"{name}, small", pairs, replace(plan, event_area=SMALL))


_FEW = PatrolPlan(0, events=5, places=4)
_STILL = PatrolPlan(
    0, events=0, places=1, walkers_per_minute=0.0, pan=0.0, blackouts_per_hour=0.0, exposure_jumps_per_minute=0.0
)

MAIN_SETTINGS = (
    *_both_sizes("10 pairs, 5 events, 4 places", 10, events=5, places=4),
    *_both_sizes("50 pairs, 40 events, 8 places", 50, events=40, places=8),
    *_both_sizes("10 pairs, 30 events, 4 places", 10, events=30, places=4),
)
"""The settings of the main table."""

FURTHER_SETTINGS = (
    *(
        Setting(f"events of {seconds} s, big", 10, replace(_FEW, event_sec=(seconds, seconds)))
        for seconds in (5, 10, 30)
    ),
    Setting("stays of 5 to 30 s, big", 10, replace(_FEW, dwell_sec=(5.0, 30.0))),
    Setting("camera always moving, big", 10, replace(_FEW, pan=0.2, pan_period_sec=20.0)),
    Setting("moving shadows, big", 10, replace(_FEW, moving_shadows=True)),
    Setting("shaking camera, big", 10, replace(_FEW, shake=0.015)),
)
"""Settings that are hard for a memory."""

STILL_SETTINGS = (
    Setting("still: noise", 10, replace(_STILL, shake=0.0, flicker=0.0, daylight=0.0)),
    Setting("still: flicker", 10, replace(_STILL, shake=0.0, flicker=0.06)),
    Setting("still: daylight", 10, replace(_STILL, shake=0.0, daylight=0.4)),
    Setting("still: shaking", 10, replace(_STILL, shake=0.015)),
)
"""Settings without events, which show how many pairs are kept needlessly."""

SETTINGS = (*MAIN_SETTINGS, *FURTHER_SETTINGS, *STILL_SETTINGS)


def run_patrol(
    setting: Setting, seed: int, hours: float, on_frame: Callable[[int, int], None] = lambda _done, _all: None
) -> dict[str, SelectionScore]:
    """Show one patrol to all strategies.

    Args:
        setting: The setting to run.
        seed: Seed of the patrol.
        hours: Length of the patrol in hours.
        on_frame: Called after each frame with the frames done and the frames in total.

    Returns:
        The score of each strategy by name.
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
    all_kept: set[int] = set().union(*kept.values())
    descriptors = {pair: describe(images.frame(FRAMES_PER_PAIR * pair)) for pair in all_kept}
    return {name: score_selection(patrol, one, setting.pairs, descriptors) for name, one in kept.items()}


def run_all(
    settings: Sequence[Setting], seeds: Sequence[int], hours: float, jobs: int
) -> Iterator[tuple[Setting, int, dict[str, SelectionScore]]]:
    """Run every setting on every seed, in ``jobs`` processes; yield each result as soon as it is ready."""
    units = [(setting, seed) for seed in seeds for setting in settings]
    run = partial(_run_unit, hours=hours)
    results = ((unit, run(unit)) for unit in units) if jobs == 1 else map_in_processes(run, units, jobs)
    for (setting, seed), scores in results:
        yield setting, seed, scores


def _run_unit(unit: tuple[Setting, int], hours: float) -> dict[str, SelectionScore]:
    return run_patrol(*unit, hours)


def setting_json(setting: Setting, runs: Mapping[int, Mapping[str, SelectionScore]]) -> dict[str, Any]:
    """Return the figures of a setting by strategy.

    Args:
        setting: The setting.
        runs: For each seed, the score of each strategy.
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


def _strategy_json(scores: Sequence[SelectionScore]) -> dict[str, Any]:
    evidence = [one.evidence for one in scores if one.evidence is not None]
    return {
        "evidence": _spread(evidence) if evidence else None,
        "by_length": _shares([one.by_length for one in scores]),
        "by_age": _shares([one.by_age for one in scores]),
        "places": _spread([one.places for one in scores]),
        "redundancy": _spread([one.redundancy for one in scores]),
        "kept_pairs": _spread([one.kept for one in scores]),
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
    """Show a video, whose events are unknown, to all strategies.

    Returns:
        For each strategy the number of kept pairs, their ``redundancy``, and the ``coverage``: the share of the video's
        images that resemble a kept one.

    Raises:
        VideoSourceError: The video cannot be read.
    """
    chosen = strategies(pairs)
    descriptors = {}
    with open_video(str(path)) as video:
        for number, frame in enumerate(video.frames(1.0 / FRAME_SEC)):
            image = np.asarray(cv2.resize(frame.image, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA), np.uint8)
            seen = SeenFrame(number, image, features_of(image))
            for strategy in chosen.values():
                strategy.add(seen)
            if number % FRAMES_PER_PAIR == 0:
                descriptors[number // FRAMES_PER_PAIR] = describe(image)
    every = max(1, len(descriptors) // _COVERAGE_IMAGES)
    stream = [descriptors[pair] for pair in sorted(descriptors)[::every]]
    kept = {name: strategy.kept() for name, strategy in chosen.items()}
    return {
        "sampled_pairs": len(descriptors),
        "pairs": pairs,
        "strategies": {
            name: {
                "kept_pairs": len(one),
                "redundancy": round(redundancy([descriptors[pair] for pair in one]), 3),
                "coverage": round(coverage(stream, [descriptors[pair] for pair in one]), 3),
            }
            for name, one in kept.items()
        },
    }
