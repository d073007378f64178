"""Strategies that choose which pairs of a long stream to keep: this project's memory and its competitors.

Each strategy receives every frame in order and keeps a limited number of pairs. Stream memory, the newest frames, is
added to every strategy alike and is not counted.
"""

from __future__ import annotations

import importlib.util
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from delayed_vlm_ros.benchmark.patrol import FRAME_SEC
from delayed_vlm_ros.memory import SmartFrameManager
from delayed_vlm_ros.memory.frame import FRAMES_PER_PAIR

MEMORY = "this memory"
SCENE_DETECTORS = ("scene change (content)", "scene change (adaptive)")

_STREAM_FRAMES = 20
_FEATURE_GRID = (16, 12)  # columns, rows
_CLUSTER_EVERY_PAIRS = 8
_CLUSTER_STEPS = 5

Features = NDArray[np.float32]


@dataclass(frozen=True)
class SeenFrame:
    """A frame as every strategy receives it.

    Attributes:
        number: Frame number from 0; frames 2n and 2n + 1 are pair n.
        image: RGB image, ``(H, W, 3)`` uint8.
        features: Result of ``features_of`` for the image.
    """

    number: int
    image: NDArray[np.uint8]
    features: Features


def features_of(image: NDArray[np.uint8]) -> Features:
    """Return the features that the clustering strategies compare: a flat grid of log luma and log colour ratios.

    The median over the grid, which is the camera's gain, is subtracted from each channel.
    """
    cells = np.log(cv2.resize(image, _FEATURE_GRID, interpolation=cv2.INTER_AREA).astype(np.float32) + 16.0)
    values = np.dstack([cells.mean(axis=-1), cells[..., 0] - cells[..., 1], cells[..., 2] - cells[..., 1]])
    return np.asarray(values - np.median(values, axis=(0, 1)), np.float32).ravel()


class Strategy(Protocol):
    """Chooses which pairs to keep."""

    def add(self, seen: SeenFrame) -> None:
        """Process the next frame."""

    def kept(self) -> list[int]:
        """Return the numbers of the pairs kept now, oldest first."""


