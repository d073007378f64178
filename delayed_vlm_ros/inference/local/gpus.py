"""Data of GPUs: memory, bandwidth and arithmetic, from which a plan computes the shortest possible times.

Memory and bandwidth are those of NVIDIA's data sheets. Arithmetic is the dense rate of the tensor cores in bfloat16
with sums in float32: half of the rate that a data sheet states with sparsity (H100, H200, L4), an eighth of the sparse
rate in FP4 (Thor), the rate of the architecture's white paper (A100, RTX 4090), and 512 operations of a tensor core per
clock in the fastest power mode (Orin).
"""

from __future__ import annotations

from dataclasses import dataclass

from delayed_vlm_ros.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU.

    Attributes:
        title: Its name for people.
        memory_gb: Memory in GB.
        bandwidth: Bytes of memory a second.
        arithmetic: Floating-point operations a second.
        is_shared: Whether GPU and system share the memory.
    """

    title: str
    memory_gb: float
    bandwidth: float
    arithmetic: float
    is_shared: bool = False


GPUS = {
    "orin-nano-8": Gpu("Jetson Orin Nano 8 GB", 8, 102e9, 16.7e12, is_shared=True),
    "orin-nx-8": Gpu("Jetson Orin NX 8 GB", 8, 102e9, 19.2e12, is_shared=True),
    "orin-nx-16": Gpu("Jetson Orin NX 16 GB", 16, 102e9, 19.2e12, is_shared=True),
    "agx-orin-32": Gpu("Jetson AGX Orin 32 GB", 32, 205e9, 26.7e12, is_shared=True),
    "agx-orin-64": Gpu("Jetson AGX Orin 64 GB", 64, 205e9, 42.6e12, is_shared=True),
    "thor": Gpu("Jetson Thor (T5000)", 128, 273e9, 258e12, is_shared=True),
    "l4": Gpu("L4", 24, 300e9, 121e12),
    "rtx-4090": Gpu("RTX 4090", 24, 1008e9, 165e12),
    "a100-80": Gpu("A100 80 GB SXM", 80, 2039e9, 312e12),
    "h100": Gpu("H100 SXM", 80, 3350e9, 989e12),
    "h200": Gpu("H200 SXM", 141, 4800e9, 989e12),
}
"""GPUs by the name of a command's option."""


def find_gpu(name: str) -> Gpu:
    """Return a GPU by its name, such as ``rtx-4090`` or ``RTX 4090``.

    Raises:
        ConfigurationError: The GPU is unknown.
    """
    key = "-".join(name.lower().replace("jetson", "").replace("gb", "").split())
    if key not in GPUS:
        raise ConfigurationError(
            f"unknown GPU '{name}': use one of {', '.join(GPUS)}, or give its memory only (--gpu-gb), without times"
        )
    return GPUS[key]
