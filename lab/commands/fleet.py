"""``bench fleet``."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from delayed_vlm_ros.inference.remote.settings import Encoding, RemoteSettings
from delayed_vlm_ros.memory import MemoryConfig
from delayed_vlm_ros.scenes import HELD_OUT_SEEDS
from lab.commands.output import AsJson, print_json
from lab.commands.remote_answers import FrameMultiple, JpegQuality, Server

_MOST_ROBOTS = 64
_FIRST_SCENE = 5_000  # scenes that no other benchmark shows
_SCENES = 100  # of a run


def fleet(
    server: Server,
    robots: Annotated[str, typer.Option(help="Numbers of robots, separated by commas.")] = "1,2,4,8",
    seconds: Annotated[float, typer.Option(help="Time for which each robot asks.", min=1.0)] = 60.0,
    every: Annotated[float, typer.Option(help="Seconds of the camera between two questions.", min=0.5)] = 10.0,
    paced: Annotated[bool, typer.Option("--paced", help="Wait for this time; otherwise, ask at once.")] = False,
    encoding: Annotated[Encoding, typer.Option(help="How frames are sent.")] = Encoding.AUTO,
    star: Annotated[int, typer.Option(help="Key frames over the whole past, in frames.", min=0)] = 20,
    stream: Annotated[int, typer.Option(help="Newest frames, in frames.", min=2)] = 20,
    frame_multiple: FrameMultiple = 28,
    max_pixels: Annotated[int, typer.Option(help="Largest height × width of a kept frame.", min=1)] = 112 * 140,
    seed: Annotated[int, typer.Option(help="Seed of the scenes; a server knows those of earlier runs.", min=0)] = 0,
    jpeg_quality: JpegQuality = RemoteSettings.jpeg_quality,
    as_json: AsJson = False,
) -> None:
    """Let simulated robots, each a process, ask one server at the same time."""
    from lab.bench.fleet import FleetPlan, measure_fleet  # noqa: PLC0415  imports the client library

    console = Console(stderr=as_json)
    settings = RemoteSettings(encoding, jpeg_quality=jpeg_quality, frame_multiple=frame_multiple)
    rows, scene = [], HELD_OUT_SEEDS.start + _FIRST_SCENE + _SCENES * seed
    for number in _numbers(robots):
        plan = FleetPlan(server, settings, MemoryConfig(star, stream), max_pixels, seconds, every, paced, scene)
        with console.status(f"robots: {number}"):
            rows.append(measure_fleet(plan, number))
        scene += number
    if as_json:
        shape = {"encoding": encoding.value, "seconds": seconds, "every_sec": every, "paced": paced, "seed": seed}
        print_json({"shape": {**shape, "star": star, "stream": stream}, "fleets": rows})
        return
    console.print(_table(rows))


def _numbers(text: str) -> list[int]:
    try:
        numbers = [int(one) for one in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or not all(1 <= one <= _MOST_ROBOTS for one in numbers):
        raise typer.BadParameter(f"numbers from 1 to {_MOST_ROBOTS} separated by commas expected, got '{text}'")
    return numbers


def _table(rows: list[Any]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    headings = ("robots", "answers/s", "first token p50, p95 (s)", "total p50, p95 (s)", "bytes", "tokens", "cached")
    for heading in (*headings, "errors"):
        table.add_column(heading, justify="right")
    for row in rows:
        costs = ["", "", "", "", ""]
        if row["answers"]:
            times = [f"{row[key]['p50']:.2f}, {row[key]['p95']:.2f}" for key in ("first_token_sec", "total_sec")]
            costs = [*times, str(row["bytes_per_question"]), str(row["prompt_tokens"]), f"{row['cached_share']:.0%}"]
        table.add_row(str(row["robots"]), f"{row['answers_per_sec']:.2f}", *costs, str(sum(row["errors"].values())))
    return table
