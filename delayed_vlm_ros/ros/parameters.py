"""Node parameters as frozen dataclasses: one field, one declared ROS parameter, one documented meaning.

    @dataclass(frozen=True)
    class DemoCameraParameters:
        rate: float = parameter(10.0, "images published per second", unit="Hz", minimum=0.1, maximum=120.0)

``declare`` announces them with descriptors; ``read`` gives the dataclass, checked. Types are declared dynamic so that
``rate: 5`` in a YAML file is a 5.0 and not the end of the node; what cannot be converted is refused in a sentence.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from delayed_vlm_ros.errors import ConfigurationError

_Parameters = TypeVar("_Parameters")

_PARAMETER_TYPES = {
    bool: Parameter.Type.BOOL,
    int: Parameter.Type.INTEGER,
    float: Parameter.Type.DOUBLE,
    str: Parameter.Type.STRING,
    tuple: Parameter.Type.STRING_ARRAY,
}


@dataclass(frozen=True)
class ParameterSpec:
    """What a parameter means. Kept in the metadata of its dataclass field."""

    name: str
    kind: type
    default: Any
    description: str
    unit: str
    minimum: float | None
    maximum: float | None
    choices: tuple[str, ...]
    read_only: bool
    at_configure: bool

    def descriptor(self) -> ParameterDescriptor:
        """The ROS descriptor: type, description with unit and choices, range, read-only flag."""
        described = f"{self.description} [{self.unit}]" if self.unit else self.description
        if self.at_configure:
            described += "; taken at configure, may change only while the node is unconfigured"
        descriptor = ParameterDescriptor(
            name=self.name,
            type=_PARAMETER_TYPES[self.kind].value,
            description=described,
            additional_constraints=f"one of: {', '.join(self.choices)}" if self.choices else "",
            read_only=self.read_only,
            dynamic_typing=True,
        )
        if self.minimum is not None and self.maximum is not None:
            if self.kind is int:
                bounds = IntegerRange(from_value=int(self.minimum), to_value=int(self.maximum), step=0)
                descriptor.integer_range = [bounds]
            else:
                bounds = FloatingPointRange(from_value=float(self.minimum), to_value=float(self.maximum), step=0.0)
                descriptor.floating_point_range = [bounds]
        return descriptor

    def convert(self, value: Any) -> Any:
        """Give ``value`` the parameter's type.

        Raises:
            ConfigurationError: It has another type, lies out of range, or is none of the choices.
        """
        converted = self._typed(value)
        if isinstance(converted, float) and not math.isfinite(converted):
            raise ConfigurationError(f"parameter {self.name} is {converted}; it must be a finite number")
        too_small = self.minimum is not None and converted < self.minimum
        too_large = self.maximum is not None and converted > self.maximum
        if too_small or too_large:
            bounds = f"from {self.minimum} to {self.maximum} {self.unit}".rstrip()
            raise ConfigurationError(f"parameter {self.name} is {converted}; it must be {bounds}")
        if self.choices and converted not in self.choices:
            raise ConfigurationError(
                f"parameter {self.name} is '{converted}'; it must be one of {', '.join(self.choices)}"
            )
        return converted

    def _typed(self, value: Any) -> Any:
        if self.kind is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if self.kind is str and isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)  # a checkpoint called 123, a frame_id called 7
        if self.kind is tuple:
            return self._words(value)
        if type(value) is not self.kind:
            raise ConfigurationError(
                f"parameter {self.name} is {value!r}; it must be of type {self.kind.__name__}: "
                "change it in the parameter file"
            )
        return value

    def _words(self, value: Any) -> tuple[str, ...]:
        if isinstance(value, list | tuple) and all(isinstance(word, str) for word in value):
            return tuple(value)
        raise ConfigurationError(
            f"parameter {self.name} is {value!r}; it must be a list of words, such as [front, rear]: change it in the "
            "parameter file"
        )


def parameter(
    default: Any,
    description: str,
    *,
    name: str = "",
    unit: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
    read_only: bool = True,
    at_configure: bool = False,
) -> Any:
    """A dataclass field that is a ROS parameter.

    Args:
        default: Value when nobody sets it; its type is the parameter's. A tuple is a list of words; not an empty one,
            which ROS takes for bytes.
        description: One line for people, shown by ``ros2 param describe``.
        name: ROS name where it differs from the field's, with groups: ``memory.star.size``.
        unit: Physical unit, empty where there is none.
        minimum: Lower bound, inclusive; give both bounds or none.
        maximum: Upper bound, inclusive.
        choices: Allowed words, for a string.
        read_only: True when it only takes effect at the node's start.
        at_configure: True when it takes effect as a managed node is configured; for a parameter that is not read-only.
    """
    metadata = {
        "name": name,
        "description": description,
        "unit": unit,
        "minimum": minimum,
        "maximum": maximum,
        "choices": choices,
        "read_only": read_only,
        "at_configure": at_configure,
    }
    return dataclasses.field(default=default, metadata=metadata)


def specifications(parameters: type) -> dict[str, ParameterSpec]:
    """The parameters of a dataclass made with ``parameter``, by field name, in order."""
    specs = {}
    for field in dataclasses.fields(parameters):
        meta = dict(field.metadata)
        meta["name"] = meta["name"] or field.name
        specs[field.name] = ParameterSpec(kind=type(field.default), default=field.default, **meta)
    return specs


def declare(node: Node, parameters: type) -> None:
    """Declare every parameter of the dataclass on the node, with its descriptor.

    A value given from outside that lies out of range is kept for ``read`` to complain about, in the same words as for
    any other wrong value: a managed node lives on then, until somebody sets a better one.
    """
    for spec in specifications(parameters).values():
        _declare_one(node, spec)


def _declare_one(node: Node, spec: ParameterSpec) -> None:
    default = list(spec.default) if spec.kind is tuple else spec.default
    try:
        node.declare_parameter(spec.name, default, spec.descriptor())
    except InvalidParameterValueException:
        without_range = dataclasses.replace(spec, minimum=None, maximum=None)
        node.declare_parameter(spec.name, default, without_range.descriptor())


def read(node: Node, parameters: type[_Parameters]) -> _Parameters:
    """The declared parameters' present values as the dataclass.

    Raises:
        ConfigurationError: One of them has a value that cannot work.
    """
    values = {
        field: spec.convert(node.get_parameter(spec.name).value) for field, spec in specifications(parameters).items()
    }
    return parameters(**values)
