"""``bench camera-load``."""

from __future__ import annotations

from typing import Annotated

import typer

from lab.commands.output import AsJson, print_json


def camera_load(
    rate: Annotated[float, typer.Option(help="Images per second of the fast camera.")] = 60.0,
    height: Annotated[int, typer.Option(help="Image height in pixels.")] = 1080,
    width: Annotated[int, typer.Option(help="Image width in pixels.")] = 1920,
    seconds: Annotated[float, typer.Option(help="Length of each run in seconds.")] = 60.0,
    as_json: AsJson = False,
) -> None:
    """Measure the cost of a fast camera, with raw and compressed images."""
    from lab.bench.camera_load import measure  # noqa: PLC0415  needs ROS

    result = measure(rate, height, width, seconds)
    if as_json:
        print_json(result)
        return
    for name, run in result.items():
        if name != "shape":
            print(f"{name}: " + ", ".join(f"{key} {value:g}" for key, value in run.items()))
