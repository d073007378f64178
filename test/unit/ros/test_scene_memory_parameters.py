import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from delayed_vlm_ros.errors import ConfigurationError
from delayed_vlm_ros.ros.parameters import specifications
from delayed_vlm_ros.ros.scene_memory.parameters import (
    SceneMemoryParameters,
    memory_config,
    validate_change,
    validate_parameters,
)

CONFIG = Path(__file__).parents[3] / "config" / "scene_memory.yaml"
SPECS = {spec.name: spec for spec in specifications(SceneMemoryParameters).values()}
DEFAULTS = {
    name: list(spec.default) if isinstance(spec.default, tuple) else spec.default for name, spec in SPECS.items()
}


def flat(tree, prefix=""):
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def test_parameter_file_has_every_parameter_with_its_default():
    content = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    assert list(content) == ["/**"]
    shown = dict(flat(content["/**"]["ros__parameters"]))
    assert shown == DEFAULTS
    assert all(type(shown[name]) is type(default) for name, default in DEFAULTS.items())


def test_every_value_of_the_parameter_file_has_a_comment():
    lines = CONFIG.read_text(encoding="utf-8").splitlines()
    settings = [number for number, line in enumerate(lines) if ": " in line and not line.lstrip().startswith("#")]
    assert len(settings) == len(DEFAULTS)
    assert all(lines[number - 1].lstrip().startswith("#") for number in settings)


def test_defaults_are_valid():
    validate_parameters(SceneMemoryParameters())


@pytest.mark.parametrize("name", SPECS)
def test_descriptor_has_description_range_and_time_of_change(name):
    spec = SPECS[name]
    descriptor = spec.descriptor()
    assert descriptor.description
    assert spec.read_only or "at any time" in descriptor.description or "unconfigured" in descriptor.description
    if spec.kind in (int, float):
        assert descriptor.integer_range or descriptor.floating_point_range
        assert spec.minimum <= spec.default <= spec.maximum


@pytest.mark.parametrize(
    ("changes", "name", "value"),
    [
        ({"cameras": []}, "cameras", "0"),
        ({"cameras": ["7up"]}, "cameras", "'7up'"),
        ({"cameras": ["a/b"]}, "cameras", "'a/b'"),
        ({"cameras": ["front", "rear", "front"]}, "cameras", "front, rear, front"),
        ({"cameras": [f"camera_{number}" for number in range(17)]}, "cameras", "17"),
        ({"model": "  "}, "model.name", "''"),
        ({"star_size": 1}, "memory.star.size", "1"),
        ({"max_new_tokens": 200, "max_new_tokens_limit": 100}, "ask.max_new_tokens_limit", "200"),
        ({"persistence_folder": "kept"}, "persistence.folder", "'kept'"),
        ({"persistence_folder": "~/kept"}, "persistence.folder", "'~/kept'"),
    ],
)
def test_invalid_combination_is_rejected_with_name_and_value(changes, name, value):
    with pytest.raises(ConfigurationError) as caught:
        validate_parameters(replace(SceneMemoryParameters(), **changes))
    assert name in str(caught.value)
    assert value in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("memory.star.size", -1),
        ("memory.sample_fps", 0.0),
        ("memory.sample_fps", float("nan")),
        ("memory.sample_fps", "fast"),
        ("memory.importance_threshold", 1.5),
        ("image_transport", "theora"),
        ("model.dtype", "int3"),
        ("ask.queue_size", None),
        ("cameras", "front, rear"),
        ("cameras", [1, 2]),
        ("memory.star.size", 1),
    ],
)
def test_invalid_change_is_rejected_with_its_name(name, value):
    with pytest.raises(ConfigurationError, match=re.escape(name)):
        validate_change(DEFAULTS, {name: value}, configured=False)


