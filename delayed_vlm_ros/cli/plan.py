"""``delayed-vlm plan``: compute whether a model fits a GPU, and how fast it can answer at best."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from delayed_vlm_ros.cli import options, terminal
from delayed_vlm_ros.cli.terminal import literal
from delayed_vlm_ros.errors import ConfigurationError
from delayed_vlm_ros.inference.local.fit import MAX_FRAMES, Fit, plan_fit
from delayed_vlm_ros.inference.local.gpus import GPUS, Gpu, find_gpu
from delayed_vlm_ros.inference.local.memory_plan import OTHER_BYTES
from delayed_vlm_ros.inference.local.models.sizes import ELEMENT_BYTES, ModelSizes, sizes_of
from delayed_vlm_ros.inference.local.time_plan import QUESTION_TOKENS, TimePlan, plan_times, weight_parts
from delayed_vlm_ros.memory import MemoryConfig
from delayed_vlm_ros.memory.frame import FRAMES_PER_PAIR

if TYPE_CHECKING:
    from rich.console import Console

_NOTE = "computed from data sheets, not measured: times are lower bounds, tokens per second an upper one"


def plan(
    model: Annotated[
        str,
        typer.Option(help="Model such as Qwen2.5-VL-3B, or folder of a checkpoint.", show_default=False),
    ],
    gpu: Annotated[
        str, typer.Option(help=f"GPU, for its memory and the times: {', '.join(GPUS)}.", show_default="no times")
    ] = "",
    gpu_gb: Annotated[
        float | None, typer.Option(help="GPU memory in GB of 10⁹ bytes.", show_default="of --gpu")
    ] = None,
    star: options.Star = MemoryConfig.star_memory_size,
    stream: options.Stream = MemoryConfig.stream_window_size,
    max_pixels: Annotated[int, typer.Option(help="Largest height × width of a frame.", min=1)] = (
        MemoryConfig.max_pixels
    ),
    cameras: Annotated[int, typer.Option(help="Cameras, each with a memory of its own.", min=1)] = 1,
    as_json: options.Json = False,
) -> None:
    """Compute the memory that a model needs, whether it fits a GPU, and how fast it can answer at best.

    Needs neither the GPU nor the model's files: the sizes of published models are known. Exit code 1: it does not fit.
    """
    named = find_gpu(gpu) if gpu else None
    gpu_bytes = _gpu_bytes(named, gpu_gb)
    MemoryConfig(star_memory_size=star, stream_window_size=stream, max_pixels=max_pixels)  # refuses invalid sizes
    frames = star + stream
    if frames > MAX_FRAMES:
        raise ConfigurationError(f"--star and --stream must be at most {MAX_FRAMES} frames together, got {frames}")
    if model == "auto":
        raise ConfigurationError("--model must name a model: auto depends on the GPU of this machine")
    sizes = sizes_of(model)
    is_shared = named is not None and named.is_shared
    fit = plan_fit(
        sizes, frames=frames, max_pixels=max_pixels, gpu_bytes=gpu_bytes, is_shared=is_shared, cameras=cameras
    )
    times = None if named is None else _times(sizes, named, frames // FRAMES_PER_PAIR, fit.plan.pair_tokens)
    if as_json:
        terminal.write_json(_as_json(sizes, fit, times))
    else:
        console = terminal.console()
        _show_memory(console, sizes, fit, cameras)
        _show_fit(console, fit, star, stream, each=" per camera" if cameras > 1 else "", is_shared=is_shared)
        if named is not None and times is not None:
            _show_times(console, named, times)
    if not fit.fits:
        raise typer.Exit(1)


def _gpu_bytes(gpu: Gpu | None, gpu_gb: float | None) -> int:
    if gpu_gb is None:
        if gpu is None:
            raise ConfigurationError("the GPU is missing: give its name (--gpu) or its memory (--gpu-gb)")
        return int(gpu.memory_gb * 10**9)
    gpu_bytes = gpu_gb * 10**9
    if not (math.isfinite(gpu_bytes) and gpu_bytes >= 1):
        raise ConfigurationError(f"--gpu-gb must be a positive number, got {gpu_gb:g}")
    return int(gpu_bytes)


def _times(sizes: ModelSizes, gpu: Gpu, pairs: int, pair_tokens: int) -> TimePlan:
    weights = weight_parts(
        sizes.config, sizes.parameters, sizes.vision_parameters, ELEMENT_BYTES, is_tied=sizes.is_tied
    )
    return plan_times(sizes.config, weights, gpu, element_bytes=ELEMENT_BYTES, pairs=pairs, pair_tokens=pair_tokens)


def _show_memory(console: Console, sizes: ModelSizes, fit: Fit, cameras: int) -> None:
    number = (
        f"weights quantised by {sizes.quantization}"
        if sizes.quantization
        else f"{sizes.parameters / 10**6:.0f} million parameters in bfloat16"
    )
    each = f", {cameras} cameras" if cameras > 1 else ""
    console.print(
        f"[bold]{literal(sizes.name)}[/], {literal(number)}; {fit.plan.pair_tokens} tokens per pair of frames{each}",
        highlight=False,
        soft_wrap=True,
    )
    needed = fit.plan
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(justify="right")
    for kind, size in (
        ("weights", needed.weights),
        ("vision features", needed.features),
        ("KV cache", needed.kv),
        ("recurrent states", needed.states),
        ("KV cache of a question about a limited time", needed.spare_kv),
        ("working space", needed.working),
        ("CUDA and fragmentation, an estimate", OTHER_BYTES),
        ("[bold]peak[/]", needed.peak),
        ("images, in the system's memory", needed.images),
    ):
        if size:
            table.add_row(kind, _size(size))
    console.print(table, highlight=False)
    for warning in sizes.checkpoint.warnings if sizes.checkpoint is not None else ():
        console.print(f"[yellow]warning:[/] {literal(warning)}", highlight=False, soft_wrap=True)


def _show_fit(console: Console, fit: Fit, star: int, stream: int, *, each: str, is_shared: bool) -> None:
    verdict = "[green]fits[/]" if fit.fits else "[bold red]does not fit[/]"
    shared = ", images included; a quarter is left to the system" if is_shared else ""
    lines = [f"{verdict}: {_size(fit.needed)} of {_size(fit.available)}{shared}", _largest(fit, star, stream, each)]
    if fit.fits:
        lines.append(f"memory.budget_mb: {fit.budget_mb} keeps everything between questions")
    if fit.exceeds_context:
        lines.append(
            f"[yellow]warning:[/] a question about a full memory has up to {fit.prompt_tokens} tokens, more than the "
            f"{fit.context_tokens} that the model was made for: lower --star, --stream or --max-pixels"
        )
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


def _largest(fit: Fit, star: int, stream: int, each: str) -> str:
    if not fit.largest_frames:
        return "not even one pair of frames fits: choose a smaller model, a larger GPU, or lower --max-pixels"
    if fit.largest_frames == MAX_FRAMES:
        return f"memories of {MAX_FRAMES} frames{each} and more fit"
    star_size = (fit.largest_frames - stream) // FRAMES_PER_PAIR * FRAMES_PER_PAIR
    stream_size = (fit.largest_frames - star) // FRAMES_PER_PAIR * FRAMES_PER_PAIR
    examples = [f"--star {star_size} --stream {stream}"] if star_size >= 0 else []
    if stream_size >= FRAMES_PER_PAIR:
        examples.append(f"--star {star} --stream {stream_size}")
    such = f"such as {' or '.join(examples)}" if examples else "Star and Stream together"
    limit = f"; the context of {fit.context_tokens} tokens limits it" if fit.is_context_limit else ""
    return f"largest memory that fits: {fit.largest_frames} frames{each}, {such}{limit}"


def _show_times(console: Console, gpu: Gpu, times: TimePlan) -> None:
    console.print(
        f"{gpu.title} at best: first token after {times.first_question:.2g} s (nothing encoded), "
        f"{times.new_pair:.2g} s (one new pair) or {times.next_question:.2g} s (all encoded, question of "
        f"{QUESTION_TOKENS} tokens); then {1 / times.token:.0f} tokens/s",
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"[dim]{_NOTE}[/]", highlight=False, soft_wrap=True)


def _as_json(sizes: ModelSizes, fit: Fit, times: TimePlan | None) -> dict[str, Any]:
    sizes_by_kind = asdict(fit.plan)
    del sizes_by_kind["pair_tokens"]
    return {
        "model": sizes.name,
        "quantization": sizes.quantization,
        "parameters": sizes.parameters,
        "warnings": list(sizes.checkpoint.warnings) if sizes.checkpoint is not None else [],
        "bytes": {**sizes_by_kind, "other": OTHER_BYTES, "peak": fit.plan.peak},
        "pair_tokens": fit.plan.pair_tokens,
        "fits": fit.fits,
        "needed": fit.needed,
        "available": fit.available,
        "largest_frames": fit.largest_frames,
        "prompt_tokens": fit.prompt_tokens,
        "context_tokens": fit.context_tokens,
        "budget_mb": fit.budget_mb,
        "lower_bounds_sec": None if times is None else asdict(times),
        "note": _NOTE,
    }


def _size(size: int) -> str:
    """Return bytes as text, rounded up as in ``docs/presets.md``."""
    return f"{math.ceil(size / 10**6)} MB" if size < 10**9 else f"{math.ceil(size / 10**8) / 10:.1f} GB"
