"""``bench trace``."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from delayed_vlm_ros.cli.bench import random_model_setup
from delayed_vlm_ros.memory import MemoryConfig
from delayed_vlm_ros.memory.limits import default_eviction_chunk
from lab.commands.output import AsJson, print_json


class Mode(str, Enum):
    """What is encoded ahead."""

    OFF = "off"
    VISION = "vision"
    FULL = "full"


def trace(
    tokens_per_pair: Annotated[int, typer.Option(help="Merged tokens per pair; a square number.", min=4)] = 64,
    device_sec: Annotated[
        list[float] | None,
        typer.Option(help="Seconds of native inference on 20 pairs on the simulated device; repeatable."),
    ] = None,
    every: Annotated[list[float] | None, typer.Option(help="Seconds from question to question; repeatable.")] = None,
    chunk: Annotated[
        list[int] | None, typer.Option(help="Frames that leave the memory together; repeatable.", min=0)
    ] = None,
    star: Annotated[int, typer.Option(help="Frames in Star memory.", min=2)] = MemoryConfig.star_memory_size,
    stream: Annotated[int, typer.Option(help="Frames in Stream memory.", min=2)] = MemoryConfig.stream_window_size,
    traced_sec: Annotated[
        float, typer.Option(help="Approximate length of each simulation in seconds of virtual time.", min=1)
    ] = 450.0,
    turns: Annotated[int, typer.Option(help="Turns of the calibration.", min=1)] = 5,
    real_time_sec: Annotated[
        float, typer.Option(help="Length of the real-time run of each mode in seconds; 0 disables it.", min=0)
    ] = 60.0,
    canonical: Annotated[
        bool, typer.Option(help="Answer warm questions in the same steps as cold ones, for bitwise equal answers.")
    ] = True,
    seed: Annotated[int, typer.Option(help="Seed of weights and images.", min=0)] = 3,
    mode: Annotated[list[Mode] | None, typer.Option(help="What is encoded ahead; repeatable.")] = None,
    duty: Annotated[
        list[float] | None,
        typer.Option(help="Largest share of the device's time for encoding ahead; repeatable.", min=0.01, max=1.0),
    ] = None,
    costs: Annotated[
        Path | None,
        typer.Option(
            help="Earlier result of this command, whose costs are used; then only virtual time is simulated.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Simulate a camera's day: cost of questions while frames keep arriving, by what is encoded ahead."""
    from lab.bench.trace import Costs  # noqa: PLC0415  imports torch
    from lab.bench.trace_report import TracePlan, measure_trace, simulate_devices  # noqa: PLC0415  the same

    measured, traced = (
        random_model_setup(shape, tokens_per_pair, 20, seed, canonical=canonical) for shape in ("small", "tiny")
    )
    plan = TracePlan(
        devices=tuple(device_sec or (0.5, 3.0)),
        intervals=tuple(every or (1.0, 5.0, 10.0, 30.0, 60.0, 600.0)),
        chunks=tuple(chunk or (0, default_eviction_chunk(star, stream))),
        traced_sec=traced_sec,
        turns=turns,
        real_time_sec=real_time_sec,
        seed=seed,
        modes=tuple(one.value for one in mode or Mode),
        duties=tuple(duty or (1.0,)),
        star=star,
        stream=stream,
    )
    console = Console(stderr=as_json)
    with console.status("") as status:
        if costs is None:
            result = measure_trace(measured, traced, plan, status.update)
        else:
            known = json.loads(costs.read_text())["costs"]
            devices = simulate_devices(measured, traced, plan, Costs(**known), status.update)
            result = {"costs": known, "devices": devices}
    result["shape"] = {
        "tokens_per_pair": tokens_per_pair,
        "star_frames": star,
        "stream_frames": stream,
        "turns": turns,
        "canonical": canonical,
        "seed": seed,
    }
    if as_json:
        print_json(result)
        return
    for device, traces in result["devices"].items():
        table = Table(title=f"time to the first token ÷ native inference, which takes {device} s for 20 pairs")
        for heading in traces[0]:
            table.add_column(heading, justify="right")
        for one in traces:
            table.add_row(*(f"{value:g}" if isinstance(value, float) else str(value) for value in one.values()))
        console.print(table)
