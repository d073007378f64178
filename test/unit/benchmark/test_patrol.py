"""Patrols with known ground truth, and their images."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from delayed_vlm_ros.benchmark.patrol import (
    DESIGN_SEEDS,
    FRAME_SEC,
    REPORT_SEEDS,
    TRANSIT,
    PatrolPlan,
    draw_patrol,
)
from delayed_vlm_ros.benchmark.patrol_images import HEIGHT, WIDTH, PatrolImages

SHORT = PatrolPlan(5, hours=0.5, events=12, event_area=(0.01, 0.10))


def test_seeds_for_design_and_report_are_disjoint():
    assert not set(DESIGN_SEEDS) & set(REPORT_SEEDS)
    assert min(len(DESIGN_SEEDS), len(REPORT_SEEDS)) >= 10


def test_patrol_and_images_are_determined_by_the_plan():
    # given
    numbers = [0, 7, 1500, 3599, 42]
    one, other = (PatrolImages(draw_patrol(SHORT)) for _ in range(2))

    # when
    forwards = [one.frame(number) for number in numbers]
    backwards = [other.frame(number) for number in reversed(numbers)]

    # then
    for image, same in zip(forwards, reversed(backwards), strict=True):
        np.testing.assert_array_equal(image, same)
        assert (image.shape, image.dtype) == ((HEIGHT, WIDTH, 3), np.uint8)
    another = PatrolImages(draw_patrol(replace(SHORT, seed=6))).frame(0)
    assert (another != forwards[0]).mean() > 0.5


def test_events_lie_apart_within_a_visit_and_have_a_sharp_frame():
    for seed in range(4):
        patrol = draw_patrol(PatrolPlan(seed, events=40, places=8))
        assert len(patrol.events) == 40
        assert all(1.0 <= event.seconds <= 3.0 for event in patrol.events)
        for number, event in enumerate(patrol.events):
            assert len(set(patrol.place[event.start : event.stop])) == 1
            assert patrol.place[event.start] != TRANSIT
            pairs = range(event.start // 2, (event.stop + 1) // 2)
            assert any(number in patrol.events_in(pair) for pair in pairs)
            assert number not in patrol.events_in(event.start // 2 - 1)
        assert all(one.stop < later.start for one, later in zip(patrol.events, patrol.events[1:], strict=False))


@pytest.mark.parametrize("seed", range(2))
def test_events_are_visible_and_cover_their_area(seed):
    # given two images that differ only in the event
    patrol = draw_patrol(PatrolPlan(seed, events=20, event_area=(0.01, 0.10)))
    images = PatrolImages(patrol)

    shares = []
    for event in patrol.events:
        sharp = next(number for number in range(event.start, event.stop) if patrol.sharp[number])
        # when
        difference = np.abs(images.frame(sharp).astype(int) - images.without_events(sharp)).max(axis=-1)
        # then
        shares.append((difference > 20).mean() / event.area)
        assert 0.3 < shares[-1] < 1.3
        # and the event is invisible before its start and after its end
        for number in (event.start - 1, event.stop):
            np.testing.assert_array_equal(images.frame(number), images.without_events(number))
    assert np.mean(shares) > 0.7


def test_images_show_places_darkness_and_transit():
    # given
    patrol = draw_patrol(replace(SHORT, blackouts_per_hour=12.0, walkers_per_minute=0.0, exposure_jumps_per_minute=0.0))
    images = PatrolImages(patrol)
    dark = int(np.flatnonzero(patrol.dark)[0])
    transit = int(np.flatnonzero((patrol.place == TRANSIT) & ~patrol.dark)[1])

    def sharpness(number: int) -> float:
        image = cv2.blur(images.frame(number), (1, 9)).astype(float)  # suppresses the noise
        return float(np.abs(np.diff(image, axis=1)).mean() / image.mean())

    # then
    assert images.frame(dark).mean() < 12.0
    assert sharpness(transit) < 0.7 * sharpness(int(np.flatnonzero(patrol.sharp)[9]))
    assert {visit.place for visit in patrol.visits} == set(range(4))
    assert all(one.place != later.place for one, later in zip(patrol.visits, patrol.visits[1:], strict=False))


def test_still_patrol_changes_only_by_noise():
    # given
    still = PatrolPlan(1, 0.1, 1, 0, walkers_per_minute=0.0, shake=0.0, pan=0.0, exposure_jumps_per_minute=0.0,
                       blackouts_per_hour=0.0, flicker=0.0, daylight=0.0)  # fmt: skip
    images = PatrolImages(draw_patrol(still))

    # then
    one, other = images.frame(3).astype(int), images.frame(600).astype(int)
    assert 0 < np.abs(one - other).mean() < 6
    assert np.abs(one - other).max() < 40


def test_events_that_do_not_fit_raise():
    with pytest.raises(ValueError, match="200 events"):
        draw_patrol(PatrolPlan(0, hours=0.05, events=200))


def test_frame_rate_matches_the_memory_default():
    assert draw_patrol(PatrolPlan(0, hours=2.0)).frames * FRAME_SEC == 7200.0
