"""Times of the pairs that a memory holds: evenly or unevenly spaced."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SPACINGS = ("even", "uneven")
_FRAME_GAP_SEC = 0.5
_STREAM_GAP_SEC = 1.0
_LATEST_START_SEC = 300.0


def even_times(pairs: int, random: np.random.Generator) -> NDArray[np.float64]:
    """Return the times of a window without gaps, sampled at 2, 1 or 0.5 fps.

    Args:
        pairs: Number of pairs.
        random: Random generator.

    Returns:
        ``(pairs, 2)`` float64: times of both frames of each pair, in seconds from 0.
    """
    gap = float(random.choice([0.5, 1.0, 2.0]))
    return np.arange(2 * pairs, dtype=np.float64).reshape(pairs, 2) * gap


def uneven_times(pairs: int, random: np.random.Generator) -> NDArray[np.float64]:
    """Return times as in Star and Stream memory: key frames 1 s to 30 s apart, then a window without gaps.

    Args:
        pairs: Number of pairs.
        random: Random generator.

    Returns:
        ``(pairs, 2)`` float64: times of both frames of each pair, in seconds from 0, with camera jitter.
    """
    key = int(random.integers(0, pairs)) if pairs > 2 else pairs
    widest = float(random.choice([4.0, 12.0, 30.0]))
    gaps = np.where(np.arange(pairs - 1) < key, np.exp(random.uniform(0.0, np.log(widest), pairs - 1)), _STREAM_GAP_SEC)
    first = np.concatenate([[0.0], np.cumsum(np.maximum(gaps, _STREAM_GAP_SEC))])
    times = np.stack([first, first + _FRAME_GAP_SEC], axis=1)
    return times + random.uniform(0.0, 0.04, times.shape)


def draw_times(spacing: str, pairs: int, random: np.random.Generator) -> NDArray[np.float64]:
    """Return times with one of ``SPACINGS``."""
    return even_times(pairs, random) if spacing == "even" else uneven_times(pairs, random)


def draw_scene_times(spacing: str, pairs: int, random: np.random.Generator) -> NDArray[np.float64]:
    """Return times with one of ``SPACINGS`` that start within the first 300 s of a scene."""
    return draw_times(spacing, pairs, random) + random.uniform(0.0, _LATEST_START_SEC)
