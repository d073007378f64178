"""``delayed-vlm sweep``: which memory sizes to choose, by what is kept and what it costs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from delayed_vlm_ros.cli.progress import remaining_time

if TYPE_CHECKING:
    from delayed_vlm_ros.benchmark.sweep import CostUnit, PatrolUnit, ResultStore

_FRAME_COST_SEC = 0.005  # of one core, for a frame of a patrol
_TOKEN_COST_SEC = 0.006  # of one core, for a visual token of the model ``small``, both turns of both asks
_SEED = 3  # of random weights
_SHAPES = ("tiny", "small", "qwen2.5-vl-3b")


def sweep(
    star: Annotated[
        list[int] | None, typer.Option(help="Key frames, in frames; may be given repeatedly.  [default: 10, 20, 40]")
    ] = None,
    stream: Annotated[
        list[int] | None, typer.Option(help="Newest frames; may be given repeatedly.  [default: 10, 20]")
    ] = None,
    importance_threshold: Annotated[
        list[float] | None,
        typer.Option(
            help="Importance from which a frame is a key frame; may be given repeatedly.  [default: 0.5, 0.7]",
            min=0.0,
            max=1.0,
        ),
    ] = None,
    max_pixels: Annotated[
        list[int] | None,
        typer.Option(
            help="Largest height × width of a frame; may be given repeatedly.  [default: 12544, 50176]", min=3136
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the table, the plots and what is done of them.")] = Path(
        "sweep"
    ),
    seeds: Annotated[int, typer.Option(help="Patrols for each cell.", min=1, max=100)] = 2,
    hours: Annotated[float, typer.Option(help="Length of each.", min=0.05)] = 0.25,
    events: Annotated[int, typer.Option(help="Brief events on each.", min=1)] = 15,
    places: Annotated[int, typer.Option(help="Places that each visits.", min=1)] = 4,
    shape: Annotated[
        str, typer.Option(help=f"Size of the random-weight model whose bytes and seconds count: {', '.join(_SHAPES)}.")
    ] = "small",
    device: Annotated[str, typer.Option(help="Where that model runs: cpu, cuda, cuda:1.")] = "cpu",
    jobs: Annotated[int, typer.Option(help="Processes for the patrols.", min=1)] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """What is kept against what it costs, over the memory's parameters; interrupted, it goes on where it was."""
    import matplotlib as mpl  # noqa: PLC0415  what is not installed is said now, not after the last cell

    mpl.use("agg")
    from delayed_vlm_ros.benchmark import sweep as sweeping  # noqa: PLC0415
    from delayed_vlm_ros.benchmark.patrol import DESIGN_SEEDS  # noqa: PLC0415

    if shape not in _SHAPES:
        raise typer.BadParameter(f"'{shape}' is none of {', '.join(_SHAPES)}", param_hint="--shape")
    levels = (
        star or [10, 20, 40],
        stream or [10, 20],
        importance_threshold or [0.5, 0.7],
        max_pixels or [12544, 50176],
    )
    cells = [sweeping.Cell(*values) for values in product(*(sorted(set(level)) for level in levels))]
    for cell in cells:
        cell.memory()  # what cannot work is said now
    usual = sweeping.PatrolUnit(cells[0], 0, hours, events, places)
    patrols = sweeping.patrol_units(cells, DESIGN_SEEDS[:seeds], usual)
    costs = {cell: sweeping.CostUnit(cell.pairs, cell.max_pixels, shape, device) for cell in cells}
    console = Console(stderr=as_json)
    lines = sweeping.ResultStore(out)
    _measure_cells(console, patrols, list(dict.fromkeys(costs.values())), lines, jobs, len(cells))
    table = sweeping.rows(patrols, costs, lines)
    _tell_sweep(console, table, out, usual, seeds, as_json=as_json)


