"""One engine per camera, with the embedded model."""

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

import numpy as np

from delayed_vlm_ros.errors import ConfigurationError
from delayed_vlm_ros.inference.engine import CachedBytes
from delayed_vlm_ros.inference.local.models.checkpoint import resolve_checkpoint
from delayed_vlm_ros.inference.request import AskRequest
from delayed_vlm_ros.ros.scene_memory.engines import load_engines
from delayed_vlm_ros.ros.scene_memory.parameters import SceneMemoryParameters, memory_config

CAMERAS = ("front", "rear")


def load(**fields):
    parameters = SceneMemoryParameters(
        model="demo", device="cpu", cameras=CAMERAS, star_size=6, stream_size=6, **fields
    )
    memories = {name: memory_config(parameters).build() for name in CAMERAS}
    for memory in memories.values():
        for number in range(4):
            memory.add(np.full((112, 140, 3), number * 60, np.uint8), 0.5 * number)
    return load_engines(resolve_checkpoint("demo"), parameters, memories)


def test_each_camera_has_an_equal_share_of_the_budget():
    engines = load(budget_mb=100.0)
    assert [engine._budget.total for engine in engines.by_camera.values()] == [50_000_000, 50_000_000]


def test_too_small_budget_is_rejected_with_its_parameter():
    with pytest.raises(ConfigurationError, match=r"memory\.budget_mb"):
        load(budget_mb=1.0)


def test_engine_without_memory_drops_the_caches_of_all_engines():
    # given
    engines = load()
    for engine in engines.by_camera.values():
        engine.answer(AskRequest("What is there?", max_new_tokens=2))
        assert engine.cached_bytes() != CachedBytes(0, 0)
    # when
    engines.by_camera["front"]._on_oom()
    # then
    assert [engine.cached_bytes() for engine in engines.by_camera.values()] == [CachedBytes(0, 0)] * 2
