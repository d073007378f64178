"""The checkpoint that the node uses, the completeness of its files, and the memory that it needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from delayed_vlm_ros.doctor.finding import Finding, error, ok, warn
from delayed_vlm_ros.errors import UnsupportedModelError
from delayed_vlm_ros.inference.local.memory_plan import MemoryPlan
from delayed_vlm_ros.inference.local.models.checkpoint import Checkpoint, resolve_checkpoint
from delayed_vlm_ros.inference.local.models.files import weight_bytes
from delayed_vlm_ros.inference.local.models.gpu_memory import MEMINFO, system_memory
from delayed_vlm_ros.inference.local.models.quantization import EXPANDED_METHODS, quantized_dtype
from delayed_vlm_ros.inference.local.models.weights import stored_tensors
from delayed_vlm_ros.inference.remote.address import is_remote
from delayed_vlm_ros.inference.remote.settings import RemoteSettings
from delayed_vlm_ros.memory import MemoryConfig

_HALF, _SINGLE = 2, 4  # bytes of a number
_TOKENIZERS = ("tokenizer.json", "vocab.json", "tokenizer.model")
_SMALLER = "choose a smaller model or preset (docs/presets.md), or lower memory.max_pixels and the memory's sizes"
_ROBOT_MODEL = "for real images, set model.name to a model of docs/presets.md"
_FALLBACKS = {"none": "", "local": "auto"}  # of the parameter remote.fallback: name of the model on this machine
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class ModelSettings:
    """The node's parameters that concern the model.

    Attributes:
        model: Name of the model on this machine; empty: there is none.
        server: Address of the model on a server; empty: there is none.
        remote: Settings for the server.
    """

    model: str = "auto"
    device: str = "auto"
    dtype: str = "auto"
    max_pixels: int = MemoryConfig.max_pixels
    frames: int = MemoryConfig.star_memory_size + MemoryConfig.stream_window_size
    cameras: int = 1
    server: str = ""
    remote: RemoteSettings = field(default_factory=RemoteSettings)

    @property
    def extras(self) -> tuple[str, ...]:
        """Extras of this package that the model needs."""
        return (*(("vlm",) if self.model else ()), *(("remote",) if self.server else ()))


def settings_of(parameters: Mapping[str, Any] | None) -> ModelSettings:
    """Return the settings of a running node; the defaults without one."""
    if parameters is None:
        return ModelSettings()
    default = ModelSettings()
    name = str(parameters.get("model.name", default.model))
    server = name if is_remote(name) else ""
    fallback = str(parameters.get("remote.fallback", "none"))
    return ModelSettings(
        model=_FALLBACKS.get(fallback, fallback) if server else name,
        server=server,
        remote=RemoteSettings(
            api_key_env=str(parameters.get("remote.api_key_env", "")),
            frame_multiple=int(parameters.get("remote.frame_multiple", RemoteSettings.frame_multiple)),
        ),
        device=str(parameters.get("model.device", default.device)),
        dtype=str(parameters.get("model.dtype", default.dtype)),
        max_pixels=int(parameters.get("memory.max_pixels", default.max_pixels)),
        frames=int(parameters.get("memory.star.size", MemoryConfig.star_memory_size))
        + int(parameters.get("memory.stream.size", MemoryConfig.stream_window_size)),
        cameras=len(parameters.get("cameras") or ("camera",)),
    )


def model_findings(settings: ModelSettings, torch: Mapping[str, Any] | None, *, is_loaded: bool) -> list[Finding]:
    """Resolve the checkpoint as the node does, without a download, and plan its memory.

    Args:
        settings: Settings of the node.
        torch: Result of ``probe_torch``; None without torch.
        is_loaded: Whether the node holds the model in memory already.

    Raises:
        ModelError: The checkpoint is missing or damaged.
    """
    checkpoint = resolve_checkpoint(settings.model, device=settings.device)
    settings = replace(settings, dtype=quantized_dtype(checkpoint.quantization, settings.dtype))
    count = _parameter_count(checkpoint)
    found = f"{settings.model}" if settings.model == checkpoint.name else f"{settings.model} is {checkpoint.name}"
    text = f"{found} in {checkpoint.path}, complete, {count / 1e6:.0f} million parameters"
    if checkpoint.quantization:
        text = f"{text}, quantised by {checkpoint.quantization}"
    if checkpoint.why_chosen:
        text = f"{text}; {checkpoint.why_chosen}"
    named = (
        warn("model", f"{text}: {checkpoint.warnings[-1]}", _ROBOT_MODEL) if checkpoint.warnings else ok("model", text)
    )
    return [
        named,
        *_number_format(settings),
        _memory(_plan(checkpoint, count, settings, torch), settings, torch, is_loaded=is_loaded),
    ]


def _number_format(settings: ModelSettings) -> list[Finding]:
    if settings.dtype != "float16":
        return []
    text = "model.dtype is float16, whose range the activations of these models exceed"
    return [warn("number format", text, "set model.dtype to auto, bfloat16 or float32")]


def _parameter_count(checkpoint: Checkpoint) -> int:
    """Return the number of parameters in the weight files; of weights that stay quantised, a lower bound.

    Raises:
        UnsupportedModelError: A file is missing or damaged.
    """
    _check_tokenizer(checkpoint)
    return sum(tensor.weights for tensor in stored_tensors(checkpoint))


def _check_tokenizer(checkpoint: Checkpoint) -> None:
    if not any((checkpoint.path / name).is_file() for name in _TOKENIZERS):
        raise UnsupportedModelError(
            f"the model {checkpoint.name} in {checkpoint.path} has no tokenizer: download all its files again"
        )


def _plan(checkpoint: Checkpoint, count: int, settings: ModelSettings, torch: Mapping[str, Any] | None) -> MemoryPlan:
    element_bytes = _element_bytes(settings, torch)
    if checkpoint.quantization and checkpoint.quantization not in EXPANDED_METHODS:
        count = weight_bytes(checkpoint.name, checkpoint.path) // element_bytes
    return checkpoint.plan_memory(
        parameters=count,
        element_bytes=element_bytes,
        frames=settings.frames,
        max_pixels=settings.max_pixels,
        cameras=settings.cameras,
    )


def _element_bytes(settings: ModelSettings, torch: Mapping[str, Any] | None) -> int:
    if settings.dtype != "auto":
        return _SINGLE if settings.dtype == "float32" else _HALF
    gpu = _gpu(settings, torch)
    return _HALF if gpu is not None and gpu["bfloat16"] else _SINGLE


def _gpu(settings: ModelSettings, torch: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return the GPU that the node uses; None for the CPU."""
    devices = torch["devices"] if torch is not None else []
    if settings.device == "cpu" or not devices:
        return None
    index = int(settings.device.partition(":")[2] or 0)
    return devices[index] if index < len(devices) else None


