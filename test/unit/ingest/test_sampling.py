"""FrameSampler with jitter, slow cameras, pauses and clocks set back."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delayed_vlm_ros.errors import ConfigurationError, ImageError
from delayed_vlm_ros.ingest.sampling import FrameSampler


def sample(stamps, sample_fps=2.0):
    """Return the stamps that a new sampler accepts."""
    sampler = FrameSampler(sample_fps)
    return np.array([stamp for stamp in stamps if sampler.accept(float(stamp))])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("start", [0.0, 1.7e9])
def test_jittered_camera_is_sampled_at_the_rate_without_gaps(seed, start):
    # given 10 minutes of 30 Hz with 20 ms of jitter
    jitter = np.random.default_rng(seed).uniform(-0.02, 0.02, 18_000)
    stamps = start + np.arange(18_000) / 30 + jitter  # some are out of order

    # when
    taken = sample(stamps)

    # then
    gaps = np.diff(taken)
    assert (len(taken) - 1) / (taken[-1] - taken[0]) == pytest.approx(2.0, abs=0.005)
    assert gaps.max() <= 0.5 + np.diff(stamps).max()
    assert gaps.min() >= 0.25


def test_long_run_rate_does_not_drift():
    # given a day at 7 Hz, with no image exactly at a slot
    stamps = np.arange(7 * 86_400) / 7

    # then
    assert abs(len(sample(stamps)) - 2 * 86_400) <= 1


@given(fps=st.floats(2.0, 60.0), sample_fps=st.floats(0.5, 2.0), phase=st.floats(0.0, 1000.0))
def test_faster_camera_is_sampled_at_the_rate(fps, sample_fps, phase):
    # given
    stamps = phase + np.arange(int(fps * 100)) / fps

    # when
    taken = sample(stamps, sample_fps)

    # then
    assert len(taken) <= sample_fps * 100 + 2
    assert len(taken) >= min(fps, sample_fps) * 100 - 3
    assert np.diff(taken).max() <= 1 / sample_fps + 1 / fps + 1e-9


@pytest.mark.parametrize("fps", [1.9, 1.0, 0.2])
def test_slower_camera_is_sampled_completely(fps):
    # given
    stamps = np.arange(2000) / fps + np.random.default_rng(0).uniform(-0.01, 0.01, 2000)

    # then
    assert len(sample(stamps)) == 2000


def test_jittered_camera_at_the_sample_rate_is_sampled_completely():
    # given
    stamps = np.arange(2000) / 2 + np.random.default_rng(0).uniform(-0.02, 0.02, 2000)

    # then
    assert len(sample(stamps)) == 2000


@pytest.mark.parametrize("pause", [0.3, 0.49, 0.7, 0.99, 1.3, 60.0])
def test_pause_causes_no_burst(pause):
    # given
    before = np.arange(300) / 30
    stamps = np.concatenate([before, before[-1] + pause + before])

    # when
    taken = sample(stamps)

    # then
    assert np.diff(taken).min() >= 0.25
    assert len(taken) <= 2 * (20 + pause) + 2


def test_repeated_stamps_are_sampled_once():
    # given
    stamps = np.arange(300) / 30

    # then
    np.testing.assert_array_equal(sample(np.repeat(stamps, 2)), sample(stamps))


def test_backward_stamps_are_accepted_at_the_sample_rate_until_reset():
    # given
    sampler = FrameSampler(2.0)
    assert sampler.accept(1000.0)

    # when the clock restarts at 0, at 30 Hz, for ten seconds
    passed = sum(sampler.accept(index / 30) for index in range(300))

    # then
    assert 18 <= passed <= 21
    sampler.reset()
    assert sampler.accept(10.0)
    assert not sampler.accept(10.1)


def test_image_out_of_order_does_not_move_the_slots():
    # given
    sampler = FrameSampler(2.0)

    # when
    decisions = [sampler.accept(stamp) for stamp in (0.0, 0.5, 0.47, 0.6, 1.0)]

    # then
    assert decisions == [True, True, False, False, True]


@pytest.mark.parametrize("sample_fps", [0.0, -1.0, math.inf, math.nan])
def test_invalid_rate_is_rejected(sample_fps):
    with pytest.raises(ConfigurationError, match="sample_fps"):
        FrameSampler(sample_fps)


@pytest.mark.parametrize("stamp", [math.nan, math.inf, -math.inf])
def test_non_finite_stamp_is_rejected(stamp):
    with pytest.raises(ImageError, match="stamp"):
        FrameSampler(2.0).accept(stamp)


def test_new_rate_counts_from_the_last_sampled_image():
    # given
    sampler = FrameSampler(0.01)
    assert sampler.accept(0.0)
    # when
    sampler.set_rate(2.0)
    # then
    assert [sampler.accept(stamp) for stamp in (0.1, 0.2, 0.5, 0.9, 1.0)] == [False, False, True, False, True]
    with pytest.raises(ConfigurationError, match="sample_fps"):
        sampler.set_rate(0.0)
