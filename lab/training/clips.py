"""Training clips: frame pairs of synthetic scenes with their ground truth, rendered once and kept in a folder.

A clip is a long sequence of pairs of one scene; training takes shorter sequences from it. Shards are written one by
one, so that an interrupted run continues with the missing ones.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from delayed_vlm_ros.memory.grid import Grid, letterbox
from delayed_vlm_ros.scenes import TRAINING_SEEDS, Scene, render
from delayed_vlm_ros.scenes.scene import VisibleObject, placed_objects
from delayed_vlm_ros.scenes.schedule import SPACINGS, draw_scene_times
from delayed_vlm_ros.scenes.truth import PairTruth, pair_truth

PAIRS = 26
"""Pairs of a clip."""
SHARD_CLIPS = 50
"""Clips of a shard."""
_SIZES = ((120, 160), (120, 160), (120, 160), (120, 160), (240, 320), (120, 213), (135, 150))  # height, width
_FILLING_SIZES = ((120, 160), (240, 320))  # nearly the grid's aspect ratio: stretched, without bars
_BLURRED_SHARE, _COMPRESSED_SHARE = 0.15, 0.15


@dataclass(frozen=True)
class Clip:
    """Pairs of one scene.

    Attributes:
        truths: Ground truth of each pair.
        objects: Objects and their positions at the first frame of each pair.
        stamps: Stamps of both frames of each pair, in seconds.
        spacing: One of ``SPACINGS``.
        size: Height and width of the camera's images in pixels, before they are resized to the grid.
        grid: The model's size of images.
    """

    truths: tuple[PairTruth, ...]
    objects: tuple[tuple[VisibleObject, ...], ...]
    stamps: tuple[tuple[float, float], ...]
    spacing: str
    size: tuple[int, int]
    grid: Grid

    def on_grid(self, x: float, y: float) -> tuple[float, float]:
        """Map a position in the camera's image to the model's grid, which may have letterbox bars; all values 0..1."""
        height, width = self.size
        scale = min(self.grid.height / height, self.grid.width / width)
        wide, high = round(scale * width) / self.grid.width, round(scale * height) / self.grid.height
        if self.size in _FILLING_SIZES:
            return x, y
        return 0.5 + (x - 0.5) * wide, 0.5 + (y - 0.5) * high


def frame(scene: Scene, time_sec: float, height: int, width: int, grid: Grid) -> NDArray[np.uint8]:
    """Render an image at a camera's size and resize it to the model's grid, as the memory does."""
    return letterbox(render(scene, time_sec, height, width), grid)


def _make_clip(seed: int, grid: Grid) -> tuple[Clip, NDArray[np.uint8]]:
    random = np.random.default_rng([seed, 99])
    scene = Scene.from_seed(seed)
    spacing = SPACINGS[seed % len(SPACINGS)]
    times = draw_scene_times(spacing, PAIRS, random)
    height, width = _SIZES[random.integers(len(_SIZES))]
    images = [[_degraded(frame(scene, time_sec, height, width, grid), random) for time_sec in pair] for pair in times]
    clip = Clip(
        truths=tuple(pair_truth(scene, *pair) for pair in times),
        objects=tuple(tuple(placed_objects(scene, pair[0])) for pair in times),
        stamps=tuple((first, second) for first, second in times.tolist()),
        spacing=spacing,
        size=(height, width),
        grid=grid,
    )
    return clip, np.array(images, np.uint8)


def _degraded(image: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """Blur some images a little and compress some as JPEG, as lenses and transport do."""
    if random.random() < _BLURRED_SHARE:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), random.uniform(0.4, 0.9)), np.uint8)
    if random.random() < _COMPRESSED_SHARE:
        _, packed = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(random.integers(60, 96))])
        image = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)
    return image


def _write_shard(folder: Path, grid: Grid, number: int) -> int:
    cv2.setNumThreads(1)
    first = TRAINING_SEEDS[number * SHARD_CLIPS]
    made = [_make_clip(seed, grid) for seed in range(first, first + SHARD_CLIPS)]
    draft = folder / f"{number}.draft.npy"
    np.save(draft, np.stack([images for _, images in made]))
    (folder / f"{number}.pickle").write_bytes(pickle.dumps([clip for clip, _ in made]))
    draft.rename(folder / f"{number}.npy")  # last: a shard that has its images is complete
    return number


def write_clips(folder: Path, shards: int, workers: int, grid: Grid) -> Iterator[int]:
    """Render the missing ones of the first ``shards`` shards.

    Args:
        folder: Folder of the shards; created if it is missing.
        shards: Number of shards, each of ``SHARD_CLIPS`` clips.
        workers: Number of rendering processes.
        grid: The model's size of images.

    Yields:
        The number of complete shards, at the start and after each shard.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = [number for number in range(shards) if not (folder / f"{number}.npy").exists()]
    done = shards - len(missing)
    yield done
    with ProcessPoolExecutor(workers) as pool:
        for _ in pool.map(partial(_write_shard, folder, grid), missing):
            done += 1
            yield done


def read_clips(folder: Path, number: int) -> list[Clip]:
    """Return the clips of a shard, without their images."""
    return list(pickle.loads((folder / f"{number}.pickle").read_bytes()))  # noqa: S301  written by write_clips


def read_images(folder: Path, number: int) -> NDArray[np.uint8]:
    """Return the images of a shard, ``(clips, PAIRS, 2, H, W, 3)`` uint8, memory-mapped."""
    return np.asarray(np.load(folder / f"{number}.npy", mmap_mode="r"))
