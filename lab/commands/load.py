"""``bench load``."""

from __future__ import annotations

from typing import Annotated

import typer

from lab.commands.output import AsJson, print_result


def load(
    rate: Annotated[float, typer.Option(help="Images per second.")] = 30.0,
    height: Annotated[int, typer.Option(help="Image height in pixels.")] = 480,
    width: Annotated[int, typer.Option(help="Image width in pixels.")] = 640,
    seconds: Annotated[float, typer.Option(help="Length of the measured interval in seconds.", min=1.0)] = 600.0,
    watches: Annotated[
        int | None,
        typer.Option(help="Number of watches of one second's period, instead of questions; 0: no work.", min=0),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Ask one question after the other, or let the node check watches, while a fast camera publishes."""
    from lab.bench.load import measure  # noqa: PLC0415  needs ROS

    print_result(measure(rate, height, width, seconds, watches), as_json=as_json)