def _memory(plan: MemoryPlan, settings: ModelSettings, torch: Mapping[str, Any] | None, *, is_loaded: bool) -> Finding:
    gpu = _gpu(settings, torch)
    where, free = ("on the GPU", gpu["free"]) if gpu is not None else ("of the CPU's memory", free_memory())
    needed = plan.peak if gpu is not None else plan.peak + plan.images
    parts = (
        f"weights {_megabytes(plan.weights)}, vision features {_megabytes(plan.features)}, KV cache "
        f"{_megabytes(plan.kv + plan.states)}, images {_megabytes(plan.images)} for {settings.frames} frames and "
        f"{settings.cameras} {'camera' if settings.cameras == 1 else 'cameras'}"
    )
    text = f"{_megabytes(needed)} {where} at most ({parts}), {_megabytes(free)} free"
    if is_loaded:
        return ok("memory plan", f"{text} while the model is loaded")
    if free < plan.weights:
        return error("memory plan", text, _SMALLER)
    return warn("memory plan", text, _SMALLER) if free < needed else ok("memory plan", text)


def free_memory(meminfo: Path = MEMINFO, cgroup: Path = _CGROUP) -> int:
    """Return the bytes that this process may still allocate, within the limit of its container."""
    free = system_memory("MemAvailable", meminfo)
    try:
        limit, used = ((cgroup / name).read_text(encoding="ascii").strip() for name in ("memory.max", "memory.current"))
        return min(free, int(limit) - int(used)) if limit != "max" else free
    except (OSError, ValueError):  # no container, or an older kernel
        return free


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB" if size < 10**9 else f"{size / 1e9:.1f} GB"
