"""The memory of the GPU, read without torch: choosing a model must be quick."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

_DEVICE_FILES = ("/dev/nvidiactl", "/dev/nvhost-gpu", "/dev/nvgpu", "/dev/dxg")
MEMINFO = Path("/proc/meminfo")

SYSTEM_SHARE = 0.25
"""Part of a memory that GPU and system share, for the system and other nodes."""

_SHARED = ("[N/A]", "[Not Supported]")  # the driver's answer where GPU and system share their memory
_QUERY_TIMEOUT_SEC = 10.0
_MEBIBYTE = 2**20


def has_cuda_device() -> bool:
    """Return whether this machine has an NVIDIA GPU with a driver, and this process may use it."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return False
    return any(Path(file).exists() for file in _DEVICE_FILES)


def usable_gpu_memory(device: str) -> int | None:
    """Return the bytes of GPU memory that a model may use; None: unknown.

    The whole memory counts, not what is free now, so that a robot starts with the same model each time. Where GPU and
    system share their memory, as on a Jetson, a quarter is left to the system.

    Args:
        device: ``auto``, ``cuda`` or ``cuda:N``.
    """
    answer = _ask_driver(_driver_index(device))
    if answer in _SHARED:
        return int(system_memory("MemTotal") * (1 - SYSTEM_SHARE))
    return int(answer) * _MEBIBYTE if answer.isdecimal() else None


def _driver_index(device: str) -> str:
    """Return the index or UUID of a device for the driver, which ignores ``CUDA_VISIBLE_DEVICES``."""
    index = device.partition(":")[2] or "0"
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return visible[int(index)] if visible and index.isdecimal() and int(index) < len(visible) else index


def _ask_driver(index: str) -> str:
    """Return the GPU's memory in MiB, as the driver's tool prints it; empty if the tool is missing or fails."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ""
    command = [tool, "--query-gpu=memory.total", "--format=csv,noheader,nounits", f"--id={index}"]
    try:
        result = subprocess.run(  # noqa: S603  arguments from this module and the driver's own variable
            command, capture_output=True, text=True, timeout=_QUERY_TIMEOUT_SEC, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return result.stdout.strip()


def system_memory(field: str, meminfo: Path = MEMINFO) -> int:
    """Return a field of the kernel's description of the memory, in bytes.

    Args:
        field: Name of the field, such as ``MemAvailable``.
        meminfo: File of the kernel.
    """
    fields = dict(line.split(":") for line in meminfo.read_text(encoding="ascii").splitlines())
    return int(fields[field].split()[0]) * 1024
