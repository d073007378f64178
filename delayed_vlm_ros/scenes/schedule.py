"""Which moments of a stream a memory holds: the times of its pairs, evenly or unevenly spread."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SPACINGS = ("even", "uneven")
_FRAME_GAP_SEC = 0.5
_STREAM_GAP_SEC = 1.0
_LATEST_START_SEC = 300.0


def even_times(pairs: int, random: np.random.Generator) -> NDArray[np.float64]:
    """Times of a window without gaps, sampled at one rate.

    Args:
        pairs: How many pairs.
        random: Where chance comes from: the rate is 2, 1 or 0.5 frames a second.

    Returns:
        ``(pairs, 2)`` float64: times of both frames of each pair (s), from 0.
    """
    gap = float(random.choice([0.5, 1.0, 2.0]))
    return np.arange(2 * pairs, dtype=np.float64).reshape(pairs, 2) * gap


def uneven_times(pairs: int, random: np.random.Generator) -> NDArray[np.float64]:
    """Times as Star and Stream memory give them: key frames with gaps of a second to half a minute, then a window.

    Args:
        pairs: How many pairs.
        random: Where chance comes from.

    Returns:
        ``(pairs, 2)`` float64: times of both frames of each pair (s), from 0, with a camera's jitter.
    """
    key = int(random.integers(0, pairs)) if pairs > 2 else pairs
    widest = float(random.choice([4.0, 12.0, 30.0]))
    gaps = np.where(np.arange(pairs - 1) < key, np.exp(random.uniform(0.0, np.log(widest), pairs - 1)), _STREAM_GAP_SEC)
    first = np.concatenate([[0.0], np.cumsum(np.maximum(gaps, _STREAM_GAP_SEC))])
    times = np.stack([first, first + _FRAME_GAP_SEC], axis=1)
    return times + random.uniform(0.0, 0.04, times.shape)


def draw_times(spacing: str, pairs: int, random: np.random.Generator) -> NDArray[np.float64]:
    """Times with one of ``SPACINGS``."""
    return even_times(pairs, random) if spacing == "even" else uneven_times(pairs, random)


def draw_scene_times(spacing: str, pairs: int, random: np.random.Generator) -> NDArray[np.float64]:
    """The same, beginning anywhere in a scene's first minutes: what training and judging look at."""
    return draw_times(spacing, pairs, random) + random.uniform(0.0, _LATEST_START_SEC)
