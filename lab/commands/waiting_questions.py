"""``bench waiting-questions``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lab.commands.output import AsJson, print_result


def waiting_questions(
    waiting: Annotated[int, typer.Option(help="Questions that wait for the model.", min=2, max=60)] = 10,
    seconds: Annotated[float, typer.Option(help="Length of each measured interval in seconds.", min=1.0)] = 10.0,
    turns: Annotated[int, typer.Option(help="Measurements of each tree.", min=1)] = 3,
    clock: Annotated[float, typer.Option(help="Rate of /clock in Hz; 0 for no simulated time.", min=0.0)] = 0.0,
    against: Annotated[Path | None, typer.Option(help="Root of another source tree to compare with.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure threads, processor time and latency of a node while questions wait."""
    from lab.bench.waiting_questions import measure  # noqa: PLC0415  needs ROS

    print_result(measure(waiting, seconds, turns, clock, against), as_json=as_json)
