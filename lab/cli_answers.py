"""``delayed-vlm bench answers`` and ``delayed-vlm sweep``: what a memory is worth, by answers and by parameters."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from delayed_vlm_ros.cli.progress import remaining_time

if TYPE_CHECKING:
    from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine
    from lab.bench.answers import AnswerPlan

_WORLDS = ("held-out", "tuning")
_STREAM_MINUTE_SEC = 1.5  # of one core, for a minute of a stream and all that is asked about it


def answers(
    model: Annotated[str, typer.Option(help="A checkpoint's folder or name, or 'demo'.")] = "demo",
    device: Annotated[str, typer.Option(help="Where the model runs: auto, cpu, cuda, cuda:1.")] = "auto",
    room: Annotated[
        list[str] | None,
        typer.Option(help="lively (things come and go) or quiet (rare, brief visits); may be given repeatedly."),
    ] = None,
    streams: Annotated[int, typer.Option(help="Streams of each kind of room.", min=2)] = 200,
    minutes: Annotated[float, typer.Option(help="Length of each; the embedded model reads up to ten.", min=0.5)] = 3.0,
    star: Annotated[int, typer.Option(help="Key frames over the whole past, in frames.", min=0)] = 20,
    stream: Annotated[int, typer.Option(help="Newest frames, in frames.", min=2)] = 20,
    importance_threshold: Annotated[
        float, typer.Option(help="Importance from which a frame is a key frame.", min=0.0, max=1.0)
    ] = 0.6,
    worlds: Annotated[str, typer.Option(help="Which scenes: held-out or tuning.")] = _WORLDS[0],
    jobs: Annotated[int, typer.Option(help="Processes, each with the model.", min=1)] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Questions about now, the past and its order, by which pairs were kept: this memory beside the newest."""
    chosen = tuple(dict.fromkeys(room or ("lively", "quiet")))
    for one in chosen:
        if one not in ("lively", "quiet"):
            raise typer.BadParameter(f"the room '{one}' is unknown: use lively or quiet", param_hint="--room")
    if worlds not in _WORLDS:
        raise typer.BadParameter(f"'{worlds}' is none of {', '.join(_WORLDS)}", param_hint="--worlds")
    from delayed_vlm_ros import scenes  # noqa: PLC0415

    pool = scenes.HELD_OUT_SEEDS if worlds == _WORLDS[0] else scenes.TUNING_SEEDS
    if streams > len(pool):
        raise typer.BadParameter(f"{streams} are more than the {len(pool)} of these worlds", param_hint="--streams")
    console = Console(stderr=as_json)
    expected = len(chosen) * streams * minutes * _STREAM_MINUTE_SEC / jobs / 60.0
    console.print(f"streams: {len(chosen) * streams}, about {max(1, round(expected))} min", highlight=False)

    from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine  # noqa: PLC0415
    from lab.bench import (
        answer_streams,
        answers,
    )

    plans = [answers.AnswerPlan(one, minutes, star, stream, importance_threshold) for one in chosen]
    plans[0].memory()  # what cannot work is said now
    with console.status("loading the model"):
        engine = DelayedBatchInferenceEngine.from_pretrained(model, device=device)
    seeds = pool[:streams]
    rooms = {plan.room: _ask_about(console, engine, (model, device), seeds, plan, jobs) for plan in plans}
    result = {
        "shape": {
            "model": model,
            "worlds": worlds,
            "minutes": minutes,
            "star_memory_size": star,
            "stream_window_size": stream,
            "importance_threshold": importance_threshold,
            "image": list(answer_streams.IMAGE_SIZE),
        },
        "rooms": rooms,
    }
    if as_json:
        sys.stdout.write(json.dumps(result, indent=2) + "\n")
    else:
        for name, figures in rooms.items():
            _show_answers(console, name, figures)


def _ask_about(
    console: Console,
    engine: DelayedBatchInferenceEngine,
    checkpoint: tuple[str, str],
    seeds: range,
    plan: AnswerPlan,
    jobs: int,
) -> dict[str, Any]:
    from lab.bench import answers  # noqa: PLC0415

    runs = {}
    with remaining_time(console) as progress:
        task = progress.add_task(f"streams of {plan.room} rooms", total=len(seeds))
        for seed, answered in answers.ask_all(engine, checkpoint, seeds, plan, jobs):
            runs[seed] = answered
            progress.update(task, advance=1)
    return answers.answers_json(runs)


def _show_answers(console: Console, room: str, figures: Mapping[str, Any]) -> None:
    memories = figures["strategies"]
    groups = next(iter(memories.values()))["groups"]
    over = "points over the newest, and their 95 % interval"
    table = Table(title=f"{room} rooms: right answers, {over}", box=None, padding=(0, 2, 0, 0))
    for heading in ("memory", "pairs", *(f"{group} ({one['asked']})" for group, one in groups.items())):
        table.add_column(heading, justify="left" if heading == "memory" else "right")
    for name, one in memories.items():
        table.add_row(name, f"{one['pairs']:g}", *(_accuracy(group) for group in one["groups"].values()))
    console.print(table)
    told = "in brackets what the kept pairs tell"
    kinds = Table(title=f"right answers by kind, {told}", box=None, padding=(0, 1, 0, 0))
    for heading in ("kind", "asked", *memories, "frequent"):
        kinds.add_column(heading, justify="left" if heading == "kind" else "right", no_wrap=heading == "kind")
    for kind, frequent in figures["most_frequent"].items():
        cells = [one["kinds"][kind] for one in memories.values()]
        shown = (f"{cell['accuracy']:.2f} ({cell['told']:.2f})" for cell in cells)
        kinds.add_row(kind, str(cells[0]["asked"]), *shown, f"{frequent:.2f}")
    console.print(kinds)


def _accuracy(group: Mapping[str, Any]) -> str:
    accuracy, over = group["accuracy"]["mean"], group.get("over_newest")
    if over is None:
        return f"{100 * accuracy:.1f} %"
    mean, low, high = (100 * over[key] for key in ("mean", "low", "high"))
    return f"{100 * accuracy:.1f} % ({mean:+.1f})\n{low:+.1f} to {high:+.1f}"
