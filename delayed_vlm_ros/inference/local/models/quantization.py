"""Quantised checkpoints: which methods are supported, and how transformers loads them.

Weights stay quantised in memory where a package computes with them. Those of ``EXPANDED_METHODS`` are expanded when
they are loaded, so that the model needs as much memory as an unquantised one: otherwise, transformers would expand them
in a call that this engine does not make, or download programs for the GPU.

transformers is imported inside functions, as in ``loading``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from delayed_vlm_ros.dependencies import is_installed
from delayed_vlm_ros.errors import ConfigurationError, UnsupportedModelError

# Method -> packages that transformers needs to load it: import name and name on the package index.
_PACKAGES: Mapping[str, Mapping[str, str]] = {
    "auto-round": {"auto_round": "auto-round"},
    "awq": {"gptqmodel": "gptqmodel"},
    "bitsandbytes": {"bitsandbytes": "bitsandbytes"},
    "compressed-tensors": {"compressed_tensors": "compressed-tensors"},
    "fp8": {},
    "gptq": {"gptqmodel": "gptqmodel", "optimum": "optimum"},
    "torchao": {"torchao": "torchao"},
}

EXPANDED_METHODS = ("compressed-tensors", "fp8")
"""Methods whose weights are expanded to the model's dtype when they are loaded."""

_UNKNOWN = "an unknown method"
_PACKED_BITS, _DEFAULT_BITS = {"I32": 32, "U8": 8}, 4
_BFLOAT16_ONLY = ("fp8",)
# Tensors without which quantised weights are wrong. Scales of activations and of the KV cache are not: expanded weights
# need none.
_SCALES = (
    ".absmax",
    ".g_idx",
    ".quant_map",
    ".qweight",
    ".qzeros",
    ".scales",
    ".weight_g_idx",
    ".weight_global_scale",
    ".weight_packed",
    ".weight_scale",
    ".weight_scale_inv",
    ".weight_zero_point",
)
# Of older compressed-tensors and of MLX; transformers reads neither.
_OTHER_FIELDS = ("compression_config", "quantization")


def quantization_method(name: str, config: Mapping[str, Any]) -> str:
    """Return the method by which the weights of a checkpoint are quantised; empty if they are not.

    Args:
        name: Name of the model, for the error.
        config: Content of its ``config.json``.

    Raises:
        UnsupportedModelError: transformers would load the weights without their scales, or a package is missing.
    """
    settings = config.get("quantization_config")
    if not settings:
        _check_other_fields(name, config)
        return ""
    method = _method(settings)
    if method not in _PACKAGES:
        raise UnsupportedModelError(
            f"cannot use the model {name}: its weights are quantised by {method:.100}, which is not supported: use "
            f"weights in bfloat16, or quantised by one of {', '.join(_PACKAGES)}"
        )
    if len(settings.get("config_groups") or ()) > 1:  # transformers expands all layers as those of the first group
        raise UnsupportedModelError(
            f"cannot use the model {name}: its weights are quantised in more than one way (config_groups), which "
            "transformers does not expand: use weights in bfloat16, or with one group"
        )
    missing = [package for module, package in _PACKAGES[method].items() if not is_installed(module)]
    if missing:
        raise UnsupportedModelError(
            f"the weights of {name} are quantised by {method}, which needs {' and '.join(missing)}: run 'pip install "
            f"{' '.join(missing)}', or use weights in bfloat16"
        )
    return method


def _check_other_fields(name: str, config: Mapping[str, Any]) -> None:
    text = config.get("text_config")
    found = [field for field in _OTHER_FIELDS if config.get(field)]
    if isinstance(text, Mapping) and text.get("quantization_config"):
        found.append("quantization_config in text_config")
    if found:
        raise UnsupportedModelError(
            f"cannot use the model {name}: its config.json describes quantised weights in the field {found[0]}, which "
            "is not supported: use weights in bfloat16, or with the field quantization_config"
        )


def _method(settings: Any) -> str:
    """Return the named method; older files of bitsandbytes name none."""
    if not isinstance(settings, Mapping):
        return _UNKNOWN
    is_bitsandbytes = settings.get("load_in_4bit") or settings.get("load_in_8bit")
    return str(settings.get("quant_method", "bitsandbytes" if is_bitsandbytes else _UNKNOWN))


def quantized_dtype(method: str, dtype: str) -> str:
    """Return the dtype of a model whose weights are quantised.

    Args:
        method: Result of ``quantization_method``.
        dtype: Requested dtype, with ``auto``.

    Raises:
        ConfigurationError: transformers expands the weights to another dtype.
    """
    if method not in _BFLOAT16_ONLY:
        return dtype
    if dtype not in ("auto", "bfloat16"):
        raise ConfigurationError(
            f"'dtype' must be auto or bfloat16 for weights that are quantised by {method}, got '{dtype}'"
        )
    return "bfloat16"


def loading_options(method: str, folder: Path) -> dict[str, Any]:
    """Return the arguments of ``from_pretrained`` for a method.

    Args:
        method: Result of ``quantization_method``.
        folder: Folder of the checkpoint.
    """
    if method not in EXPANDED_METHODS:
        return {}
    from transformers import AutoConfig  # noqa: PLC0415  see the module

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    config.quantization_config["dequantize"] = True
    return {"config": config}


def packed_weights(tensor: str, stored: str, config: Mapping[str, Any]) -> int:
    """Return how many weights one element of a tensor has: several in the packed tensors of compressed-tensors.

    Args:
        tensor: Name of the tensor.
        stored: Its dtype, as safetensors names it.
        config: Content of the checkpoint's ``config.json``.
    """
    if not tensor.endswith("weight_packed") or stored not in _PACKED_BITS:
        return 1
    groups = (config.get("quantization_config") or {}).get("config_groups") or {}
    bits = [int((group.get("weights") or {}).get("num_bits") or _DEFAULT_BITS) for group in groups.values()]
    return _PACKED_BITS[stored] // min(bits, default=_DEFAULT_BITS)


def check_unused_weights(name: str, unused: Collection[str]) -> tuple[str, ...]:
    """Check that no weight remains that the others are to be multiplied with.

    Args:
        name: Name of the model, for error and note.
        unused: Names of the weights in the files that the model does not use.

    Returns:
        One sentence if the files have other weights that are not used.

    Raises:
        UnsupportedModelError: The weights are quantised, and were loaded without their scales.
    """
    if not unused:
        return ()
    scales = sorted(weight for weight in unused if weight.endswith(_SCALES))
    if scales:
        raise UnsupportedModelError(
            f"the weights of {name} are quantised, but transformers does not use {scales[0]}: answers would be "
            "garbled. Download all its files again; if that does not help, use weights in bfloat16"
        )
    return (f"the files of {name} have {len(unused)} weights that the model does not use, such as {min(unused)}",)
