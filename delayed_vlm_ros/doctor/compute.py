"""torch and the GPU."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from delayed_vlm_ros.doctor.finding import Finding, error, ok, warn
from delayed_vlm_ros.doctor.running import Answer

_DRIVER_FILE = Path("/proc/driver/nvidia/version")
_DEVICE_FILES = ("/dev/nvidiactl", "/dev/nvhost-gpu", "/dev/nvgpu", "/dev/dxg")
_MATCHING_TORCH = "install a torch that matches the driver, see https://pytorch.org/get-started"


def probe_torch() -> dict[str, Any]:
    """Import torch and describe its CUDA devices; for a child process, because it takes seconds."""
    import torch  # noqa: PLC0415  may be missing

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        available = torch.cuda.is_available()
        devices = [_device(torch, index) for index in range(torch.cuda.device_count())] if available else []
    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "devices": devices,
        "warnings": [str(one.message) for one in caught],
    }


def compute_findings(answer: Answer, device: str) -> list[Finding]:
    """Report whether torch and the GPU can be used.

    Args:
        answer: Result of ``probe_torch`` in a child process.
        device: Parameter ``model.device``.
    """
    if answer.error:
        return [error("torch", answer.error, _MATCHING_TORCH if answer.has_ended else "")]
    found = answer.value
    torch = ok("torch", f"{found['version']}, {_build(found)}")
    return [torch, *(_gpu(one) for one in found["devices"])] if found["devices"] else [torch, _no_gpu(found, device)]


def _device(torch: Any, index: int) -> dict[str, Any]:
    free, total = torch.cuda.mem_get_info(index)
    with torch.cuda.device(index):
        has_bfloat16 = bool(torch.cuda.is_bf16_supported())
    name = torch.cuda.get_device_name(index)
    failure = _computing_error(torch, index)
    return {"name": name, "free": free, "total": total, "bfloat16": has_bfloat16, "error": failure}


def _computing_error(torch: Any, index: int) -> str:
    """Compute on the device; return the error, such as of a torch without code for it, or an empty text."""
    try:
        torch.ones(8, device=f"cuda:{index}").sum().item()
    except RuntimeError as failure:
        return str(failure).splitlines()[0]
    return ""


def _build(found: dict[str, Any]) -> str:
    return f"built for CUDA {found['cuda']}" if found["cuda"] else "built without CUDA"


def _gpu(device: dict[str, Any]) -> Finding:
    text = f"{device['name']}, {_gigabytes(device['free'])} of {_gigabytes(device['total'])} free, {_driver()}"
    if device["error"]:
        return error("gpu", f"{text}, but torch cannot compute on it ({device['error']})", _MATCHING_TORCH)
    if not device["bfloat16"]:
        return warn("gpu", f"{text}, no bfloat16", "models run in float32, with twice the memory")
    return ok("gpu", f"{text}, bfloat16")


def _no_gpu(found: dict[str, Any], device: str) -> Finding:
    present = [file for file in _DEVICE_FILES if Path(file).exists()]
    reason = f"; torch says: {found['warnings'][0]}" if found["warnings"] else ""
    if present:
        text = f"{present[0]} exists, {_driver()}, but torch ({_build(found)}) cannot use it{reason}"
        return error("gpu", text, _MATCHING_TORCH) if device != "cpu" else warn("gpu", text, _MATCHING_TORCH)
    if device.startswith("cuda"):
        remedy = "install NVIDIA's driver, pass the GPU to the container, or set model.device to cpu"
        return error("gpu", f"no CUDA device{reason}, and model.device is {device}", remedy)
    if device == "cpu":
        return ok("gpu", "no CUDA device, and model.device is cpu")
    return warn("gpu", f"no CUDA device{reason}", "the model runs on the CPU: slow for all but the demo model")


def _driver() -> str:
    try:
        words = _DRIVER_FILE.read_text(encoding="utf-8", errors="replace").splitlines()[0].split()
    except (OSError, IndexError):
        return "driver unknown"
    numbers = [word for word in words if word[0].isdigit() and "." in word]
    return f"driver {numbers[0]}" if numbers else "driver unknown"


def _gigabytes(size: int) -> str:
    return f"{size / 10**9:.1f} GB"
