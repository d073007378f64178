"""``bench memory``."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from delayed_vlm_ros.benchmark.patrol import DESIGN_SEEDS, REPORT_SEEDS, PatrolPlan
from lab.bench import memory as bench
from lab.bench import memory_cost, strategies
from lab.commands.output import AsJson, print_json

_PATROL_HOUR_SEC = 30.0  # of one core, for an hour of a patrol and all strategies


class PatrolWorlds(str, Enum):
    """Seeds of the patrols."""

    REPORT = "report"
    DESIGN = "design"


def memory(
    setting: Annotated[
        list[str] | None, typer.Option(help="Only settings whose names contain this text; repeatable.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Patrols of each setting.", min=1)] = 10,
    hours: Annotated[float, typer.Option(help="Length of each patrol in hours.", min=0.05)] = 2.0,
    pairs: Annotated[int | None, typer.Option(help="Custom setting: capacity in pairs.", min=1)] = None,
    events: Annotated[int, typer.Option(help="Custom setting: events per patrol.", min=0)] = 5,
    places: Annotated[int, typer.Option(help="Custom setting: places that the patrol visits.", min=1)] = 4,
    area: Annotated[
        tuple[float, float], typer.Option(help="Custom setting: smallest and largest event, as shares of the image.")
    ] = (0.03, 0.10),
    event_sec: Annotated[
        tuple[float, float], typer.Option(help="Custom setting: shortest and longest event in seconds.")
    ] = (1.0, 3.0),
    worlds: Annotated[PatrolWorlds, typer.Option(help="Seeds of the patrols.")] = PatrolWorlds.REPORT,
    video: Annotated[
        Path | None, typer.Option(help="Video to show instead of patrols; its events are unknown.")
    ] = None,
    cost: Annotated[bool, typer.Option(help="Also time frames of 640 × 480.")] = True,
    jobs: Annotated[int, typer.Option(help="Processes.", min=1)] = 1,
    as_json: AsJson = False,
) -> None:
    """Measure what strategies of equal size keep of hours with rare events, relative to an oracle."""
    console = Console(stderr=as_json)
    if video is not None:
        _report_missing_detectors(console)
        with console.status(str(video)):
            found = bench.run_video(video, pairs or 10)
        _show(console, {"shape": {"video": video.name}, "video": found}, as_json=as_json)
        return
    if pairs is not None:
        plan = PatrolPlan(0, events=events, places=places, event_area=area, event_sec=event_sec)
        chosen = [bench.Setting(f"{pairs} pairs, {events} events, {places} places", pairs, plan)]
    else:
        chosen = _chosen_settings(setting or [""])
    pool = REPORT_SEEDS if worlds is PatrolWorlds.REPORT else DESIGN_SEEDS
    if seeds > len(pool):
        raise typer.BadParameter(f"{seeds} seeds requested, {len(pool)} available")
    _report_missing_detectors(console)
    expected = len(chosen) * seeds * hours * _PATROL_HOUR_SEC / jobs / 60.0
    console.print(f"patrols: {len(chosen) * seeds}, about {max(1, round(expected))} min", highlight=False)
    result: dict[str, Any] = {
        "shape": {
            "hours": hours,
            "worlds": worlds.value,
            "seeds": [pool.start, pool.start + seeds],
            "image": list(bench.IMAGE_SIZE),
        },
        "settings": _run_patrols(console, chosen, list(pool[:seeds]), hours, jobs),
    }
    if cost:
        with console.status("cost of a frame"):
            result["cost"] = memory_cost.measure_cost(pool.start)
    _show(console, result, as_json=as_json)


def _chosen_settings(parts: list[str]) -> list[bench.Setting]:
    chosen = [one for one in bench.SETTINGS if any(part in one.name for part in parts)]
    if not chosen:
        names = "; ".join(one.name for one in bench.SETTINGS)
        raise typer.BadParameter(f"no setting matches {', '.join(parts)}: use a part of one of {names}")
    return chosen


def _report_missing_detectors(console: Console) -> None:
    if not strategies.has_scene_detectors():
        console.print("PySceneDetect is not installed, its rows are missing: pip install scenedetect-headless")


def _run_patrols(
    console: Console, chosen: list[bench.Setting], seeds: list[int], hours: float, jobs: int
) -> list[dict[str, Any]]:
    runs: dict[str, dict[int, Any]] = {one.name: {} for one in chosen}
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("patrols", total=len(seeds) * len(chosen))
        for one, seed, scores in bench.run_all(chosen, seeds, hours, jobs):
            runs[one.name][seed] = scores
            progress.update(task, advance=1)
    return [bench.setting_json(one, runs[one.name]) for one in chosen]


def _show(console: Console, result: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(result)
        return
    for one in result.get("settings", ()):
        patrols = len(one["seeds"])
        scope = f"mean, and in brackets the range over {patrols} patrols" if patrols > 1 else "one patrol"
        table = Table(title=f"{one['name']}: {scope}")
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
        console.print(f"{one['pairs']} pairs: median {one['median_ms']} ms/frame, 99th percentile {one['p99_ms']} ms")


def _spread(spread: dict[str, float] | None) -> str:
    if not spread:
        return ""
    mean, low, high = (f"{spread[key]:.2f}" for key in ("mean", "low", "high"))
    return mean if low == high else f"{mean} ({low} to {high})"
