"""Node parameters as frozen dataclasses: one field, one declared ROS parameter, one documented meaning.

    @dataclass(frozen=True)
    class DemoCameraParameters:
        rate: float = parameter(10.0, "rate of published images", unit="Hz", minimum=0.1, maximum=120.0)

``declare`` declares the parameters with descriptors. ``read`` returns the validated dataclass. Types are declared
dynamic, so ``rate: 5`` in a YAML file is accepted as 5.0, ``mode: off``, which YAML reads as false, as ``off``, and a
value that cannot be converted gets a clear error message.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from delayed_vlm_ros.errors import ConfigurationError
from delayed_vlm_ros.ros.parameter_values import EXPECTED, converted, remedy, shown

_Parameters = TypeVar("_Parameters")

_PARAMETER_TYPES = {
    bool: Parameter.Type.BOOL,
    int: Parameter.Type.INTEGER,
    float: Parameter.Type.DOUBLE,
    str: Parameter.Type.STRING,
    tuple: Parameter.Type.STRING_ARRAY,
}

QOS_GROUP = "qos_overrides."
"""First part of the names that rclpy declares with a publisher or subscription."""

_SIMILARITY = 0.6  # of two parameters' names, for difflib


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
        """Return the ROS descriptor: type, description with unit and choices, range.

        ``read_only`` is in the description only: rclpy refuses to set a read-only parameter even to its present value,
        and with it ``ros2 param load`` of a file. ``declare`` refuses other values.
        """
        described = f"{self.description} [{self.unit}]" if self.unit else self.description
        if self.at_configure:
            described += "; takes effect at configure, can only change while the node is unconfigured"
        if self.read_only:
            described += "; fixed when the node starts"
        descriptor = ParameterDescriptor(
            name=self.name,
            type=_PARAMETER_TYPES[self.kind].value,
            description=described,
            additional_constraints=f"one of: {', '.join(self.choices)}" if self.choices else "",
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
        typed = self._typed(value)
        if isinstance(typed, float) and not math.isfinite(typed):
            raise ConfigurationError(f"parameter {self.name} must be a finite number, got {typed}")
        too_small = self.minimum is not None and typed < self.minimum
        too_large = self.maximum is not None and typed > self.maximum
        if too_small or too_large:
            bounds = f"from {self.minimum} to {self.maximum} {self.unit}".rstrip()
            raise ConfigurationError(f"parameter {self.name} must be {bounds}, got {typed}")
        if self.choices and typed not in self.choices:
            raise ConfigurationError(f"parameter {self.name} must be one of {', '.join(self.choices)}, got '{typed}'")
        return typed

    def _typed(self, value: Any) -> Any:
        typed = converted(value, self.kind, self.choices)
        if typed is None:
            raise ConfigurationError(
                f"parameter {self.name} must be {EXPECTED[self.kind]}, got {shown(value)}: "
                f"{remedy(self.name, value, self.kind, self.default)}"
            )
        return typed


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


def specifications(parameters: type, prefix: str = "") -> dict[str, ParameterSpec]:
    """Return the parameters of a dataclass with ``parameter`` fields, by field name, in order.

    Args:
        parameters: The dataclass.
        prefix: First part of all ROS names.
    """
    specs = {}
    for field in dataclasses.fields(parameters):
        meta = dict(field.metadata)
        meta["name"] = prefix + (meta["name"] or field.name)
        specs[field.name] = ParameterSpec(kind=type(field.default), default=field.default, **meta)
    return specs


def declare(node: Node, parameters: type, prefix: str = "") -> None:
    """Declare every parameter of the dataclass on the node, with its descriptor.

    A given value that is out of range is declared without its range. ``read`` then reports it like any other invalid
    value, and a lifecycle node keeps running until a valid value is set. A request that changes a read-only parameter
    is refused.

    Args:
        node: The node.
        parameters: The dataclass.
        prefix: First part of all ROS names.
    """
    specs = tuple(specifications(parameters, prefix).values())
    for spec in specs:
        _declare_one(node, spec)
    node.add_on_set_parameters_callback(partial(_refuse_read_only, node, [spec for spec in specs if spec.read_only]))


def _refuse_read_only(
    node: Node, read_only: Iterable[ParameterSpec], changes: list[Parameter[Any]]
) -> SetParametersResult:
    given = {change.name: change.value for change in changes}
    try:
        changed = [
            one.name for one in read_only if one.name in given and one.convert(given[one.name]) != _present(node, one)
        ]
    except ConfigurationError as error:
        return SetParametersResult(successful=False, reason=str(error))
    reason = (
        f"parameter {changed[0]} is fixed when the node starts: set it in the parameter file and restart the node"
        if changed
        else ""
    )
    return SetParametersResult(successful=not changed, reason=reason)


def _present(node: Node, spec: ParameterSpec) -> Any:
    """Return the present value of a parameter.

    Raises:
        ConfigurationError: The value is invalid.
    """
    return spec.convert(node.get_parameter(spec.name).value)


def _declare_one(node: Node, spec: ParameterSpec) -> None:
    default = list(spec.default) if spec.kind is tuple else spec.default
    try:
        node.declare_parameter(spec.name, default, spec.descriptor())
    except InvalidParameterValueException:
        without_range = dataclasses.replace(spec, minimum=None, maximum=None)
        node.declare_parameter(spec.name, default, without_range.descriptor())


def read(node: Node, parameters: type[_Parameters], prefix: str = "") -> _Parameters:
    """Return the present values of the declared parameters as the dataclass.

    Args:
        node: The node.
        parameters: The dataclass.
        prefix: First part of all ROS names.

    Raises:
        ConfigurationError: A parameter has an invalid value.
    """
    values = {field: _present(node, spec) for field, spec in specifications(parameters, prefix).items()}
    return parameters(**values)


def read_or_default(node: Node, spec: ParameterSpec) -> Any:
    """Return the present value of a declared parameter; its default while the value is invalid."""
    try:
        return _present(node, spec)
    except ConfigurationError:
        return spec.default


def unknown_name_warnings(node: Node, *, group: str = "") -> list[str]:
    """Return a warning for each given parameter that the node has not declared, with the name that may be meant.

    Args:
        node: A node that has declared its parameters.
        group: Look at the names that begin with this, such as ``qos_overrides.``; empty: at all but these.
    """
    # Nothing public tells the values of the command line and of parameter files.
    given: Iterable[str] = getattr(node, "_parameter_overrides", {})
    known = sorted(node.get_parameters_by_prefix(""))
    looked_at = [name for name in given if name.startswith(group or QOS_GROUP) == bool(group)]
    return [_unknown_name(name, known) for name in looked_at if not node.has_parameter(name)]


def _unknown_name(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=_SIMILARITY)
    if not close:
        last_words = {one.rpartition(".")[2]: one for one in known}
        matches = difflib.get_close_matches(name.rpartition(".")[2], last_words, n=1, cutoff=_SIMILARITY)
        close = [last_words[match] for match in matches]
    hint = f"did you mean {close[0]}?" if close else "ros2 param list shows the parameters"
    return f"unknown parameter {name}: its value is not used; {hint}"
