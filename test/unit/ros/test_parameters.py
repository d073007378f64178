"""Parameters as dataclasses: types, ranges, choices, descriptors, declaration and reading."""

import math
from dataclasses import FrozenInstanceError, dataclass
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from rcl_interfaces.msg import ParameterType
from rclpy.exceptions import InvalidParameterValueException

from delayed_vlm_ros.cameras.demo_camera import DemoCameraParameters
from delayed_vlm_ros.cameras.video_camera import VideoCameraParameters
from delayed_vlm_ros.errors import ConfigurationError
from delayed_vlm_ros.ros.parameters import declare, parameter, read, specifications
from delayed_vlm_ros.ros.scene_memory.parameters import SceneMemoryParameters, validate_change


@dataclass(frozen=True)
class ExampleParameters:
    rate: float = parameter(10.0, "images per second", unit="Hz", minimum=0.5, maximum=60.0)
    size: int = parameter(4, "frames kept", name="memory.size", unit="frames", minimum=0, maximum=100)
    word: str = parameter("fast", "how", choices=("fast", "slow"), read_only=False)
    name: str = parameter("camera", "name of the camera", read_only=False, at_configure=True)
    loop: bool = parameter(default=False, description="repeat")
    free: float = parameter(0.0, "any number")
    words: tuple[str, ...] = parameter(("one",), "several names")


SPECS = specifications(ExampleParameters)


class FakeNode:
    """Accepts declarations like rclpy's node: a given value must be within the descriptor's range."""

    def __init__(self, **given):
        self.given = {name.replace("__", "."): value for name, value in given.items()}
        self.values = {}
        self.descriptors = {}

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
    ],
)
def test_value_of_a_compatible_type_is_converted(field, value, expected):
    converted = SPECS[field].convert(value)
    assert (converted, type(converted)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("field", "value", "name", "expected"),
    [
        ("size", True, "memory.size", "int"),
        ("size", 4.0, "memory.size", "int"),
        ("size", "4", "memory.size", "int"),
        ("size", None, "memory.size", "int"),
        ("size", [4], "memory.size", "int"),
        ("rate", True, "rate", "float"),
        ("rate", "5", "rate", "float"),
        ("loop", 1, "loop", "bool"),
        ("loop", "true", "loop", "bool"),
        ("name", False, "name", "str"),
        ("name", ["a"], "name", "str"),
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
        ("words", "one", "words", "list"),
        ("words", [1, 2], "words", "list"),
    ],
)
def test_invalid_value_is_rejected_with_name_value_and_expectation(field, value, name, expected):
    with pytest.raises(ConfigurationError) as caught:
        SPECS[field].convert(value)
    text = str(caught.value)
    assert text.startswith(f"parameter {name} must be ")
    assert expected in text
    number_or_text = float(value) if field == "rate" and type(value) is int else value
    assert f"got {number_or_text}" in text or f"got {number_or_text!r}" in text or f"got '{number_or_text}'" in text
    # and reading from a node raises the same error, also for a value that its descriptor refuses
    with pytest.raises(ConfigurationError) as read_error:
        read_from(**{SPECS[field].name.replace(".", "__"): value})
    assert str(read_error.value) == text


def test_specifications_have_names_kinds_and_defaults_of_the_fields():
    assert list(SPECS) == ["rate", "size", "word", "name", "loop", "free", "words"]
    assert [spec.name for spec in SPECS.values()][:3] == ["rate", "memory.size", "word"]
    assert [spec.kind for spec in SPECS.values()] == [float, int, str, str, bool, float, tuple]
    assert [spec.default for spec in SPECS.values()] == [10.0, 4, "fast", "camera", False, 0.0, ("one",)]


def test_descriptors_have_range_unit_choices_and_time_of_change():
    # given
    node = FakeNode()
    declare(node, ExampleParameters)
    rate, size = node.descriptors["rate"], node.descriptors["memory.size"]
    word, name, free = node.descriptors["word"], node.descriptors["name"], node.descriptors["free"]

    # then
    assert rate.description == "images per second [Hz]"
    assert [(bounds.from_value, bounds.to_value, bounds.step) for bounds in rate.floating_point_range] == [
        (0.5, 60.0, 0.0)
    ]
    assert [(bounds.from_value, bounds.to_value, bounds.step) for bounds in size.integer_range] == [(0, 100, 0)]
    assert (len(rate.integer_range), len(size.floating_point_range)) == (0, 0)
    assert (len(free.integer_range), len(free.floating_point_range)) == (0, 0)
    assert word.additional_constraints == "one of: fast, slow"
    assert (rate.read_only, word.read_only, name.read_only) == (True, False, False)
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


def test_value_out_of_range_is_declared_without_the_range():
    node = FakeNode(rate=1000.0)
    declare(node, ExampleParameters)
    assert node.values["rate"] == 1000.0
    assert len(node.descriptors["rate"].floating_point_range) == 0
    assert node.descriptors["rate"].description == "images per second [Hz]"


def test_parameter_file_with_compatible_types_can_be_loaded_again():
    # given a file with numbers for strings and integers for floats
    given = {"model.name": 123, "memory.sample_fps": 5}
    present = {spec.name: spec.default for spec in specifications(SceneMemoryParameters).values()} | given

    # then
    validate_change(present, given, configured=True)
    with pytest.raises(ConfigurationError, match=r"model\.name"):
        validate_change(present, {"model.name": 124}, configured=True)


@pytest.mark.parametrize("parameters", [SceneMemoryParameters, DemoCameraParameters, VideoCameraParameters])
def test_parameters_of_every_node_are_consistent(parameters):
    for spec in specifications(parameters).values():
        assert spec.convert(spec.default) == spec.default
        assert spec.description
        assert (spec.minimum is None) == (spec.maximum is None)
        assert not (spec.read_only and spec.at_configure)
        assert not spec.choices or spec.kind is str
        assert spec.descriptor().name == spec.name
