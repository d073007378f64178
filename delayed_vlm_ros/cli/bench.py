"""``delayed-vlm bench``: the latency of questions on this machine."""

from __future__ import annotations

import math
import statistics
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from delayed_vlm_ros.cli import options, terminal
from delayed_vlm_ros.cli.progress import elapsed_time
from delayed_vlm_ros.inference.local.models.device import dtype_name

if TYPE_CHECKING:
    from delayed_vlm_ros.benchmark.ask_cost import BenchmarkSetup

app = typer.Typer(no_args_is_help=True, help="Measure the latency of questions on this machine.")


@app.callback()
def bench() -> None:
    """Measure the latency of questions on this machine."""


@app.command()
def ask(
    shape: Annotated[
        str,
        typer.Option(help="Random-weight model: tiny, small, small-qwen3-vl, small-qwen3.5, qwen2.5-vl-3b."),
    ] = "small",
    tokens_per_pair: Annotated[int, typer.Option(help="Merged tokens per pair; a square number.", min=4)] = 64,
    pairs: Annotated[int, typer.Option(help="Pairs in memory.", min=1)] = 20,
    runs: Annotated[int, typer.Option(help="Number of rounds; each times every kind of question once.", min=1)] = 15,
    device: options.Device = "cpu",
    dtype: options.Dtype = "float32",
    canonical: Annotated[bool, typer.Option(help="Compute cached and uncached questions in the same steps.")] = True,
    seed: Annotated[int, typer.Option(help="Seed of weights and images.", min=0)] = 3,
    as_json: options.Json = False,
) -> None:
    """Measure the time to first token of each kind of question, relative to native inference on the same frames."""
    # Torch takes seconds to import.
    import torch  # noqa: PLC0415

    from delayed_vlm_ros.benchmark import ask_cost  # noqa: PLC0415

    console = terminal.console(stderr=as_json)
    setup = random_model_setup(shape, tokens_per_pair, pairs, seed, canonical=canonical, device=device, dtype=dtype)
    rounds = []
    with elapsed_time(console) as progress:
        for times in progress.track(ask_cost.measure(setup, runs, seed), total=runs, description="rounds"):
            rounds.append(times)  # noqa: PERF402  the bar follows the loop
    ratios = ask_cost.ratios(rounds)
    if as_json:
        result: dict[str, Any] = {
            "shape": {
                "name": shape,
                "parameters": setup.model.num_parameters(),
                "pairs": pairs,
                "tokens_per_pair": tokens_per_pair,
                "device": str(setup.model.device),
                "dtype": dtype_name(setup.model.dtype),
                "threads": torch.get_num_threads(),
                "canonical": canonical,
                "runs": runs,
                "seed": seed,
            },
            "native": ask_cost.faster_setup(rounds),
            **ratios,
            "median_sec": {name: round(statistics.median(times[name] for times in rounds), 4) for name in rounds[0]},
        }
        terminal.write_json(result)
        return
    table = Table(title=f"{shape}: {pairs} pairs of {tokens_per_pair} tokens, {runs} rounds")
    for heading in ("ratio to native", "median", "95 % interval"):
        table.add_column(heading, justify="right")
    for name, ratio in ratios.items():
        table.add_row(name, f"{ratio['median']:.3f}", f"{ratio['low']:.3f} to {ratio['high']:.3f}")
    console.print(table)


def random_model_setup(
    shape: str,
    tokens_per_pair: int,
    pairs: int,
    seed: int,
    *,
    canonical: bool,
    device: str = "cpu",
    dtype: str = "float32",
) -> BenchmarkSetup:
    """Return a benchmark set-up with a random-weight model and square images.

    Args:
        shape: Size of the model, a key of ``random_model.SHAPES``.
        tokens_per_pair: Merged tokens per pair; a square number.
        pairs: Pairs in memory.
        seed: Seed of the weights.
        canonical: Whether the engine uses canonical steps.
        device: Device of the model, as for ``choose_device``.
        dtype: Number format of the weights, as for ``choose_dtype``.

    Raises:
        ConfigurationError: The device is not available.
        typer.BadParameter: The shape is unknown, or the number of tokens is not a square.
    """
    # Torch takes seconds to import.
    import torch  # noqa: PLC0415

    from delayed_vlm_ros.benchmark.ask_cost import BenchmarkSetup  # noqa: PLC0415
    from delayed_vlm_ros.benchmark.random_model import SHAPES, make_random_model  # noqa: PLC0415
    from delayed_vlm_ros.inference.local.models.device import choose_device, choose_dtype  # noqa: PLC0415

    if math.isqrt(tokens_per_pair) ** 2 != tokens_per_pair:
        raise typer.BadParameter(f"must be a square number, got {tokens_per_pair}", param_hint="--tokens-per-pair")
    if shape not in SHAPES:
        raise typer.BadParameter(f"must be one of {', '.join(SHAPES)}, got '{shape}'", param_hint="--shape")
    side = SHAPES[shape].factor * math.isqrt(tokens_per_pair)
    target = choose_device(device)
    number_format = getattr(torch, choose_dtype(dtype, target))
    with tempfile.TemporaryDirectory() as folder:
        model, processor = make_random_model(SHAPES[shape], Path(folder), side**2, seed, number_format, target)
    return BenchmarkSetup(model, processor, (side, side), pairs, canonical)
