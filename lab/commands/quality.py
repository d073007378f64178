"""``bench quality``."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from delayed_vlm_ros.scenes import HELD_OUT_SEEDS, TUNING_SEEDS
from delayed_vlm_ros.scenes.questions import KINDS, SENTENCE_KINDS
from delayed_vlm_ros.scenes.schedule import SPACINGS
from lab.commands.output import AsJson, Device, Model, print_json

_PAIRS = (2, 6, 12, 20)


class Worlds(str, Enum):
    """Seeds of the scenes."""

    HELD_OUT = "held-out"
    TUNING = "tuning"


def quality(
    model: Model = "demo",
    device: Device = "auto",
    pairs: Annotated[list[int] | None, typer.Option(help="Pairs in memory; repeatable.", min=1)] = None,
    spacing: Annotated[list[str] | None, typer.Option(help="even or uneven; repeatable.")] = None,
    per_kind: Annotated[int, typer.Option(help="Questions of each kind at each number of pairs.", min=1)] = 60,
    stock: Annotated[
        int, typer.Option(help="Questions that unmodified Hugging Face inference answers as well.", min=0)
    ] = 60,
    worlds: Annotated[Worlds, typer.Option(help="Seeds of the scenes.")] = Worlds.HELD_OUT,
    as_json: AsJson = False,
) -> None:
    """Measure exact match on questions about synthetic scenes, by kind, against the most frequent answer."""
    for one in spacing or ():
        if one not in SPACINGS:
            raise typer.BadParameter(f"unknown spacing '{one}': use {' or '.join(SPACINGS)}")

    # These import torch.
    from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine  # noqa: PLC0415
    from lab.bench.quality import IMAGE_SIZE, cell_json, evaluate, summary_json  # noqa: PLC0415

    console = Console(stderr=as_json)
    seeds = HELD_OUT_SEEDS if worlds is Worlds.HELD_OUT else TUNING_SEEDS
    engine = DelayedBatchInferenceEngine.from_pretrained(model, device=device)
    cells = []
    with Progress(console=console, transient=True) as progress:
        total = per_kind * len((*KINDS, *SENTENCE_KINDS))
        for count, one in [(count, one) for count in pairs or _PAIRS for one in spacing or SPACINGS]:
            task = progress.add_task(f"{count} pairs, {one}", total=total)
            cell = None
            for cell in evaluate(engine.model, engine.processor, seeds, count, one, per_kind, stock):
                progress.update(task, completed=len(cell.answers))
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
        print_json(result)
    else:
        _show(console, result)


def _show(console: Console, result: dict[str, Any]) -> None:
    cells, total = result["cells"], result["all"]
    table = Table(title="exact match, in brackets the share of the most frequent answer")
    table.add_column("kind")
    for cell in cells:
        table.add_column(f"{cell['pairs']}\n{cell['spacing']}", justify="right")
    for kind in total["kinds"]:
        values = [cell["kinds"].get(kind) for cell in cells]
        table.add_row(kind, *(f"{one['accuracy']:.2f} ({one['majority']:.2f})" if one else "" for one in values))
    table.add_row("macro", *(f"{cell['macro']:.3f} ({cell['majority_macro']:.2f})" for cell in cells), style="bold")
    console.print(table)
    console.print(f"macro over all cells: {total['macro']:.3f}, lowest kind in any cell: {total['lowest']:.2f}")
    for name, scores in total["sentences"].items():
        console.print(f"{name}: {scores['named']:.3f} named, {scores['invented']:.3f} invented")
    native = total["native"]
    console.print(
        f"unmodified Hugging Face inference on {native['questions']} questions: with this project's positions "
        f"{native['equal_with_our_positions']} answers are equal, with the default positions "
        f"{native['changed_with_default_positions']} differ"
    )
