"""The page about agents agrees with the server."""

import json
import re
from pathlib import Path

from delayed_vlm_ros.agents.access import TOKEN_VARIABLE
from delayed_vlm_ros.agents.images import MAX_BYTES, MAX_SIDE
from delayed_vlm_ros.agents.resources import RESOURCES, TEMPLATES
from delayed_vlm_ros.agents.tools import TOOLS
from delayed_vlm_ros.cli import mcp

PAGE = (Path(__file__).parents[3] / "docs" / "agents.md").read_text(encoding="utf-8")


def changes(hints):
    if hints.read_only_hint:
        return "nothing"
    return "removes" if hints.destructive_hint else "adds"


def test_table_has_every_tool_with_its_arguments_and_hints():
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]*)\| (\w+) \|$", PAGE, re.MULTILINE)
    shown = {name: (re.findall(r"`(\w+)`", arguments), changed) for name, arguments, changed in rows}
    assert shown == {tool.name: (list(tool.arguments.model_fields), changes(tool.hints)) for tool in TOOLS}


def test_every_resource_is_explained():
    uris = {resource.uri for resource in RESOURCES} | {template.uri_template for template in TEMPLATES}
    assert set(re.findall(r"^\| `(scene://[^`]+)` \|", PAGE, re.MULTILINE)) == uris


def test_limits_and_names_are_those_of_the_server():
    assert f"{MAX_SIDE:,} pixels and {MAX_BYTES // 1000} kB" in PAGE
    assert TOKEN_VARIABLE == mcp._TOKEN_VARIABLE
    assert TOKEN_VARIABLE in PAGE
    assert f":{mcp._PORT}/mcp" in PAGE


def test_configurations_of_clients_are_valid():
    blocks = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]
    assert [set(block["mcpServers"]["robot"]) for block in blocks] == [{"command", "args", "env"}, {"url", "headers"}]
