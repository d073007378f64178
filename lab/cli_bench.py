"""``delayed-vlm bench``: measurements of answers and of time."""

from __future__ import annotations

import json
import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from delayed_vlm_ros.cli.bench import random_model_setting

if TYPE_CHECKING:
    from lab.bench.memory import Setting

_PATROL_HOUR_SEC = 30.0  # of one core, for an hour of a patrol and all memories

app = typer.Typer(no_args_is_help=True, help="Measure: how good answers and memory are, and what an ask costs.")


class Worlds(str, Enum):
    """Which scenes are asked about."""

    HELD_OUT = "held-out"
    TUNING = "tuning"


class PatrolWorlds(str, Enum):
    """Which patrols are shown to the memories."""

    REPORT = "report"
    DESIGN = "design"


@app.command()
def quality(
    model: Annotated[str, typer.Option(help="A checkpoint's folder or name, or 'demo'.")] = "demo",
    device: Annotated[str, typer.Option(help="Where the model runs: auto, cpu, cuda, cuda:1.")] = "auto",
    pairs: Annotated[list[int] | None, typer.Option(help="Pairs in memory; may be given repeatedly.", min=1)] = None,
    spacing: Annotated[list[str] | None, typer.Option(help="even or uneven; may be given repeatedly.")] = None,
    per_kind: Annotated[int, typer.Option(help="Questions of each kind at each number of pairs.", min=1)] = 60,
    stock: Annotated[int, typer.Option(help="Of them, how many the library's own inference answers too.", min=0)] = 60,
    worlds: Annotated[Worlds, typer.Option(help="Which scenes.")] = Worlds.HELD_OUT,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Questions about synthetic scenes with known truth: exact match by kind, beside the most frequent answer."""
    from delayed_vlm_ros import scenes  # noqa: PLC0415
    from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine  # noqa: PLC0415
    from delayed_vlm_ros.scenes.questions import KINDS, SENTENCE_KINDS  # noqa: PLC0415
    from delayed_vlm_ros.scenes.schedule import SPACINGS  # noqa: PLC0415
    from lab.bench.quality import IMAGE_SIZE, cell_json, judge, summary_json  # noqa: PLC0415

    for one in spacing or ():
        if one not in SPACINGS:
            raise typer.BadParameter(f"the spacing '{one}' is unknown: use {' or '.join(SPACINGS)}")
    console = Console(stderr=as_json)
    seeds = scenes.HELD_OUT_SEEDS if worlds is Worlds.HELD_OUT else scenes.TUNING_SEEDS
    engine = DelayedBatchInferenceEngine.from_pretrained(model, device=device)
    cells = []
    wanted = [(count, one) for count in pairs or (2, 6, 12, 20) for one in spacing or SPACINGS]
    with Progress(console=console, transient=True) as progress:
        total = per_kind * len((*KINDS, *SENTENCE_KINDS))
        for count, one in wanted:
            task = progress.add_task(f"{count} pairs, {one}", total=total)
            cell = None
            for cell in judge(engine.model, engine.processor, seeds, count, one, per_kind, stock):
                progress.update(task, completed=len(cell.judged))
            if cell is not None:
                cells.append(cell)
    result = {
        "shape": {
            "model": str(engine.model.name_or_path),
            "device": str(engine.model.device),
            "dtype": str(engine.model.dtype),
            "parameters": engine.model.num_parameters(),
            "worlds": worlds.value,
            "seeds": [seeds.start, seeds.stop],
            "image": list(IMAGE_SIZE),
            "per_kind": per_kind,
        },
        "cells": [cell_json(cell) for cell in cells],
        "all": summary_json(cells),
    }
    if as_json:
        sys.stdout.write(json.dumps(result, indent=2) + "\n")
    else:
        _show(console, result)


@app.command()
def trace(
    tokens_per_pair: Annotated[int, typer.Option(help="Merged tokens of a pair; a square number.", min=4)] = 64,
    device_sec: Annotated[
        list[float] | None, typer.Option(help="Native seconds for 20 pairs on the device to imagine; repeatable.")
    ] = None,
    every: Annotated[list[float] | None, typer.Option(help="Seconds from ask to ask; repeatable.")] = None,
    chunk: Annotated[
        list[int] | None, typer.Option(help="Frames that leave the memory at once; repeatable.", min=0)
    ] = None,
    traced_sec: Annotated[float, typer.Option(help="Seconds to live in virtual time, about.", min=1)] = 450.0,
    turns: Annotated[int, typer.Option(help="Turns of calibration.", min=1)] = 5,
    real_time_sec: Annotated[float, typer.Option(help="Live in real time for so long in each mode.", min=0)] = 60.0,
    canonical: Annotated[bool, typer.Option(help="Whether warm asks compute in the steps of cold ones.")] = True,
    seed: Annotated[int, typer.Option(help="Of weights and images.", min=0)] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """A camera's day in virtual time: what asks cost while frames go on arriving, by what is encoded ahead."""
    from lab.bench.trace_report import TracePlan, measure_trace  # noqa: PLC0415

    measured, traced = (
        random_model_setting(shape, tokens_per_pair, 20, seed, canonical=canonical) for shape in ("small", "tiny")
    )
    plan = TracePlan(
        devices=tuple(device_sec or (0.5, 3.0)),
        intervals=tuple(every or (1.0, 5.0, 10.0, 30.0, 60.0, 600.0)),
        chunks=tuple(chunk or (0, 6, 10)),
        traced_sec=traced_sec,
        turns=turns,
        real_time_sec=real_time_sec,
        seed=seed,
    )
    console = Console(stderr=as_json)
    with console.status("") as status:
        result = measure_trace(measured, traced, plan, status.update)
    result["shape"] = {"tokens_per_pair": tokens_per_pair, "turns": turns, "canonical": canonical, "seed": seed}
    if as_json:
        sys.stdout.write(json.dumps(result, indent=2) + "\n")
        return
    for device, traces in result["devices"].items():
        table = Table(title=f"seconds to the first token ÷ native, where native takes {device} s for 20 pairs")
        for heading in traces[0]:
            table.add_column(heading, justify="right")
        for one in traces:
            table.add_row(*(f"{value:g}" if isinstance(value, float) else str(value) for value in one.values()))
        console.print(table)


@app.command()
def memory(
    setting: Annotated[
        list[str] | None, typer.Option(help="Only settings whose names contain this; may be given repeatedly.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Patrols of each setting.", min=1)] = 10,
    hours: Annotated[float, typer.Option(help="Length of each.", min=0.05)] = 2.0,
    pairs: Annotated[int | None, typer.Option(help="A setting of your own: pairs that may be kept.", min=1)] = None,
    events: Annotated[int, typer.Option(help="Of that setting: events.", min=0)] = 5,
    places: Annotated[int, typer.Option(help="Of that setting: places.", min=1)] = 4,
    area: Annotated[
        tuple[float, float], typer.Option(help="Of that setting: shares of the image that events cover.")
    ] = (0.03, 0.10),
    event_sec: Annotated[tuple[float, float], typer.Option(help="Of that setting: how long events last.")] = (1.0, 3.0),
    worlds: Annotated[PatrolWorlds, typer.Option(help="Which seeds.")] = PatrolWorlds.REPORT,
    video: Annotated[Path | None, typer.Option(help="A video instead, whose events nobody knows.")] = None,
    cost: Annotated[bool, typer.Option(help="Whether to time a frame of 640×480, too.")] = True,
    jobs: Annotated[int, typer.Option(help="Processes.", min=1)] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """What the memory keeps of hours with rare events, beside other memories of the same size and an oracle."""
    from delayed_vlm_ros.benchmark.patrol import DESIGN_SEEDS, REPORT_SEEDS, PatrolPlan  # noqa: PLC0415
    from lab.bench import (
        memory,
        memory_cost,
    )

    console = Console(stderr=as_json)
    if video is not None:
        _tell_missing_detectors(console)
        with console.status(str(video)):
            result = {"shape": {"video": video.name}, "video": memory.run_video(video, pairs or 10)}
        _tell_memory(console, result, as_json=as_json)
        return
    if pairs is not None:
        plan = PatrolPlan(0, events=events, places=places, event_area=area, event_sec=event_sec)
        chosen = [memory.Setting(f"{pairs} pairs, {events} events, {places} places", pairs, plan)]
    else:
        wanted = setting or [""]
        chosen = [one for one in memory.SETTINGS if any(part in one.name for part in wanted)]
        if not chosen:
            names = "; ".join(one.name for one in memory.SETTINGS)
            raise typer.BadParameter(f"no setting is named {', '.join(wanted)}: there are {names}")
    pool = REPORT_SEEDS if worlds is PatrolWorlds.REPORT else DESIGN_SEEDS
    if seeds > len(pool):
        raise typer.BadParameter(f"{seeds} seeds are more than the {len(pool)} of these worlds: give fewer")
    _tell_missing_detectors(console)
    expected = len(chosen) * seeds * hours * _PATROL_HOUR_SEC / jobs / 60.0
    console.print(f"patrols: {len(chosen) * seeds}, about {max(1, round(expected))} min", highlight=False)
    result = {
        "shape": {
            "hours": hours,
            "worlds": worlds.value,
            "seeds": [pool.start, pool.start + seeds],
            "image": [memory.HEIGHT, memory.WIDTH],
        },
        "settings": _patrols(console, chosen, list(pool[:seeds]), hours, jobs),
    }
    if cost:
        with console.status("the cost of a frame"):
            result["cost"] = memory_cost.measure_cost(pool.start)
    _tell_memory(console, result, as_json=as_json)


def _tell_missing_detectors(console: Console) -> None:
    from lab.bench import strategies  # noqa: PLC0415

    if not strategies.has_scene_detectors():
        console.print("PySceneDetect is not installed, so its rows are missing: pip install scenedetect-headless")


def _patrols(
    console: Console, chosen: list[Setting], seeds: list[int], hours: float, jobs: int
) -> list[dict[str, Any]]:
    from lab.bench import memory  # noqa: PLC0415

    runs: dict[str, dict[int, Any]] = {one.name: {} for one in chosen}
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("patrols", total=len(seeds) * len(chosen))
        for one, seed, judged in memory.run_all(chosen, seeds, hours, jobs):
            runs[one.name][seed] = judged
            progress.update(task, advance=1)
    return [memory.setting_json(one, runs[one.name]) for one in chosen]


def _tell_memory(console: Console, result: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(result, indent=2) + "\n")
        return
    for one in result.get("settings", ()):
        patrols = len(one["seeds"])
        told = f"mean, and in brackets the range over {patrols} patrols" if patrols > 1 else "one patrol"
        table = Table(title=f"{one['name']}: {told}")
        for heading in ("strategy", "evidence", "places", "redundancy", "kept pairs"):
            table.add_column(heading, justify="left" if heading == "strategy" else "right")
        for name, figures in one["strategies"].items():
            spreads = (figures[key] for key in ("evidence", "places", "redundancy", "kept_pairs"))
            table.add_row(name, *(_spread(spread) for spread in spreads))
        console.print(table)
    if "video" in result:
        table = Table(title=f"{result['shape']['video']}: {result['video']['sampled_pairs']} pairs")
        for heading in ("strategy", "kept_pairs", "redundancy", "coverage"):
            table.add_column(heading)
        for name, figures in result["video"]["strategies"].items():
            table.add_row(name, *(f"{value:g}" for value in figures.values()))
        console.print(table)
    for one in result.get("cost", ()):
        console.print(f"{one['pairs']} pairs: median {one['median_ms']} ms a frame, 99th percentile {one['p99_ms']} ms")


def _spread(spread: dict[str, float] | None) -> str:
    if not spread:
        return ""
    mean, low, high = (f"{spread[key]:.2f}" for key in ("mean", "low", "high"))
    return mean if low == high else f"{mean} ({low} to {high})"


def _show(console: Console, result: dict[str, Any]) -> None:
    cells = result["cells"]
    table = Table(title="exact match, in brackets the share of the most frequent answer")
    table.add_column("kind")
    for cell in cells:
        table.add_column(f"{cell['pairs']}\n{cell['spacing']}", justify="right")
    for kind in result["all"]["kinds"]:
        values = [cell["kinds"].get(kind) for cell in cells]
        table.add_row(kind, *(f"{one['accuracy']:.2f} ({one['majority']:.2f})" if one else "" for one in values))
    table.add_row("macro", *(f"{cell['macro']:.3f} ({cell['majority_macro']:.2f})" for cell in cells), style="bold")
    console.print(table)
    everything = result["all"]
    console.print(f"macro over all: {everything['macro']:.3f}, lowest in any column: {everything['lowest']:.2f}")
    for name, scores in everything["sentences"].items():
        console.print(f"{name}: {scores['named']:.3f} named, {scores['invented']:.3f} invented")
    stock = everything["stock"]
    console.print(
        f"the library's own inference on {stock['asked']} of the questions: with our positions "
        f"{stock['same_with_our_positions']} answers are the same, with its own "
        f"{stock['changed_with_the_librarys_positions']} change"
    )
