"""Statistics of the images that the embedded model knows, for ``inference.local.familiarity``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine
from delayed_vlm_ros.inference.local.familiarity import FamiliarImages, fit_familiar_images
from delayed_vlm_ros.inference.local.video_input import lay_out
from delayed_vlm_ros.memory import SmartFrameManager
from delayed_vlm_ros.scenes.render import render
from delayed_vlm_ros.scenes.scene import Scene

_Image = NDArray[np.uint8]

# Height and width of the rendered image, JPEG quality (0: raw) and exposure.
KINDS = (
    (112, 140, 0, 1.0),
    (480, 640, 0, 1.0),
    (240, 320, 50, 1.0),
    (240, 320, 20, 1.0),
    (60, 80, 0, 1.0),
    (270, 480, 0, 1.0),
    (240, 320, 0, 0.5),
)
_FRAME_PERIOD_SEC = 0.5
_BATCH = 64  # pairs


def render_pairs(seeds: Sequence[int], first_time_sec: float = 0.0) -> Iterator[tuple[_Image, _Image]]:
    """Yield a pair of images for each seed; the kinds of images take turns.

    Args:
        seeds: Seeds of the rooms.
        first_time_sec: Time of the first room's pair, in seconds; later ones are 1.7 s apart.
    """
    for number, seed in enumerate(seeds):
        scene = Scene.from_seed(seed)
        height, width, quality, exposure = KINDS[number % len(KINDS)]
        time_sec = first_time_sec + 1.7 * (number % 60)
        images = (render(scene, time_sec + delay, height, width) for delay in (0.0, _FRAME_PERIOD_SEC))
        first, second = (_compressed((image * exposure).astype(np.uint8), quality) for image in images)
        yield first, second


def _compressed(image: _Image, quality: int) -> _Image:
    if not quality:
        return image
    _, code = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR), np.uint8)


def features_of(engine: DelayedBatchInferenceEngine, images: Sequence[_Image]) -> NDArray[np.float32]:
    """Return the vision features of images, shape ``(pairs, tokens, hidden size)``."""
    batches = [images[start : start + 2 * _BATCH] for start in range(0, len(images), 2 * _BATCH)]
    return np.concatenate([_features(engine, batch) for batch in batches])


def _features(engine: DelayedBatchInferenceEngine, images: Sequence[_Image]) -> NDArray[np.float32]:
    memory = SmartFrameManager(0, 2 * _BATCH)
    one = DelayedBatchInferenceEngine(engine.model, engine.processor, frame_manager=memory)
    for image in images:
        one.add_frame(np.ascontiguousarray(image))
    snapshot = one.snapshot()
    encoded = one._cache.features(snapshot, lay_out(one.model.config, one.processor, snapshot), AskControl())  # noqa: SLF001
    return np.stack([features.float().cpu().numpy() for features in encoded.features])


def measure(engine: DelayedBatchInferenceEngine, seeds: Sequence[int]) -> FamiliarImages:
    """Return the statistics of synthetic images.

    Args:
        engine: Engine with the embedded model.
        seeds: Seeds of the rooms.
    """
    images = [image for pair in render_pairs(seeds) for image in pair]
    features = features_of(engine, images)
    return fit_familiar_images(features.reshape(-1, features.shape[-1]))
