"""Options and output that the commands share."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Model = Annotated[str, typer.Option(help="Checkpoint folder or name, or 'demo'.")]
Device = Annotated[str, typer.Option(help="Device of the model: auto, cpu, cuda or cuda:N.")]


def print_json(result: Mapping[str, Any]) -> None:
    """Print a result as one JSON object."""
    sys.stdout.write(json.dumps(result, indent=2) + "\n")


def print_result(result: Mapping[str, Any], *, as_json: bool) -> None:
    """Print a result as one JSON object or as one line per key."""
    if as_json:
        print_json(result)
        return
    for name, value in result.items():
        print(f"{name}: {value}")
