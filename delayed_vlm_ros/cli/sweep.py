"""``delayed-vlm sweep``: compare memory sizes by what they keep and what they cost."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from delayed_vlm_ros.cli import options, terminal
from delayed_vlm_ros.cli.progress import remaining_time
from delayed_vlm_ros.errors import IncompleteError

if TYPE_CHECKING:
    from delayed_vlm_ros.benchmark.sweep import CostUnit, PatrolUnit, ResultStore

_FRAME_COST_SEC = 0.005  # on one core, per frame of a patrol
_TOKEN_COST_SEC = 0.006  # on one core, per visual token of the model ``small``, for all measured questions
_SEED = 3  # of the random weights
_SHAPES = ("tiny", "small", "qwen2.5-vl-3b")


def sweep(
    star: Annotated[
        list[int] | None,
        typer.Option(help="Size of Star memory, in frames; repeat for several.", show_default="10, 20, 30"),
    ] = None,
    stream: Annotated[
        list[int] | None,
        typer.Option(help="Size of Stream memory, in frames; repeat for several.", show_default="10, 20"),
    ] = None,
    importance_threshold: Annotated[
        list[float] | None,
        typer.Option(
            help="Minimum importance of a key frame; repeat for several.",
            min=0.0,
            max=1.0,
            show_default="0.5, 0.7",
        ),
    ] = None,
    max_pixels: Annotated[
        list[int] | None,
        typer.Option(
            help="Maximum height × width of a frame, in pixels; repeat for several.",
            min=3136,
            show_default="12544, 50176",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the results, the table and the plots.")] = Path("sweep"),
    seeds: Annotated[int, typer.Option(help="Number of patrols per combination.", min=1, max=100)] = 2,
    hours: Annotated[float, typer.Option(help="Duration of a patrol, in hours.", min=0.05)] = 0.25,
    events: Annotated[int, typer.Option(help="Number of brief events per patrol.", min=1)] = 15,
    places: Annotated[int, typer.Option(help="Number of places per patrol.", min=1)] = 4,
    shape: Annotated[
        str, typer.Option(help=f"Size of the random-weight model for the cost: {', '.join(_SHAPES)}.")
    ] = "small",
    device: Annotated[str, typer.Option(help="Device of the model: cpu or cuda[:N].")] = "cpu",
    jobs: Annotated[int, typer.Option(help="Number of processes for the patrols.", min=1)] = 1,
    as_json: options.Json = False,
) -> None:
    """Measure what each combination of memory parameters keeps and costs. An interrupted sweep resumes."""
    # An optional package; a missing one is reported before hours of work.
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("agg")
    # Keep --help fast.
    from delayed_vlm_ros.benchmark import sweep as benchmark  # noqa: PLC0415
    from delayed_vlm_ros.benchmark.patrol import DESIGN_SEEDS  # noqa: PLC0415

    if shape not in _SHAPES:
        raise typer.BadParameter(f"must be one of {', '.join(_SHAPES)}, got '{shape}'", param_hint="--shape")
    cells = [
        benchmark.Cell(*values)
        for values in product(
            sorted(set(star or [10, 20, 30])),
            sorted(set(stream or [10, 20])),
            sorted(set(importance_threshold or [0.5, 0.7])),
            sorted(set(max_pixels or [12544, 50176])),
        )
    ]
    for cell in cells:
        cell.memory()  # invalid parameters are reported before hours of work
    template = benchmark.PatrolUnit(cells[0], 0, hours, events, places)
    patrols = benchmark.patrol_units(cells, DESIGN_SEEDS[:seeds], template)
    costs = {cell: benchmark.CostUnit(cell.pairs, cell.max_pixels, shape, device) for cell in cells}
    console = terminal.console(stderr=as_json)
    results = benchmark.ResultStore(out)
    _measure_cells(console, patrols, list(dict.fromkeys(costs.values())), results, jobs, len(cells))
    table = benchmark.rows(patrols, costs, results)
    result = {"shape": {"hours": hours, "events": events, "places": places, "seeds": seeds}, "cells": table}
    plots = _write_results(result, table, out)
    if as_json:
        terminal.write_json(result)
        return
    console.print(_result_table(table))
    console.print(f"table: {out / 'sweep.csv'}; plots: {plots}", highlight=False, soft_wrap=True)


def _measure_cells(
    console: Console,
    patrols: Sequence[PatrolUnit],
    costs: Sequence[CostUnit],
    results: ResultStore,
    jobs: int,
    cells: int,
) -> None:
    from delayed_vlm_ros.benchmark import sweep as benchmark  # noqa: PLC0415  keep --help fast

    open_patrols = [unit for unit in patrols if unit.key not in results]
    open_costs = [unit for unit in costs if unit.key not in results]
    total, remaining = len(patrols) + len(costs), len(open_patrols) + len(open_costs)
    seconds = sum(unit.frames for unit in open_patrols) * _FRAME_COST_SEC / jobs
    seconds += sum(unit.visual_tokens for unit in open_costs) * _TOKEN_COST_SEC
    done = f"; {total - remaining} of {total} measurements already done" if remaining < total else ""
    console.print(f"combinations: {cells}, about {max(1, round(seconds / 60))} min{done}", highlight=False)
    if not remaining:
        return
    with remaining_time(console) as progress:
        task = progress.add_task("patrols", total=total, completed=total - remaining)
        try:
            for patrol, kept in benchmark.run_patrols(open_patrols, jobs):
                results.add(patrol.key, kept)
                progress.update(task, advance=1)
            if open_costs:
                from delayed_vlm_ros.benchmark.sweep_cost import measure_costs  # noqa: PLC0415  loads torch

                progress.update(task, description="questions")
                max_pixels = max(unit.max_pixels for unit in open_costs)
                with _random_model(open_costs[0].shape, open_costs[0].device, max_pixels) as (model, processor):
                    for unit, cost in measure_costs(open_costs, model, processor):
                        results.add(unit.key, cost)
                        progress.update(task, advance=1)
        except KeyboardInterrupt:
            progress.console.print("interrupted: run the same command again to resume", style="red")
            raise


@contextmanager
def _random_model(shape: str, device: str, max_pixels: int) -> Iterator[tuple[Any, Any]]:
    """Yield a random-weight model, in bfloat16 on CUDA and float32 elsewhere, and its processor."""
    # Torch takes seconds to import.
    import torch  # noqa: PLC0415

    from delayed_vlm_ros.benchmark.random_model import SHAPES, make_random_model  # noqa: PLC0415

    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    with tempfile.TemporaryDirectory() as folder:
        yield make_random_model(SHAPES[shape], Path(folder), max_pixels, _SEED, dtype, device)


def _write_results(result: dict[str, Any], table: Sequence[dict[str, Any]], out: Path) -> Path:
    """Write sweep.json, sweep.csv and the plots; return the path of the plots."""
    from delayed_vlm_ros.benchmark.sweep_plots import write_plots  # noqa: PLC0415  requires matplotlib

    lines = [list(table[0]), *(list(row.values()) for row in table)]
    try:
        (out / "sweep.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        text = "".join(",".join(str(value) for value in line) + "\n" for line in lines)
        (out / "sweep.csv").write_text(text, encoding="utf-8")
        return write_plots(table, out)
    except OSError as error:
        raise IncompleteError(
            f"cannot write the table to {out} ({error.strerror}): free disk space and run the command again; finished "
            "measurements are kept"
        ) from error


def _result_table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="* no other combination keeps as much evidence in fewer bytes", box=None, padding=(0, 1, 0, 0))
    columns = (
        *("Star\nframes", "Stream\nframes", "threshold", "max\npixels", "kept\npairs"),
        *("evidence", "places", "MB", "first\nquestion, s", "next\nquestion, s"),
    )
    for heading in ("", *columns):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            "*" if row["best"] else "",
            str(row["star_memory_size"]),
            str(row["stream_window_size"]),
            f"{row['importance_threshold']:g}",
            str(row["max_pixels"]),
            f"{row['kept_pairs']:g}",
            f"{row['evidence']:.2f}",
            f"{row['places']:.2f}",
            f"{row['bytes'] / 1e6:.1f}",
            f"{row['first_ask_sec']:.2f}",
            f"{row['next_ask_sec']:.2f}",
        )
    return table
