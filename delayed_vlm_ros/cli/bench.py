"""``delayed-vlm bench``: how fast this machine answers."""

from __future__ import annotations

import json
import math
import sys
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

if TYPE_CHECKING:
    from delayed_vlm_ros.benchmark.ask_cost import BenchmarkSetup

app = typer.Typer(no_args_is_help=True, help="Measure what a question costs on this machine.")


@app.callback()
def bench() -> None:
    """Measure what a question costs on this machine."""


@app.command()
def ask(
    shape: Annotated[str, typer.Option(help="Size of the random-weight model: small or qwen2.5-vl-3b.")] = "small",
    tokens_per_pair: Annotated[int, typer.Option(help="Merged tokens of a pair; a square number.", min=4)] = 64,
    pairs: Annotated[int, typer.Option(help="Pairs in memory.", min=1)] = 20,
    runs: Annotated[int, typer.Option(help="Turns; in each, everything is timed once.", min=1)] = 15,
    device: Annotated[str, typer.Option(help="Where the model runs: cpu, cuda, cuda:1.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    canonical: Annotated[bool, typer.Option(help="Whether warm asks compute in the steps of cold ones.")] = True,
    seed: Annotated[int, typer.Option(help="Of weights and images.", min=0)] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Time to the first token of each kind of ask, as ratios to native inference on the same frames."""
    import torch  # noqa: PLC0415

    from delayed_vlm_ros.benchmark import ask_cost  # noqa: PLC0415

    console = Console(stderr=as_json)
    setting = random_model_setting(shape, tokens_per_pair, pairs, seed, canonical=canonical, device=device, dtype=dtype)
    turns = []
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("turns", total=runs)
        for turn in ask_cost.measure(setting, runs, seed):
            turns.append(turn)
            progress.update(task, advance=1)
    result = {
        "shape": {
            "name": shape,
            "parameters": setting.model.num_parameters(),
            "pairs": pairs,
            "tokens_per_pair": tokens_per_pair,
            "device": str(setting.model.device),
            "dtype": dtype,
            "threads": torch.get_num_threads(),
            "canonical": canonical,
            "runs": runs,
            "seed": seed,
        },
        "native": ask_cost.faster_setup(turns),
        **ask_cost.ratios(turns),
        "median_sec": {name: round(float(np.median([turn[name] for turn in turns])), 4) for name in turns[0]},
    }
    if as_json:
        sys.stdout.write(json.dumps(result, indent=2) + "\n")
        return
    table = Table(title=f"{shape}: {pairs} pairs of {tokens_per_pair} tokens, {runs} turns")
    for heading in ("ratio", "median", "95 % interval"):
        table.add_column(heading, justify="right")
    for name in ask_cost.RATIOS:
        one = result[name]
        table.add_row(name, f"{one['median']:.3f}", f"{one['low']:.3f} to {one['high']:.3f}")
    console.print(table)


def random_model_setting(
    shape: str,
    tokens_per_pair: int,
    pairs: int,
    seed: int,
    *,
    canonical: bool,
    device: str = "cpu",
    dtype: str = "float32",
) -> BenchmarkSetup:
    """A random-weight model of a shape, with square images of so many merged tokens."""
    import tempfile  # noqa: PLC0415
    from pathlib import Path  # noqa: PLC0415

    import torch  # noqa: PLC0415

    from delayed_vlm_ros.benchmark.ask_cost import BenchmarkSetup  # noqa: PLC0415
    from delayed_vlm_ros.benchmark.random_model import SHAPES, make_random_model  # noqa: PLC0415

    side = 28 * math.isqrt(tokens_per_pair)
    if side**2 != tokens_per_pair * 28**2:
        raise typer.BadParameter(f"{tokens_per_pair} tokens a pair are no square: give a square number")
    if shape not in SHAPES:
        raise typer.BadParameter(f"the shape '{shape}' is unknown: give one of {', '.join(SHAPES)}")
    with tempfile.TemporaryDirectory() as folder:
        model, processor = make_random_model(SHAPES[shape], Path(folder), side**2, seed, getattr(torch, dtype), device)
    return BenchmarkSetup(model, processor, (side, side), pairs, canonical)
