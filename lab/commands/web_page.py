"""``bench web-page``."""

from __future__ import annotations

from typing import Annotated

import typer

from lab.commands.output import AsJson, print_result


def web_page(
    turns: Annotated[int, typer.Option(help="Pairs of turns, one with the page open and one closed.", min=2)] = 10,
    questions: Annotated[int, typer.Option(help="Questions per turn.", min=1)] = 8,
    rate: Annotated[float, typer.Option(help="Images per second.")] = 30.0,
    height: Annotated[int, typer.Option(help="Image height in pixels.")] = 480,
    width: Annotated[int, typer.Option(help="Image width in pixels.")] = 640,
    as_json: AsJson = False,
) -> None:
    """Measure lost images and latency with the web page open and closed; needs Chromium."""
    from lab.bench.web_page import measure  # noqa: PLC0415  needs ROS and a browser

    print_result(measure(turns, questions, rate, height, width), as_json=as_json)
