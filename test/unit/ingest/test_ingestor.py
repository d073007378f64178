"""Frame ingestors: one grid for all images, and sampling by time stamp."""

import numpy as np
import pytest

from delayed_vlm_ros.errors import ImageError, StampOrderError
from delayed_vlm_ros.ingest.geometry import FrameGeometry
from delayed_vlm_ros.ingest.ingestor import FrameIngestor
from delayed_vlm_ros.memory import Grid, SmartFrameManager


def image(height: int, width: int, value: int = 90) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


@pytest.fixture
def ingestor() -> FrameIngestor:
    return FrameIngestor(FrameGeometry(factor=28, min_pixels=4 * 28 * 28, max_pixels=28 * 28 * 48), SmartFrameManager())


def test_image_of_another_shape_is_letterboxed_onto_the_grid_of_the_first(ingestor):
    # given
    ingestor.add(image(480, 640), 0.0)
    # when
    ingestor.add(image(640, 480), 0.5)
    # then both frames have one shape, and the portrait image has bars at its sides
    assert ingestor.grid == Grid(168, 224)
    (kept,) = ingestor.frame_manager.snapshot()
    assert [frame.shape for frame in kept.frames] == [(168, 224, 3)] * 2
    assert kept.frames[1][:, :20].max() < 10 < kept.frames[1][:, 100:124].min()


def test_rejected_image_changes_neither_memory_nor_grid(ingestor):
    # given a rejected first image
    with pytest.raises(ImageError):
        ingestor.add(image(480, 640).astype(np.float32), 0.0)
    assert ingestor.grid is None
    # when
    ingestor.add(image(240, 240), 1.0)
    with pytest.raises(StampOrderError):
        ingestor.add(image(480, 640), 1.0)
    # then
    assert ingestor.grid == Grid(168, 168)
    assert ingestor.frame_manager.statistics().total_frames_added == 1


def test_first_image_after_reset_sets_the_grid(ingestor):
    # given
    ingestor.add(image(480, 640), 5.0)
    # when
    ingestor.reset()
    ingestor.add(image(640, 480), 1.0)
    # then
    assert ingestor.grid == Grid(224, 168)
    assert ingestor.frame_manager.newest_stamp == 1.0
