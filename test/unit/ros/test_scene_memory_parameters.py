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
    check_change,
    check_together,
    memory_config,
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


def test_the_parameter_file_shows_every_parameter_with_its_default():
    content = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    assert list(content) == ["/**"]
    shown = dict(flat(content["/**"]["ros__parameters"]))
    assert shown == DEFAULTS
    assert all(type(shown[name]) is type(default) for name, default in DEFAULTS.items())


def test_each_line_of_the_parameter_file_is_commented():
    lines = CONFIG.read_text(encoding="utf-8").splitlines()
    settings = [number for number, line in enumerate(lines) if ": " in line and not line.lstrip().startswith("#")]
    assert len(settings) == len(DEFAULTS)
    assert all(lines[number - 1].lstrip().startswith("#") for number in settings)


def test_the_defaults_can_work():
    check_together(SceneMemoryParameters())


@pytest.mark.parametrize("name", SPECS)
def test_each_descriptor_tells_what_it_is_and_when_it_may_change(name):
    spec = SPECS[name]
    descriptor = spec.descriptor()
    assert descriptor.description
    assert spec.read_only or "at any time" in descriptor.description or "unconfigured" in descriptor.description
    if spec.kind in (int, float):
        assert descriptor.integer_range or descriptor.floating_point_range
        assert spec.minimum <= spec.default <= spec.maximum


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cameras": []}, "cameras has 0 names; give from 1 to 16"),
        ({"cameras": ["7up"]}, "cameras has the name '7up'"),
        ({"cameras": ["a/b"]}, "letters, digits"),
        ({"cameras": ["front", "rear", "front"]}, "each name may stand there once"),
        ({"cameras": [f"camera_{number}" for number in range(17)]}, "cameras has 17 names"),
        ({"model": "  "}, "model.name is empty"),
        ({"star_size": 1}, "star_memory_size"),
        ({"persistence_folder": "kept"}, "persistence.folder is kept; give a whole path, from / on"),
        ({"persistence_folder": "~/kept"}, "give a whole path, from / on"),
    ],
)
def test_what_ranges_cannot_say_is_checked_too(changes, words):
    with pytest.raises(ConfigurationError, match=words):
        check_together(replace(SceneMemoryParameters(), **changes))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("memory.star.size", -1, "from 0 to 2000 frames"),
        ("memory.sample_fps", 0.0, "from 0.01 to 60.0 1/s"),
        ("memory.sample_fps", float("nan"), "finite"),
        ("memory.sample_fps", "fast", "type float"),
        ("memory.importance_threshold", 1.5, "from 0.0 to 1.0"),
        ("image_transport", "theora", "one of raw, compressed"),
        ("model.dtype", "int3", "one of auto, bfloat16"),
        ("ask.queue_size", None, "type int"),
        ("cameras", "front", r"a list of words, such as \[front, rear\]"),
        ("cameras", [1, 2], "a list of words"),
        ("memory.star.size", 1, "star_memory_size"),
    ],
)
def test_a_change_that_cannot_work_is_refused(name, value, words):
    with pytest.raises(ConfigurationError, match=words):
        check_change(DEFAULTS, {name: value}, configured=False)


@pytest.mark.parametrize("name", SPECS)
def test_what_is_taken_at_configure_is_refused_afterwards(name):
    spec = SPECS[name]
    other = spec.maximum if spec.kind in (int, float) else spec.choices[1] if spec.choices else "front"
    other = spec.kind(other) if spec.kind is not bool else not spec.default
    if name in ("memory.eviction_chunk", "memory.marks.max"):
        other = 0  # their largest are more than the other values' memory takes
    if name == "persistence.folder":
        other = "/somewhere"
    check_change(DEFAULTS, {name: other}, configured=False)
    check_change(DEFAULTS, {name: spec.default}, configured=True)
    if spec.at_configure and other != spec.default:
        with pytest.raises(ConfigurationError, match=f"{name} is taken when the node is configured"):
            check_change(DEFAULTS, {name: other}, configured=True)
    else:
        check_change(DEFAULTS, {name: other}, configured=True)


def test_an_integer_will_do_for_a_float():
    check_change(DEFAULTS, {"memory.sample_fps": 5}, configured=False)


def test_several_wrong_values_can_be_put_right_one_after_the_other():
    wrong = {**DEFAULTS, "cameras": ["7up"], "memory.star.size": -4}
    check_change(wrong, {"memory.star.size": 10}, configured=False)
    check_change({**wrong, "memory.star.size": 10}, {"cameras": ["front"]}, configured=False)


def test_other_nodes_parameters_are_passed_over():
    check_change(DEFAULTS, {"use_sim_time": True, "qos_overrides./image.subscription.depth": 3}, configured=True)


def test_every_parameter_has_a_name_of_its_own():
    assert len(SPECS) == len(fields(SceneMemoryParameters))


@pytest.mark.parametrize(
    ("star", "stream", "chunk", "left"),
    [(20, 20, -1, 16), (20, 20, 0, 20), (20, 20, 6, 16), (0, 12, -1, 10), (6, 6, -1, 6), (2, 2, -1, 2)],
)
def test_a_third_of_the_smaller_memory_leaves_at_once(star, stream, chunk, left):
    # given a full Stream memory of plain frames
    memory = memory_config(SceneMemoryParameters(star_size=star, stream_size=stream, eviction_chunk=chunk)).build()
    image = np.zeros((56, 56, 3), np.uint8)
    # when two more come
    for number in range(stream + 2):
        memory.add(image, 0.5 * number)
    # then
    assert memory.statistics().stream_memory_size == left


def test_marks_that_could_fill_star_are_refused_before_anything_starts():
    check_together(SceneMemoryParameters(star_size=12, max_marked=10))
    with pytest.raises(ConfigurationError, match="max_marked_frames"):
        check_together(SceneMemoryParameters(star_size=12, max_marked=12))


def test_a_chunk_larger_than_the_window_is_refused_before_anything_starts():
    with pytest.raises(ConfigurationError, match="eviction_chunk"):
        check_together(SceneMemoryParameters(stream_size=12, star_size=40, eviction_chunk=20))
