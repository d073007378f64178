"""Parameters as dataclasses: types, ranges, choices, descriptors, declaration and reading."""

import math
from dataclasses import FrozenInstanceError, dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from rcl_interfaces.msg import ParameterType
from rclpy.exceptions import InvalidParameterValueException

from delayed_vlm_ros.cameras.bag_camera import BagCameraParameters
from delayed_vlm_ros.cameras.demo_camera import DemoCameraParameters
from delayed_vlm_ros.cameras.video_camera import VideoCameraParameters
from delayed_vlm_ros.errors import ConfigurationError
from delayed_vlm_ros.ros.parameters import (
    QOS_GROUP,
    declare,
    parameter,
    read,
    read_or_default,
    specifications,
    unknown_name_warnings,
)
from delayed_vlm_ros.ros.scene_memory.parameters import SceneMemoryParameters, validate_change
from delayed_vlm_ros.web.dashboard_node import WebDashboardParameters

CONFIG = Path(__file__).parents[3] / "config"
NODES = {
    "scene_memory": SceneMemoryParameters,
    "demo_camera": DemoCameraParameters,
    "video_camera": VideoCameraParameters,
    "bag_camera": BagCameraParameters,
    "web_dashboard": WebDashboardParameters,
}


def flat(tree, prefix=""):
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


@dataclass(frozen=True)
class ExampleParameters:
    rate: float = parameter(10.0, "images per second", unit="Hz", minimum=0.5, maximum=60.0)
    size: int = parameter(4, "frames kept", name="memory.size", unit="frames", minimum=0, maximum=100)
    word: str = parameter("fast", "how", choices=("fast", "slow"), read_only=False)
    name: str = parameter("camera", "name of the camera", read_only=False, at_configure=True)
    loop: bool = parameter(default=False, description="repeat")
    free: float = parameter(0.0, "any number")
    words: tuple[str, ...] = parameter(("one",), "several names")
    mode: str = parameter("off", "what", choices=("off", "on", "full"), read_only=False)


SPECS = specifications(ExampleParameters)


class FakeNode:
    """Accepts declarations like rclpy's node: a given value must be within the descriptor's range."""

    def __init__(self, **given):
        self.given = {name.replace("__", "."): value for name, value in given.items()}
        self._parameter_overrides = self.given  # of rclpy's node
        self.values = {}
        self.descriptors = {}
        self.callbacks = []

    def declare_parameter(self, name, default, descriptor):
        value = self.given.get(name, default)
        for bounds in (*descriptor.integer_range, *descriptor.floating_point_range):
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if is_number and not bounds.from_value <= value <= bounds.to_value:
                raise InvalidParameterValueException(name, value, "out of range")
        self.values[name] = value
        self.descriptors[name] = descriptor

    def get_parameter(self, name):
        return SimpleNamespace(value=self.values[name])

    def has_parameter(self, name):
        return name in self.values

    def get_parameters_by_prefix(self, prefix):
        assert not prefix
        return self.values

    def add_on_set_parameters_callback(self, callback):
        self.callbacks.append(callback)

    def set_as_a_request_does(self, values):
        changes = [SimpleNamespace(name=name, value=value) for name, value in values.items()]
        return [callback(changes) for callback in self.callbacks]


def read_from(**given):
    node = FakeNode(**given)
    declare(node, ExampleParameters)
    return read(node, ExampleParameters)


