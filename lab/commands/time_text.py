"""``bench time-text``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from delayed_vlm_ros.scenes import HELD_OUT_SEEDS
from delayed_vlm_ros.scenes.schedule import SPACINGS
from lab.commands.output import AsJson, Device, print_json


def time_text(
    model: Annotated[
        list[str], typer.Option(help="Checkpoint folder or name; repeatable, the first is the reference.")
    ],
    device: Device = "auto",
    scenes: Annotated[int, typer.Option(help="Held-out scenes for each spacing.", min=2)] = 40,
    pairs: Annotated[int, typer.Option(help="Pairs in memory.", min=2)] = 12,
    as_json: AsJson = False,
) -> None:
    """Compare models that read the time as text with models that have it in their positions."""
    # These import torch.
    from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine  # noqa: PLC0415
    from lab.bench.time_text import ask_scene, time_text_json  # noqa: PLC0415

    console = Console(stderr=as_json)
    seeds = HELD_OUT_SEEDS[:scenes]
    engines = [DelayedBatchInferenceEngine.from_pretrained(name, device=device) for name in model]
    spacings = {}
    for spacing in SPACINGS:
        drawn = track(seeds, f"{spacing} stamps", console=console, transient=True)
        spacings[spacing] = time_text_json([ask_scene(engines, seed, spacing, pairs) for seed in drawn], model)
    shape = {"models": model, "seeds": [seeds.start, seeds.stop], "pairs": pairs}
    if as_json:
        print_json({"shape": shape, "spacings": spacings})
        return
    table = Table(title="correct answers, difference from the first model in points, and 95 % intervals", box=None)
    for heading in ("stamps", "questions", "always one answer", *model):
        table.add_column(heading)
    for spacing, groups in spacings.items():
        for group, one in groups.items():
            cells = (_cell(one["models"][name]) for name in model)
            table.add_row(spacing, f"{group} ({one['questions']})", f"{one['most_frequent']:.0%}", *cells)
    console.print(table)


def _cell(figures: Mapping[str, Any]) -> str:
    mean, over = figures["accuracy"], figures["over_first"]
    return (
        f"{mean['mean']:.0%} ({mean['low']:.0%} to {mean['high']:.0%}), "
        f"{100 * over['mean']:+.0f} ({100 * over['low']:+.0f} to {100 * over['high']:+.0f})"
    )
