"""Node parameters as frozen dataclasses: one field, one declared ROS parameter, one documented meaning.

    @dataclass(frozen=True)
    class DemoCameraParameters:
        rate: float = parameter(10.0, "rate of published images", unit="Hz", minimum=0.1, maximum=120.0)

``declare`` declares the parameters with descriptors. ``read`` returns the validated dataclass. Types are declared
dynamic, so ``rate: 5`` in a YAML file is accepted as 5.0, and a value that cannot be converted gets a clear error
message.
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
    """Definition of one parameter, from the metadata of its dataclass field.

    Attributes:
        name: ROS name.
        kind: Python type of the value; ``tuple`` is a list of strings.
        default: Default value.
        description: Description for ``ros2 param describe``.
        unit: Physical unit; empty if there is none.
        minimum: Lower bound, inclusive; None if there is none.
        maximum: Upper bound, inclusive; None if there is none.
        choices: Allowed strings; empty if any string is allowed.
        read_only: Whether the value is fixed when the node starts.
        at_configure: Whether the value takes effect when the node is configured.
    """

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
        """Return the ROS descriptor: type, description with unit and choices, range, read-only flag."""
        described = f"{self.description} [{self.unit}]" if self.unit else self.description
        if self.at_configure:
            described += "; takes effect at configure, can only change while the node is unconfigured"
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
        """Return ``value`` in the parameter's type.

        Raises:
            ConfigurationError: The value has another type, is out of range or is not one of the choices.
        """
        converted = self._typed(value)
        if isinstance(converted, float) and not math.isfinite(converted):
            raise ConfigurationError(f"parameter {self.name} must be a finite number, got {converted}")
        too_small = self.minimum is not None and converted < self.minimum
        too_large = self.maximum is not None and converted > self.maximum
        if too_small or too_large:
            bounds = f"from {self.minimum} to {self.maximum} {self.unit}".rstrip()
            raise ConfigurationError(f"parameter {self.name} must be {bounds}, got {converted}")
        if self.choices and converted not in self.choices:
            raise ConfigurationError(
                f"parameter {self.name} must be one of {', '.join(self.choices)}, got '{converted}'"
            )
        return converted

    def _typed(self, value: Any) -> Any:
        if self.kind is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if self.kind is str and isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)  # YAML reads the checkpoint 123 and the frame_id 7 as numbers
        if self.kind is tuple:
            return self._strings(value)
        if type(value) is not self.kind:
            raise ConfigurationError(
                f"parameter {self.name} must be of type {self.kind.__name__}, got {value!r}: correct the parameter file"
            )
        return value

    def _strings(self, value: Any) -> tuple[str, ...]:
        if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
            return tuple(value)
        raise ConfigurationError(
            f"parameter {self.name} must be a list of strings such as [front, rear], got {value!r}: correct the "
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
    """Return a dataclass field for a ROS parameter.

    Args:
        default: Default value, which sets the type. A tuple is a list of strings and must not be empty: ROS takes an
            empty list for bytes.
        description: One line for people, shown by ``ros2 param describe``.
        name: ROS name with groups, such as ``memory.star.size``; empty for the name of the field.
        unit: Physical unit; empty if there is none.
        minimum: Lower bound, inclusive; requires ``maximum``.
        maximum: Upper bound, inclusive; requires ``minimum``.
        choices: Allowed values of a string.
        read_only: Whether the value is fixed when the node starts.
        at_configure: Whether the value takes effect when a lifecycle node is configured; requires ``read_only=False``.
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
    """Return the parameters of a dataclass with ``parameter`` fields, by field name, in order."""
    specs = {}
    for field in dataclasses.fields(parameters):
        meta = dict(field.metadata)
        meta["name"] = meta["name"] or field.name
        specs[field.name] = ParameterSpec(kind=type(field.default), default=field.default, **meta)
    return specs


def declare(node: Node, parameters: type) -> None:
    """Declare every parameter of the dataclass on the node, with its descriptor.

    A given value that is out of range is declared without its range. ``read`` then reports it like any other invalid
    value, and a lifecycle node keeps running until a valid value is set.
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
    """Return the present values of the declared parameters as the dataclass.

    Raises:
        ConfigurationError: A parameter has an invalid value.
    """
    values = {
        field: spec.convert(node.get_parameter(spec.name).value) for field, spec in specifications(parameters).items()
    }
    return parameters(**values)
