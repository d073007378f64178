"""The presets in ``config/`` are valid, and a full memory fits their budget."""

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from delayed_vlm_ros.inference.local.budget import cache_bytes, plan_budget
from delayed_vlm_ros.ingest.geometry import FrameGeometry
from delayed_vlm_ros.ros.parameters import specifications
from delayed_vlm_ros.ros.scene_memory.parameters import SceneMemoryParameters, validate_parameters

ROOT = Path(__file__).parents[3]
DEFAULTS = {spec.name: spec.default for spec in specifications(SceneMemoryParameters).values()}
HALF_PRECISION = 2

_spec = importlib.util.spec_from_file_location("make_presets", ROOT / "docs" / "scripts" / "make_presets.py")
presets = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(presets)


def test_presets_page_has_every_preset():
    assert {file.stem for file in (ROOT / "config").glob("qwen*.yaml")} == set(presets.DEVICE_GB)


@pytest.mark.parametrize("preset", presets.DEVICE_GB)
def test_preset_has_only_values_that_differ_from_the_defaults(preset):
    given = presets.settings(preset)
    assert set(given) <= set(DEFAULTS)
    assert all(type(value) is type(DEFAULTS[name]) and value != DEFAULTS[name] for name, value in given.items())


@pytest.mark.parametrize("preset", presets.DEVICE_GB)
def test_preset_is_valid(preset):
    validate_parameters(presets.parameters(preset))


@pytest.mark.parametrize("preset", presets.DEVICE_GB)
def test_full_memory_fits_the_budget_of_a_preset(preset):
    # given
    chosen, need = presets.parameters(preset), presets.need(preset)
    frames = chosen.star_size + chosen.stream_size
    token = cache_bytes(presets.published(preset).config, HALF_PRECISION)

    # when
    budget = plan_budget(
        chosen.budget_mb, frames, FrameGeometry(presets.published(preset).factor, max_pixels=chosen.max_pixels), token
    )

    # then
    pairs = frames // 2 * need.pair_tokens * (token.features + token.kv)
    assert pairs < need.kept <= budget.caches


@pytest.mark.parametrize(("preset", "device_gb"), presets.DEVICE_GB.items())
def test_peak_of_a_preset_leaves_a_tenth_of_the_device(preset, device_gb):
    assert presets.need(preset).peak <= 0.9 * device_gb * 10**9