class ThisMemory:
    """``SmartFrameManager``'s Star memory."""

    def __init__(self, pairs: int) -> None:
        self.manager = SmartFrameManager(FRAMES_PER_PAIR * pairs, _STREAM_FRAMES)

    def add(self, seen: SeenFrame) -> None:  # noqa: D102
        self.manager.add(seen.image, seen.number * FRAME_SEC)

    def kept(self) -> list[int]:  # noqa: D102
        return [kept.pair.first.number // FRAMES_PER_PAIR for kept in self.manager.snapshot() if kept.in_star]


class Newest:
    """The newest pairs (SimpleStream)."""

    def __init__(self, pairs: int) -> None:
        self._kept: deque[int] = deque(maxlen=pairs)

    def add(self, seen: SeenFrame) -> None:  # noqa: D102
        if seen.number % FRAMES_PER_PAIR == 0:
            self._kept.append(seen.number // FRAMES_PER_PAIR)

    def kept(self) -> list[int]:  # noqa: D102
        return list(self._kept)


class Uniform:
    """Pairs spread evenly over the whole past, chosen with knowledge of its end."""

    def __init__(self, pairs: int) -> None:
        self._pairs = pairs
        self._seen = 0

    def add(self, seen: SeenFrame) -> None:  # noqa: D102
        self._seen = seen.number // FRAMES_PER_PAIR + 1

    def kept(self) -> list[int]:  # noqa: D102
        middles = (np.arange(self._pairs) + 0.5) * self._seen / self._pairs
        return sorted(set(middles.astype(int).tolist())) if self._seen else []


class Reservoir:
    """A uniform random sample of the past (Vitter 1985, algorithm R)."""

    def __init__(self, pairs: int, seed: int = 0) -> None:
        self._pairs = pairs
        self._random = np.random.default_rng(seed)
        self._kept: list[int] = []

    def add(self, seen: SeenFrame) -> None:  # noqa: D102
        pair, second = divmod(seen.number, FRAMES_PER_PAIR)
        if second:
            return
        if len(self._kept) < self._pairs:
            self._kept.append(pair)
        elif (slot := int(self._random.integers(pair + 1))) < self._pairs:
            self._kept[slot] = pair

    def kept(self) -> list[int]:  # noqa: D102
        return sorted(self._kept)


class LargestClusters:
    """Weighted k-means over the stream that keeps the largest clusters (in the style of Flash-VStream, 2024).

    Every few pairs, the existing clusters and the new pairs are clustered again, starting from the heaviest. Each
    cluster is represented by the pair nearest to its mean.
    """

    def __init__(self, pairs: int) -> None:
        self._pairs = pairs
        self._means: list[Features] = []
        self._weights: list[float] = []
        self._shown: list[tuple[int, Features]] = []

    def add(self, seen: SeenFrame) -> None:  # noqa: D102
        if seen.number % FRAMES_PER_PAIR:
            return
        self._means.append(seen.features)
        self._weights.append(1.0)
        self._shown.append((seen.number // FRAMES_PER_PAIR, seen.features))
        if len(self._means) >= self._pairs + _CLUSTER_EVERY_PAIRS:
            self._cluster()

    def kept(self) -> list[int]:  # noqa: D102
        if len(self._means) > self._pairs:
            self._cluster()
        return sorted(pair for pair, _ in self._shown)

    def _cluster(self) -> None:
        points, weights = np.stack(self._means), np.array(self._weights)
        means = points[np.argsort(-weights, kind="stable")[: self._pairs]]
        owner = np.zeros(len(points), int)
        for _ in range(_CLUSTER_STEPS):
            # Squared distances without the squares of the points, which do not depend on the mean.
            owner = (np.square(means).sum(axis=1) - 2.0 * points @ means.T).argmin(axis=1)
            means = np.stack(
                [
                    np.average(points[owner == one], axis=0, weights=weights[owner == one])
                    if (owner == one).any()
                    else mean
                    for one, mean in enumerate(means)
                ]
            )
        filled = [one for one in range(len(means)) if (owner == one).any()]
        shown = [self._nearest(means[one], np.flatnonzero(owner == one).tolist()) for one in filled]
        self._means = [means[one] for one in filled]
        self._weights = [float(weights[owner == one].sum()) for one in filled]
        self._shown = shown

    def _nearest(self, mean: Features, members: list[int]) -> tuple[int, Features]:
        return min((self._shown[one] for one in members), key=lambda shown: float(np.linalg.norm(shown[1] - mean)))


class KCenter:
    """Online k-center: of the two most similar pairs the newer one is dropped, so that the most distant pairs stay."""

    def __init__(self, pairs: int) -> None:
        self._pairs = pairs
        self._kept: list[int] = []
        self._features: list[Features] = []
        self._between = np.empty((0, 0))

    def add(self, seen: SeenFrame) -> None:  # noqa: D102
        if seen.number % FRAMES_PER_PAIR:
            return
        row = np.array([np.linalg.norm(seen.features - other) for other in self._features])
        self._between = np.block([[self._between, row[:, None]], [row[None], np.full((1, 1), np.inf)]])
        self._kept.append(seen.number // FRAMES_PER_PAIR)
        self._features.append(seen.features)
        if len(self._kept) > self._pairs:
            newer = max(np.unravel_index(int(self._between.argmin()), self._between.shape))
            self._between = np.delete(np.delete(self._between, newer, 0), newer, 1)
            del self._kept[newer], self._features[newer]

    def kept(self) -> list[int]:  # noqa: D102
        return list(self._kept)


class SceneChanges:
    """The newest pairs at which a detector of PySceneDetect finds a cut, with the detector's own threshold.

    Args:
        pairs: Largest number of pairs.
        detector: A PySceneDetect detector.
    """

    def __init__(self, pairs: int, detector: Any) -> None:
        self._detector = detector
        self._kept: deque[int] = deque([0], maxlen=pairs)

    def add(self, seen: SeenFrame) -> None:  # noqa: D102
        from scenedetect import FrameTimecode  # noqa: PLC0415  an optional package

        time = FrameTimecode(seen.number, fps=1.0 / FRAME_SEC)
        for cut in self._detector.process_frame(time, seen.image[..., ::-1]):
            pair = cut.frame_num // FRAMES_PER_PAIR
            if self._kept[-1] != pair:
                self._kept.append(pair)

    def kept(self) -> list[int]:  # noqa: D102
        return sorted(set(self._kept))


def has_scene_detectors() -> bool:
    """Return whether PySceneDetect is installed."""
    return importlib.util.find_spec("scenedetect") is not None


def strategies(pairs: int) -> dict[str, Strategy]:
    """Return a new instance of each strategy by name; those of PySceneDetect only where it is installed.

    Args:
        pairs: Capacity of each strategy in pairs.
    """
    factories: dict[str, Callable[[int], Strategy]] = {
        MEMORY: ThisMemory,
        "newest": Newest,
        "uniform": Uniform,
        "reservoir": Reservoir,
        "largest clusters": LargestClusters,
        "k-center": KCenter,
    }
    chosen: dict[str, Strategy] = {name: make(pairs) for name, make in factories.items()}
    if has_scene_detectors():
        from scenedetect import AdaptiveDetector, ContentDetector  # noqa: PLC0415  an optional package

        detectors = (ContentDetector(min_scene_len=1), AdaptiveDetector(min_scene_len=1))
        chosen |= {
            name: SceneChanges(pairs, detector) for name, detector in zip(SCENE_DETECTORS, detectors, strict=True)
        }
    return chosen