def test_defaults_are_read_when_nothing_is_given():
    assert read_from() == ExampleParameters()
    with pytest.raises(FrozenInstanceError):
        read_from().rate = 3.0


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("rate", 5, 5.0),
        ("rate", 0.5, 0.5),
        ("rate", 60.0, 60.0),
        ("free", -7, -7.0),
        ("free", 1e300, 1e300),
        ("size", 0, 0),
        ("size", 100, 100),
        ("name", "front", "front"),
        ("name", 123, "123"),
        ("name", 1.5, "1.5"),
        ("loop", True, True),
        ("rate", "5", 5.0),
        ("rate", "1e1", 10.0),
        ("size", 4.0, 4),
        ("size", 1e1, 10),
        ("size", "4", 4),
        ("size", "1e1", 10),
        ("loop", "true", True),
        ("loop", "off", False),
        ("loop", " No ", False),
        ("loop", 1, True),
        ("loop", 0, False),
        ("mode", False, "off"),
        ("mode", True, "on"),
        ("mode", "off", "off"),
        ("words", ["a", "b"], ("a", "b")),
        ("words", "front", ("front",)),
    ],
)
def test_value_of_a_compatible_type_is_converted(field, value, expected):
    converted = SPECS[field].convert(value)
    assert (converted, type(converted)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("field", "value", "name", "expected"),
    [
        ("size", True, "memory.size", "an integer"),
        ("size", 4.5, "memory.size", "an integer"),
        ("size", "four", "memory.size", "an integer"),
        ("size", None, "memory.size", "an integer"),
        ("size", [4], "memory.size", "an integer"),
        ("size", math.inf, "memory.size", "an integer"),
        ("rate", True, "rate", "a number"),
        ("rate", "fast", "rate", "a number"),
        ("rate", "", "rate", "a number"),
        ("loop", 2, "loop", "true or false"),
        ("loop", "maybe", "loop", "true or false"),
        ("loop", 0.5, "loop", "true or false"),
        ("name", False, "name", 'such as "off" in a file and -p \'name:="off"\''),
        ("name", True, "name", 'such as "on" in a file'),
        ("name", ["a"], "name", "text"),
        ("name", "~", "name", 'write ""'),
        ("name", "null", "name", 'write ""'),
        ("word", True, "word", "in quotes"),
        ("rate", 0.49, "rate", "from 0.5 to 60.0 Hz"),
        ("rate", 61, "rate", "from 0.5 to 60.0 Hz"),
        ("size", -1, "memory.size", "from 0 to 100 frames"),
        ("size", 101, "memory.size", "from 0 to 100 frames"),
        ("rate", math.nan, "rate", "finite"),
        ("rate", math.inf, "rate", "finite"),
        ("free", -math.inf, "free", "finite"),
        ("word", "quick", "word", "fast, slow"),
        ("word", "", "word", "fast, slow"),
        ("word", 5, "word", "fast, slow"),
        ("words", "front, rear", "words", "list"),
        ("words", "", "words", "list"),
        ("words", None, "words", "list"),
        ("words", [1, 2], "words", '["front", "rear"]'),
        ("words", [True, False], "words", '["front", "rear"]'),
    ],
)
def test_invalid_value_is_rejected_with_name_value_and_expectation(field, value, name, expected):
    with pytest.raises(ConfigurationError) as caught:
        SPECS[field].convert(value)
    text = str(caught.value)
    assert text.startswith(f"parameter {name} must be ")
    assert expected in text
    number_or_text = float(value) if field == "rate" and type(value) is int else value
    in_yaml = {True: "true", False: "false", None: "nothing"}.get(value) if isinstance(value, bool | None) else None
    shown = (in_yaml, str(number_or_text), repr(number_or_text), f"'{number_or_text}'")
    assert any(f"got {one}" in text for one in shown), text
    # and reading from a node raises the same error, also for a value that its descriptor refuses
    with pytest.raises(ConfigurationError) as read_error:
        read_from(**{SPECS[field].name.replace(".", "__"): value})
    assert str(read_error.value) == text


def test_specifications_have_names_kinds_and_defaults_of_the_fields():
    assert list(SPECS) == ["rate", "size", "word", "name", "loop", "free", "words", "mode"]
    assert [spec.name for spec in SPECS.values()][:3] == ["rate", "memory.size", "word"]
    assert [spec.kind for spec in SPECS.values()] == [float, int, str, str, bool, float, tuple, str]
    assert [spec.default for spec in SPECS.values()] == [10.0, 4, "fast", "camera", False, 0.0, ("one",), "off"]


def test_descriptors_have_range_unit_choices_and_time_of_change():
    # given
    node = FakeNode()
    declare(node, ExampleParameters)
    rate, size = node.descriptors["rate"], node.descriptors["memory.size"]
    word, name, free = node.descriptors["word"], node.descriptors["name"], node.descriptors["free"]

    # then
    assert rate.description == "images per second [Hz]; fixed when the node starts"
    assert [(bounds.from_value, bounds.to_value, bounds.step) for bounds in rate.floating_point_range] == [
        (0.5, 60.0, 0.0)
    ]
    assert [(bounds.from_value, bounds.to_value, bounds.step) for bounds in size.integer_range] == [(0, 100, 0)]
    assert (len(rate.integer_range), len(size.floating_point_range)) == (0, 0)
    assert (len(free.integer_range), len(free.floating_point_range)) == (0, 0)
    assert word.additional_constraints == "one of: fast, slow"
    assert "fixed when the node starts" in rate.description
    assert "fixed when the node starts" not in word.description + name.description
    assert "unconfigured" in name.description
    assert "unconfigured" not in word.description
    assert node.descriptors["loop"].type == ParameterType.PARAMETER_BOOL
    assert (rate.type, size.type, word.type) == (
        ParameterType.PARAMETER_DOUBLE,
        ParameterType.PARAMETER_INTEGER,
        ParameterType.PARAMETER_STRING,
    )
    # Otherwise `rate: 5` would end the node before our own validation.
    assert all(descriptor.dynamic_typing for descriptor in node.descriptors.values())
    # Otherwise rclpy would refuse the present value, and with it `ros2 param load`.
    assert not any(descriptor.read_only for descriptor in node.descriptors.values())


