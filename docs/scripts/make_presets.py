"""Write the tables of docs/presets.md: the memory that each preset needs, the data of GPUs. A test compares them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from delayed_vlm_ros.inference.local.gpus import GPUS
from delayed_vlm_ros.inference.local.memory_plan import MemoryPlan, plan_memory
from delayed_vlm_ros.inference.local.models.published import PUBLISHED_MODELS, PublishedModel
from delayed_vlm_ros.inference.local.models.sizes import ELEMENT_BYTES
from delayed_vlm_ros.ros.parameters import specifications
from delayed_vlm_ros.ros.scene_memory.parameters import SceneMemoryParameters

PAGE = Path(__file__).parents[1] / "presets.md"
CONFIG = Path(__file__).parents[2] / "config"

DEVICE_GB = {
    "qwen3-vl-8b": 24,
    "qwen3-vl-4b": 16,
    "qwen3-vl-2b": 8,
    "qwen3.5-4b": 16,
    "qwen3.5-2b": 8,
    "qwen2.5-vl-7b": 24,
    "qwen2.5-vl-3b": 12,
    "qwen2-vl-2b": 8,
}
"""The presets, each with its size of GPU memory in GB."""

_COLUMNS = (
    "preset",
    "GPU",
    "parameters",
    "weights",
    "tokens per pair",
    "images",
    "features",
    "KV",
    "`budget_mb`",
    "peak",
)
_GPU_COLUMNS = ("`--gpu`", "GPU", "memory", "bandwidth", "bfloat16, dense")
_BEGIN, _END = "<!-- made by docs/scripts/make_presets.py -->\n", "<!-- end -->\n"


def settings(preset: str) -> dict[str, Any]:
    """Return the parameters in a preset's file by ROS name."""
    content = yaml.safe_load((CONFIG / f"{preset}.yaml").read_text(encoding="utf-8"))
    return dict(_flat(content["/**"]["ros__parameters"]))


def parameters(preset: str) -> SceneMemoryParameters:
    """Return the node's parameters with a preset; other parameters have their defaults."""
    given = settings(preset)
    specs = specifications(SceneMemoryParameters)
    return SceneMemoryParameters(
        **{field: spec.convert(given.get(spec.name, spec.default)) for field, spec in specs.items()}
    )


def published(preset: str) -> PublishedModel:
    """Return the sizes of a preset's model."""
    return PUBLISHED_MODELS[parameters(preset).model]


def need(preset: str) -> MemoryPlan:
    """Return the memory that a preset needs when the scene memory is full."""
    chosen, model = parameters(preset), published(preset)
    return plan_memory(
        model.config,
        parameters=model.parameters,
        element_bytes=ELEMENT_BYTES,
        frames=chosen.star_size + chosen.stream_size,
        frame_pixels=chosen.max_pixels,
        factor=model.factor,
    )


def page() -> str:
    """Return the page with its tables generated."""
    text = PAGE.read_text(encoding="utf-8")
    for number, table in enumerate((_preset_table(), _gpu_table()), start=1):
        *before, rest = text.split(_BEGIN, number)
        _, _, after = rest.partition(_END)
        text = _BEGIN.join([*before, f"{table}{_END}{after}"])
    return text


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _preset_table() -> str:
    return _table(_COLUMNS, (_row(preset) for preset in DEVICE_GB))


def _gpu_table() -> str:
    rows = (
        (
            f"`{name}`",
            gpu.title,
            f"{gpu.memory_gb:g} GB{', shared' if gpu.is_shared else ''}",
            f"{gpu.bandwidth / 1e9:.0f} GB/s",
            f"{gpu.arithmetic / 1e12:g} TFLOPS",
        )
        for name, gpu in GPUS.items()
    )
    return _table(_GPU_COLUMNS, rows)


def _table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = tuple(columns)
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, ("---",) * len(head), *rows))


def _row(preset: str) -> tuple[str, ...]:
    needed = need(preset)
    return (
        f"[`{preset}`](../config/{preset}.yaml)",
        f"{DEVICE_GB[preset]} GB",
        f"{published(preset).parameters / 10**9:.2f} · 10⁹",
        _gigabytes(needed.weights),
        str(needed.pair_tokens),
        *(f"{math.ceil(size / 10**6)} MB" for size in (needed.images, needed.features, needed.kv + needed.states)),
        f"{parameters(preset).budget_mb:g}",
        f"**{_gigabytes(needed.peak)}**",
    )


def _gigabytes(size: int) -> str:
    return f"{math.ceil(size / 10**8) / 10:.1f} GB"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
