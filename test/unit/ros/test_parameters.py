"""Parameters as dataclasses: types, ranges, choices, descriptors, and the way through a node."""

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
from delayed_vlm_ros.ros.scene_memory.parameters import SceneMemoryParameters, check_change


@dataclass(frozen=True)
class ExampleParameters:
    rate: float = parameter(10.0, "images per second", unit="Hz", minimum=0.5, maximum=60.0)
    size: int = parameter(4, "frames kept", name="memory.size", unit="frames", minimum=0, maximum=100)
    word: str = parameter("fast", "how", choices=("fast", "slow"), read_only=False)
    name: str = parameter("camera", "name of the camera", read_only=False, at_configure=True)
    loop: bool = parameter(default=False, description="again and again")
    free: float = parameter(0.0, "any number")
    words: tuple[str, ...] = parameter(("one",), "several names")


SPECS = specifications(ExampleParameters)


class FakeNode:
    """Takes declarations as rclpy's node does: what is given from outside must lie within the descriptor's range."""

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


def test_without_values_from_outside_the_defaults_count():
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
def test_what_can_be_meant_is_understood(field, value, expected):
    converted = SPECS[field].convert(value)
    assert (converted, type(converted)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("size", True, "parameter memory.size is True; it must be of type int: change it in the parameter file"),
        ("size", 4.0, "parameter memory.size is 4.0; it must be of type int"),
        ("size", "4", "parameter memory.size is '4'; it must be of type int"),
        ("size", None, "parameter memory.size is None; it must be of type int"),
        ("size", [4], "parameter memory.size is [4]; it must be of type int"),
        ("rate", True, "parameter rate is True; it must be of type float"),
        ("rate", "5", "parameter rate is '5'; it must be of type float"),
        ("loop", 1, "parameter loop is 1; it must be of type bool"),
        ("loop", "true", "parameter loop is 'true'; it must be of type bool"),
        ("name", False, "parameter name is False; it must be of type str"),
        ("name", ["a"], "parameter name is ['a']; it must be of type str"),
        ("rate", 0.49, "parameter rate is 0.49; it must be from 0.5 to 60.0 Hz"),
        ("rate", 61, "parameter rate is 61.0; it must be from 0.5 to 60.0 Hz"),
        ("size", -1, "parameter memory.size is -1; it must be from 0 to 100 frames"),
        ("size", 101, "parameter memory.size is 101; it must be from 0 to 100 frames"),
        ("rate", math.nan, "parameter rate is nan; it must be a finite number"),
        ("rate", math.inf, "parameter rate is inf; it must be a finite number"),
        ("free", -math.inf, "parameter free is -inf; it must be a finite number"),
        ("word", "quick", "parameter word is 'quick'; it must be one of fast, slow"),
        ("word", "", "parameter word is ''; it must be one of fast, slow"),
        ("word", 5, "parameter word is '5'; it must be one of fast, slow"),
    ],
)
def test_what_cannot_work_is_refused_in_a_sentence(field, value, sentence):
    with pytest.raises(ConfigurationError) as caught:
        SPECS[field].convert(value)
    assert sentence in str(caught.value)

    # and the node says the same, whether it is seen as it is declared or only as it is read
    with pytest.raises(ConfigurationError) as read_error:
        read_from(**{SPECS[field].name.replace(".", "__"): value})
    assert str(read_error.value) == str(caught.value)


def test_names_kinds_and_defaults_come_from_the_fields():
    assert list(SPECS) == ["rate", "size", "word", "name", "loop", "free", "words"]
    assert [spec.name for spec in SPECS.values()][:3] == ["rate", "memory.size", "word"]
    assert [spec.kind for spec in SPECS.values()] == [float, int, str, str, bool, float, tuple]
    assert [spec.default for spec in SPECS.values()] == [10.0, 4, "fast", "camera", False, 0.0, ("one",)]


def test_descriptors_say_range_unit_choices_and_when_it_may_change():
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
    assert "may change only while the node is unconfigured" in name.description
    assert node.descriptors["loop"].type == ParameterType.PARAMETER_BOOL
    assert (rate.type, size.type, word.type) == (
        ParameterType.PARAMETER_DOUBLE,
        ParameterType.PARAMETER_INTEGER,
        ParameterType.PARAMETER_STRING,
    )
    # Else rclpy would end the node over `rate: 5`, before any word of ours.
    assert all(descriptor.dynamic_typing for descriptor in node.descriptors.values())


def test_an_out_of_range_value_is_declared_nevertheless_so_that_the_node_lives():
    node = FakeNode(rate=1000.0)
    declare(node, ExampleParameters)
    assert node.values["rate"] == 1000.0
    assert len(node.descriptors["rate"].floating_point_range) == 0
    assert node.descriptors["rate"].description == "images per second [Hz]"


def test_a_parameter_file_may_be_loaded_again_while_the_node_runs():
    # given a file that has numbers where words and fractions are meant
    given = {"model.name": 123, "memory.sample_fps": 5}
    present = {spec.name: spec.default for spec in specifications(SceneMemoryParameters).values()} | given

    # then
    check_change(present, given, configured=True)
    with pytest.raises(ConfigurationError, match=r"model\.name is taken when the node is configured"):
        check_change(present, {"model.name": 124}, configured=True)


@pytest.mark.parametrize("parameters", [SceneMemoryParameters, DemoCameraParameters, VideoCameraParameters])
def test_every_parameter_of_every_node_is_sound(parameters):
    for spec in specifications(parameters).values():
        assert spec.convert(spec.default) == spec.default
        assert spec.description
        assert (spec.minimum is None) == (spec.maximum is None)
        assert not (spec.read_only and spec.at_configure)
        assert not spec.choices or spec.kind is str
        assert spec.descriptor().name == spec.name
