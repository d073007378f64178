"""The presets of config/ can work, and what they keep of a full memory fits their budget."""

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from delayed_vlm_ros.inference.local.budget import plan_budget, token_bytes
from delayed_vlm_ros.ingest.geometry import FrameGeometry
from delayed_vlm_ros.ros.parameters import specifications
from delayed_vlm_ros.ros.scene_memory.parameters import SceneMemoryParameters, check_together

ROOT = Path(__file__).parents[3]
DEFAULTS = {spec.name: spec.default for spec in specifications(SceneMemoryParameters).values()}
HALF_PRECISION = 2

_spec = importlib.util.spec_from_file_location("make_presets", ROOT / "docs" / "scripts" / "make_presets.py")
presets = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(presets)


def test_the_page_knows_every_preset():
    assert {file.stem for file in (ROOT / "config").glob("qwen*.yaml")} == set(presets.DEVICE_GB)


@pytest.mark.parametrize("preset", presets.DEVICE_GB)
def test_a_preset_sets_what_differs_and_nothing_else(preset):
    given = presets.settings(preset)
    assert set(given) <= set(DEFAULTS)
    assert all(type(value) is type(DEFAULTS[name]) and value != DEFAULTS[name] for name, value in given.items())


@pytest.mark.parametrize("preset", presets.DEVICE_GB)
def test_a_preset_can_work(preset):
    check_together(presets.parameters(preset))


@pytest.mark.parametrize("preset", presets.DEVICE_GB)
def test_a_full_memory_fits_the_budget(preset):
    # given
    chosen, need = presets.parameters(preset), presets.need(preset)
    frames = chosen.star_size + chosen.stream_size
    token = token_bytes(presets.text_config(preset), HALF_PRECISION)

    # when
    budget = plan_budget(chosen.budget_mb, frames, FrameGeometry(max_pixels=chosen.max_pixels), token)

    # then
    pairs = frames // 2 * need.pair_tokens * (token.features + token.kv)
    assert pairs < need.features + need.kv <= budget.caches


@pytest.mark.parametrize(("preset", "device_gb"), presets.DEVICE_GB.items())
def test_the_peak_leaves_a_tenth_of_the_device(preset, device_gb):
    assert presets.need(preset).peak <= 0.9 * device_gb * 10**9
