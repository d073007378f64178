"""``bench answers``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from delayed_vlm_ros.cli.progress import remaining_time
from delayed_vlm_ros.memory import MemoryConfig
from lab.commands.output import AsJson, Device, Model, print_json
from lab.commands.room_streams import chosen_rooms, seeds_of

if TYPE_CHECKING:
    from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine
    from lab.bench.answers import AnswerPlan

_ROOMS = ("lively", "quiet")
_STREAM_MINUTE_SEC = 1.5  # of one core, for a minute of a stream and all questions about it


def answers(
    model: Model = "demo",
    device: Device = "auto",
    room: Annotated[
        list[str] | None,
        typer.Option(help="lively (objects come and go) or quiet (rare, brief visits); repeatable."),
    ] = None,
    streams: Annotated[int, typer.Option(help="Streams of each kind of room.", min=2)] = 200,
    minutes: Annotated[
        float, typer.Option(help="Length of each stream; gaps above 28 s are compressed.", min=0.5)
    ] = 3.0,
    star: Annotated[int, typer.Option(help="Key frames over the whole past, in frames.", min=0)] = (
        MemoryConfig.star_memory_size
    ),
    stream: Annotated[int, typer.Option(help="Newest frames, in frames.", min=2)] = MemoryConfig.stream_window_size,
    importance_threshold: Annotated[
        float, typer.Option(help="Importance from which a frame is a key frame.", min=0.0, max=1.0)
    ] = 0.6,
    worlds: Annotated[str, typer.Option(help="Seeds of the scenes: held-out or tuning.")] = "held-out",
    jobs: Annotated[int, typer.Option(help="Processes, each with its own model.", min=1)] = 1,
    as_json: AsJson = False,
) -> None:
    """Measure answers about the present, the past and its order, from this memory and from the newest pairs."""
    rooms = chosen_rooms(room, _ROOMS)
    pool = seeds_of(worlds, streams)
    console = Console(stderr=as_json)
    expected = len(rooms) * streams * minutes * _STREAM_MINUTE_SEC / jobs / 60.0
    console.print(f"streams: {len(rooms) * streams}, about {max(1, round(expected))} min", highlight=False)

    # These import torch.
    from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine  # noqa: PLC0415
    from lab.bench.answers import AnswerPlan  # noqa: PLC0415
    from lab.bench.room_streams import IMAGE_SIZE  # noqa: PLC0415

    plans = [AnswerPlan(one, minutes, star, stream, importance_threshold) for one in rooms]
    plans[0].memory()  # invalid sizes are reported before the model is loaded
    with console.status("loading the model"):
        engine = DelayedBatchInferenceEngine.from_pretrained(model, device=device)
    figures = {plan.room: _ask_about(console, engine, (model, device), pool[:streams], plan, jobs) for plan in plans}
    result = {
        "shape": {
            "model": model,
            "worlds": worlds,
            "minutes": minutes,
            "star_memory_size": star,
            "stream_window_size": stream,
            "importance_threshold": importance_threshold,
            "image": list(IMAGE_SIZE),
        },
        "rooms": figures,
    }
    if as_json:
        print_json(result)
        return
    for name, of_room in figures.items():
        _show_room(console, name, of_room)


def _ask_about(
    console: Console,
    engine: DelayedBatchInferenceEngine,
    checkpoint: tuple[str, str],
    seeds: range,
    plan: AnswerPlan,
    jobs: int,
) -> dict[str, Any]:
    from lab.bench.answers import answers_json, ask_all  # noqa: PLC0415  imports torch

    runs = {}
    with remaining_time(console) as progress:
        task = progress.add_task(f"streams of {plan.room} rooms", total=len(seeds))
        for seed, answered in ask_all(engine, checkpoint, seeds, plan, jobs):
            runs[seed] = answered
            progress.update(task, advance=1)
    return answers_json(runs)


def _show_room(console: Console, room: str, figures: Mapping[str, Any]) -> None:
    memories = figures["strategies"]
    groups = next(iter(memories.values()))["groups"]
    title = f"{room} rooms: correct answers, points over the newest pairs, and the 95 % interval of these"
    table = Table(title=title, box=None, padding=(0, 2, 0, 0))
    for heading in ("memory", "pairs", *(f"{group} ({one['questions']})" for group, one in groups.items())):
        table.add_column(heading, justify="left" if heading == "memory" else "right")
    for name, one in memories.items():
        table.add_row(name, f"{one['pairs']:g}", *(_accuracy(group) for group in one["groups"].values()))
    console.print(table)
    title = "correct answers by kind, in brackets the share that the kept pairs show"
    kinds = Table(title=title, box=None, padding=(0, 1, 0, 0))
    for heading in ("kind", "questions", *memories, "frequent"):
        kinds.add_column(heading, justify="left" if heading == "kind" else "right", no_wrap=heading == "kind")
    for kind, frequent in figures["most_frequent"].items():
        cells = [one["kinds"][kind] for one in memories.values()]
        shown = (f"{cell['accuracy']:.2f} ({cell['answerable']:.2f})" for cell in cells)
        kinds.add_row(kind, str(cells[0]["questions"]), *shown, f"{frequent:.2f}")
    console.print(kinds)


def _accuracy(group: Mapping[str, Any]) -> str:
    accuracy, over = group["accuracy"]["mean"], group["over"].get("newest")
    if over is None:
        return f"{100 * accuracy:.1f} %"
    mean, low, high = (100 * over[key] for key in ("mean", "low", "high"))
    return f"{100 * accuracy:.1f} % ({mean:+.1f})\n{low:+.1f} to {high:+.1f}"