def _measure_cells(
    console: Console,
    patrols: Sequence[PatrolUnit],
    costs: Sequence[CostUnit],
    lines: ResultStore,
    jobs: int,
    cells: int,
) -> None:
    from delayed_vlm_ros.benchmark import sweep as sweeping  # noqa: PLC0415

    unseen = [unit for unit in patrols if unit.key not in lines]
    unmeasured = [unit for unit in costs if unit.key not in lines]
    all_, left = len(patrols) + len(costs), len(unseen) + len(unmeasured)
    seconds = sum(unit.frames for unit in unseen) * _FRAME_COST_SEC / jobs
    seconds += sum(unit.visual_tokens for unit in unmeasured) * _TOKEN_COST_SEC
    done = f"; {all_ - left} of {all_} measurements are there already" if left < all_ else ""
    console.print(f"cells: {cells}, about {max(1, round(seconds / 60))} min{done}", highlight=False)
    if not left:
        return
    with remaining_time(console) as progress:
        task = progress.add_task("patrols", total=all_, completed=all_ - left)
        try:
            for patrol, kept in sweeping.run_patrols(unseen, jobs):
                lines.add(patrol.key, kept)
                progress.update(task, advance=1)
            if unmeasured:
                from delayed_vlm_ros.benchmark.sweep_cost import measure_costs  # noqa: PLC0415

                progress.update(task, description="asks")
                most = max(unit.max_pixels for unit in unmeasured)
                with _shaped_model(unmeasured[0].shape, unmeasured[0].device, most) as (model, processor):
                    for asked, cost in measure_costs(unmeasured, model, processor):
                        lines.add(asked.key, cost)
                        progress.update(task, advance=1)
        except KeyboardInterrupt:
            progress.console.print("interrupted: run the same command again for the rest", style="red")
            raise


@contextmanager
def _shaped_model(shape: str, device: str, max_pixels: int) -> Iterator[tuple[Any, Any]]:
    """A model of random weights, in bfloat16 on CUDA, else float32; and its processor."""
    import tempfile  # noqa: PLC0415

    import torch  # noqa: PLC0415

    from delayed_vlm_ros.benchmark.random_model import SHAPES, make_random_model  # noqa: PLC0415

    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    with tempfile.TemporaryDirectory() as folder:
        yield make_random_model(SHAPES[shape], Path(folder), max_pixels, _SEED, dtype, device)


def _tell_sweep(
    console: Console, table: list[dict[str, Any]], out: Path, usual: PatrolUnit, seeds: int, *, as_json: bool
) -> None:
    from delayed_vlm_ros.benchmark.sweep_plots import write_plots  # noqa: PLC0415
    from delayed_vlm_ros.errors import IncompleteError  # noqa: PLC0415

    shape = {"hours": usual.hours, "events": usual.events, "places": usual.places, "seeds": seeds}
    result = {"shape": shape, "cells": table}
    headings = list(table[0])
    listed = [headings, *([row[heading] for heading in headings] for row in table)]
    try:
        (out / "sweep.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        text = "".join(",".join(str(value) for value in line) + "\n" for line in listed)
        (out / "sweep.csv").write_text(text, encoding="utf-8")
        plots = write_plots(table, out)
    except OSError as error:
        raise IncompleteError(
            f"the table cannot be written to {out} ({error.strerror}): make room there, and run the command again; "
            "what is measured is kept"
        ) from error
    if as_json:
        sys.stdout.write(json.dumps(result, indent=2) + "\n")
        return
    shown = Table(title="* no other cell keeps as much evidence in fewer bytes", box=None, padding=(0, 1, 0, 0))
    columns = (
        *("key\nframes", "newest\nframes", "threshold", "max\npixels", "kept\npairs"),
        *("evidence", "places", "MB", "first\nask, s", "next\nask, s"),
    )
    for heading in ("", *columns):
        shown.add_column(heading, justify="right")
    for row in table:
        shown.add_row(
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
    console.print(shown)
    console.print(f"table: {out / 'sweep.csv'}; plots: {plots}", highlight=False, soft_wrap=True)
