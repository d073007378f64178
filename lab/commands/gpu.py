"""``bench gpu``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from lab.commands.output import AsJson, print_result

_SHAPES = ("Qwen2.5-VL-3B", "Qwen3-VL-4B", "Qwen2.5-VL-7B", "Qwen3.5-4B")


def gpu(
    shape: Annotated[
        list[str] | None,
        typer.Option(help=f"Size of a published model, repeatable; default: {', '.join(_SHAPES)}."),
    ] = None,
    device: Annotated[str, typer.Option(help="Device of the model: cuda, cuda:N, or cpu with a small shape.")] = "cuda",
    work: Annotated[
        Path, typer.Option(help="Folder for the results of parts: a second run measures only the missing ones.")
    ] = Path("gpu-results"),
    minutes: Annotated[float, typer.Option(help="Time limit: no part starts later.", min=0.0)] = 6.0,
    pairs: Annotated[int, typer.Option(help="Pairs in memory.", min=1)] = 20,
    tokens_per_pair: Annotated[int, typer.Option(help="Merged tokens per pair; a square number.", min=4)] = 256,
    answer_tokens: Annotated[int, typer.Option(help="Length of the answers in tokens.", min=2)] = 32,
    rounds: Annotated[int, typer.Option(help="Rounds of times.", min=1)] = 7,
    as_json: AsJson = False,
) -> None:
    """Measure exactness and cost of questions on a GPU, with random weights of published sizes. No network."""
    # These import torch.
    from delayed_vlm_ros.benchmark.random_model import SHAPES, published_shape  # noqa: PLC0415
    from delayed_vlm_ros.errors import ConfigurationError  # noqa: PLC0415
    from delayed_vlm_ros.inference.local.models.device import choose_device  # noqa: PLC0415
    from delayed_vlm_ros.inference.local.models.published import PUBLISHED_MODELS, published_name  # noqa: PLC0415
    from lab.bench.gpu import GpuPlan, measure_gpu  # noqa: PLC0415

    if math.isqrt(tokens_per_pair) ** 2 != tokens_per_pair:
        raise typer.BadParameter(f"must be a square number, got {tokens_per_pair}", param_hint="--tokens-per-pair")
    found = {}
    for name in shape or _SHAPES:
        known = published_name(name)
        if known is None and name not in SHAPES:
            names = ", ".join((*PUBLISHED_MODELS, *SHAPES))
            raise typer.BadParameter(f"must be one of {names}, got '{name}'", param_hint="--shape")
        found[known or name] = published_shape(known) if known else SHAPES[name]
    try:
        target = choose_device(device)
    except ConfigurationError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    plan = GpuPlan(pairs, tokens_per_pair, answer_tokens, rounds)
    result = measure_gpu(found, plan, target, work, minutes, report=lambda line: typer.echo(line, err=True))
    print_result(result, as_json=as_json)
    if result["failed"] or not result["is_exact"]:
        raise typer.Exit(1)