def test_value_out_of_range_is_declared_without_the_range():
    node = FakeNode(rate=1000.0)
    declare(node, ExampleParameters)
    assert node.values["rate"] == 1000.0
    assert len(node.descriptors["rate"].floating_point_range) == 0
    assert node.descriptors["rate"].description.startswith("images per second [Hz]")


def test_parameter_file_with_compatible_types_can_be_loaded_again():
    # given a file with numbers for strings and integers for floats
    given = {"model.name": 123, "memory.sample_fps": 5}
    present = {spec.name: spec.default for spec in specifications(SceneMemoryParameters).values()} | given

    # then
    validate_change(present, given, configured=True)
    with pytest.raises(ConfigurationError, match=r"model\.name"):
        validate_change(present, {"model.name": 124}, configured=True)


@pytest.mark.parametrize("parameters", NODES.values())
def test_parameters_of_every_node_are_consistent(parameters):
    for spec in specifications(parameters).values():
        assert spec.convert(spec.default) == spec.default
        assert spec.description
        assert (spec.minimum is None) == (spec.maximum is None)
        assert not (spec.read_only and spec.at_configure)
        assert not spec.choices or spec.kind is str
        assert spec.descriptor().name == spec.name


def test_read_only_parameter_accepts_its_value_only():
    # given a node with an integer for a float
    node = FakeNode(rate=5)
    declare(node, ExampleParameters)

    # then loading its file again succeeds, and a change is refused
    assert [result.successful for result in node.set_as_a_request_does({"rate": 5, "loop": False})] == [True]
    assert [result.successful for result in node.set_as_a_request_does({"rate": 5.0, "other": 1})] == [True]
    for change in ({"rate": 6}, {"loop": True}, {"memory.size": 4, "words": ["two"]}, {"rate": "quick"}):
        (result,) = node.set_as_a_request_does(change)
        assert not result.successful
        assert list(change)[-1] in result.reason
    (result,) = node.set_as_a_request_does({"rate": 6})
    assert "fixed when the node starts" in result.reason


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("sampel_fps", "memory.sample_fps"),
        ("sample_fps", "memory.sample_fps"),
        ("ask.sample_fps", "memory.sample_fps"),
        ("memory.star_size", "memory.star.size"),
        ("scene_memory.memory.stream.size", "memory.stream.size"),
        ("precompute", "precompute.mode"),
        ("Cameras", "cameras"),
        ("camera", "cameras"),
        ("model", "model.name"),
        ("ask.timeout", "ask.timeout_sec"),
    ],
)
def test_unknown_parameter_is_reported_with_the_name_that_is_meant(given, meant):
    node = FakeNode(**{given: 1, "memory.sample_fps": 2.0, "qos_overrides./image.subscription.depth": 3})
    declare(node, SceneMemoryParameters)
    (warning,) = unknown_name_warnings(node)
    assert warning == f"unknown parameter {given}: its value is not used; did you mean {meant}?"


def test_unknown_parameter_without_a_similar_name_is_reported():
    node = FakeNode(qqq=1)
    declare(node, SceneMemoryParameters)
    (warning,) = unknown_name_warnings(node)
    assert warning == "unknown parameter qqq: its value is not used; ros2 param list shows the parameters"


def test_qos_override_of_another_topic_is_reported_on_request():
    node = FakeNode(**{"qos_overrides./imgae.subscription.depth": 3})
    declare(node, SceneMemoryParameters)
    node.values["qos_overrides./image.subscription.depth"] = 15
    (warning,) = unknown_name_warnings(node, group=QOS_GROUP)
    assert "did you mean qos_overrides./image.subscription.depth?" in warning


def test_invalid_value_is_read_as_the_default_where_one_is_needed():
    node = FakeNode(rate="fast", loop="on")
    declare(node, ExampleParameters)
    assert read_or_default(node, SPECS["rate"]) == 10.0
    assert read_or_default(node, SPECS["loop"]) is True


@pytest.mark.parametrize("name", NODES)
def test_shipped_file_can_be_loaded_into_its_running_node(name):
    # given the values as `ros2 param load` sets them
    content = yaml.safe_load((CONFIG / f"{name}.yaml").read_text(encoding="utf-8"))
    values = dict(flat(content["/**"]["ros__parameters"]))
    node = FakeNode()
    declare(node, NODES[name])

    # then
    assert all(result.successful for result in node.set_as_a_request_does(values))
    assert set(values) == set(node.values)
