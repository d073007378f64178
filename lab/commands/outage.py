"""``bench outage``."""

from __future__ import annotations

from typing import Annotated

import typer

from lab.commands.output import AsJson, print_result


def outage(
    robots: Annotated[int, typer.Option(help="Number of robots.", min=1)] = 8,
    seconds: Annotated[float, typer.Option(help="Length of the run in seconds.", min=10.0)] = 600.0,
    rate: Annotated[float, typer.Option(help="Images per second of each robot.")] = 4.0,
    pause: Annotated[float, typer.Option(help="Seconds between an answer and the robot's next question.")] = 2.0,
    timeout: Annotated[float, typer.Option(help="Deadline of each question in seconds.")] = 10.0,
    as_json: AsJson = False,
) -> None:
    """Kill and restart the model server of several robots twice while they see and ask."""
    from lab.bench.outage import measure  # noqa: PLC0415  needs ROS

    print_result(measure(robots, seconds, rate, pause, timeout), as_json=as_json)
