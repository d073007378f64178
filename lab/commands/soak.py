"""``bench soak``."""

from __future__ import annotations

from typing import Annotated

import typer

from lab.commands.output import AsJson, print_result


def soak(
    frames: Annotated[int, typer.Option(help="Number of frames; 172800 are a day.", min=100)] = 172_800,
    ask_every: Annotated[int, typer.Option(help="Frames from question to question.", min=10)] = 600,
    as_json: AsJson = False,
) -> None:
    """Run an accelerated day in one process and fit a line to its resident memory."""
    from lab.bench.soak import measure  # noqa: PLC0415  imports torch

    def show(line: str) -> None:
        if not as_json:
            print(line, flush=True)

    print_result(measure(frames, ask_every, show), as_json=as_json)
