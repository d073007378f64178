"""The page about standing questions agrees with the code."""

import ast
import re
from dataclasses import MISSING, fields
from enum import Enum
from pathlib import Path

import yaml

from delayed_vlm_ros.replay.watch_file import KEYS, parse_watches
from delayed_vlm_ros.watches import Gate, Level, Watch

PAGE = (Path(__file__).parents[3] / "docs" / "watches.md").read_text(encoding="utf-8")


def test_table_of_settings_has_every_setting_with_its_default():
    rows = re.findall(r"^\| `(\w+)` \| (\S+) \|", PAGE.split("## Settings")[1].split("**Gates.**")[0], re.MULTILINE)
    expected = {}
    for field in fields(Watch):
        value = field.default.value if isinstance(field.default, Enum) else field.default
        expected[field.name] = "required" if value is MISSING else value
    shown = {name: _value(text) for name, text in rows}
    assert shown == expected
    assert list(shown) == list(expected)


def _value(text):
    plain = text.strip("`")
    try:
        return ast.literal_eval(plain.capitalize() if plain in ("true", "false") else plain)
    except (ValueError, SyntaxError):
        return plain


def test_every_gate_and_level_is_explained():
    gates = PAGE.split("**Gates.**")[1].split("**Hysteresis")[0]
    levels = PAGE.split("## Unknown is not no")[1].split("\n## ")[0]
    assert all(f"`{gate.value}`" in gates for gate in Gate)
    assert all(f"`{level.name}`" in levels for level in Level)


def test_watch_of_the_recording_example_is_valid():
    example = PAGE.split("## On a recording")[1].split("```yaml\n")[1].split("```")[0]
    (timed,) = parse_watches(example, "docs/watches.md")
    assert timed.expect == ((12.0, 20.5), (31.0, 40.0))
    assert {"camera", "once", "lifetime_sec"} == {field.name for field in fields(Watch)} - {*KEYS, "question"}


def test_parameters_of_the_example_are_settings_of_a_watch():
    example = PAGE.split("```yaml\n")[1].split("```")[0]
    parameters = yaml.safe_load(example)["/**"]["ros__parameters"]
    names = {key.split(".")[2] for key in parameters if key.count(".") == 2}
    assert names <= {field.name for field in fields(Watch)} - {"name", "once", "lifetime_sec"}
