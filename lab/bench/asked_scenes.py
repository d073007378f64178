"""Questions about frames of scenes: an engine that keeps the frames, and resampled scenes for intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine
from delayed_vlm_ros.replay.compare import keep_everything

_RESAMPLES = 4000


def engine_with(
    engine: DelayedBatchInferenceEngine, images: Sequence[NDArray[np.uint8]], stamps: Sequence[float]
) -> DelayedBatchInferenceEngine:
    """Return an engine with the same model that keeps these frames.

    Args:
        engine: Engine with the model.
        images: RGB images.
        stamps: Stamp of each image in seconds, increasing.
    """
    holding = DelayedBatchInferenceEngine(engine.model, engine.processor, frame_manager=keep_everything())
    for image, stamp in zip(images, stamps, strict=True):
        holding.add_frame(image, stamp)
    return holding


def bootstrap_weights(scenes: int, seed: int) -> NDArray[np.int64]:
    """Return how often each scene, or stream of frames, is drawn in each bootstrap sample, shape (samples, scenes).

    Questions about one scene are not independent, so whole scenes are drawn.

    Args:
        scenes: Number of scenes.
        seed: Seed of the samples.
    """
    random = np.random.default_rng(seed)
    return random.multinomial(scenes, np.full(scenes, 1.0 / scenes), _RESAMPLES)