@pytest.mark.parametrize("name", SPECS)
def test_parameter_of_configure_cannot_change_while_configured(name):
    spec = SPECS[name]
    other = spec.maximum if spec.kind in (int, float) else spec.choices[1] if spec.choices else "front"
    other = spec.kind(other) if spec.kind is not bool else not spec.default
    if name in ("memory.eviction_chunk", "memory.marks.max"):
        other = 0  # their maximum is larger than the default memory
    if name == "persistence.folder":
        other = "/somewhere"
    with_folder = {"persistence.folder": "/somewhere"} if name == "journal.enabled" else {}  # which it needs
    validate_change(DEFAULTS, {name: other, **with_folder}, configured=False)
    validate_change(DEFAULTS, {name: spec.default}, configured=True)
    if spec.at_configure and other != spec.default:
        with pytest.raises(ConfigurationError, match=re.escape(name)):
            validate_change(DEFAULTS, {name: other}, configured=True)
    else:
        validate_change(DEFAULTS, {name: other}, configured=True)


SERVER = "openai:https://server/v1#model"


@pytest.mark.parametrize(
    ("present", "new", "is_allowed"),
    [
        (SERVER, "openai:https://server/v1#other", True),
        (SERVER, "demo", True),
        (SERVER, "openai:https://elsewhere/v1#model", False),
        (SERVER, "openai:http://server/v1#model", False),  # the key would travel unencrypted
        ("demo", "openai:https://elsewhere/v1#model", False),
    ],
)
def test_key_of_a_model_server_goes_to_no_other_server(present, new, is_allowed):
    values = {**DEFAULTS, "model.name": present, "remote.api_key_env": "KEY"}
    if is_allowed:
        validate_change(values, {"model.name": new}, configured=False)
    else:
        with pytest.raises(ConfigurationError, match=r"remote\.api_key_env"):
            validate_change(values, {"model.name": new}, configured=False)
    validate_change({**values, "remote.api_key_env": ""}, {"model.name": new}, configured=False)


def test_invalid_address_of_a_model_server_is_rejected():
    with pytest.raises(ConfigurationError, match=r"model\.name"):
        validate_change(DEFAULTS, {"model.name": "openai:server"}, configured=False)


def test_integer_is_accepted_for_a_float():
    validate_change(DEFAULTS, {"memory.sample_fps": 5}, configured=False)


def test_several_invalid_values_can_be_corrected_one_after_another():
    wrong = {**DEFAULTS, "cameras": ["7up"], "memory.star.size": -4}
    validate_change(wrong, {"memory.star.size": 10}, configured=False)
    validate_change({**wrong, "memory.star.size": 10}, {"cameras": ["front"]}, configured=False)


def test_parameters_of_ros_are_ignored():
    validate_change(DEFAULTS, {"use_sim_time": True, "qos_overrides./image.subscription.depth": 3}, configured=True)


def test_parameter_names_are_unique():
    assert len(SPECS) == len(fields(SceneMemoryParameters))


@pytest.mark.parametrize(
    ("star", "stream", "chunk", "left"),
    [(20, 20, -1, 16), (20, 20, 0, 20), (20, 20, 6, 16), (0, 12, -1, 10), (6, 6, -1, 6), (2, 2, -1, 2)],
)
def test_eviction_chunk_is_a_third_of_the_smaller_memory_by_default(star, stream, chunk, left):
    # given a full Stream memory of plain frames
    memory = memory_config(SceneMemoryParameters(star_size=star, stream_size=stream, eviction_chunk=chunk)).build()
    image = np.zeros((56, 56, 3), np.uint8)
    # when two more frames arrive
    for number in range(stream + 2):
        memory.add(image, 0.5 * number)
    # then
    assert memory.statistics().stream_memory_size == left


def test_marks_that_could_fill_star_are_rejected():
    validate_parameters(SceneMemoryParameters(star_size=12, max_marked=10))
    with pytest.raises(ConfigurationError, match="max_marked_frames"):
        validate_parameters(SceneMemoryParameters(star_size=12, max_marked=12))


def test_eviction_chunk_larger_than_the_window_is_rejected():
    with pytest.raises(ConfigurationError, match="eviction_chunk"):
        validate_parameters(SceneMemoryParameters(stream_size=12, star_size=40, eviction_chunk=20))
