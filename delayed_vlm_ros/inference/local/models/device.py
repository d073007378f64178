"""Device, dtype and attention of a model: the values that settings may have, and what ``auto`` selects.

torch and transformers are imported inside functions, as in ``loading``: commands check names before they load torch.
"""

from __future__ import annotations

from typing import Any

from delayed_vlm_ros.errors import ConfigurationError

DTYPES = ("auto", "bfloat16", "float16", "float32")
ATTENTIONS = ("auto", "sdpa", "flash_attention_2", "eager")


def choose_device(device: str) -> str:
    """Return a device of this machine.

    Args:
        device: ``auto`` (CUDA if available), ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        ConfigurationError: The device is not available, or the name is invalid.
    """
    import torch  # noqa: PLC0415  see the module

    if device == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    try:
        requested = torch.device(device)
    except RuntimeError:
        raise ConfigurationError(f"'device' must be auto, cpu or cuda[:N], got '{device}'") from None
    if requested.type == "cuda":
        count = torch.cuda.device_count()
        if (requested.index or 0) >= count:
            raise ConfigurationError(
                f"the device '{device}' is not available: torch finds {count} CUDA devices. Use auto or cpu, or "
                "install a torch that matches the driver"
            )
        return f"cuda:{requested.index or 0}"
    return str(requested)


def choose_dtype(dtype: str, device: str) -> str:
    """Return the name of a torch dtype.

    Args:
        dtype: One of ``DTYPES``.
        device: Result of ``choose_device``.

    Raises:
        ConfigurationError: The name is invalid.
    """
    import torch  # noqa: PLC0415  see the module

    if dtype not in DTYPES:
        raise ConfigurationError(f"'dtype' must be one of {', '.join(DTYPES)}, got '{dtype}'")
    if dtype != "auto":
        return dtype
    # Never float16: activations of these models exceed its range, above all in the vision encoder.
    return "bfloat16" if device.startswith("cuda") and torch.cuda.is_bf16_supported() else "float32"


def choose_attention(attention: str, dtype: str, device: str) -> str:
    """Return transformers' name of an attention implementation.

    Args:
        attention: One of ``ATTENTIONS``.
        dtype: Result of ``choose_dtype``.
        device: Result of ``choose_device``.

    Raises:
        ConfigurationError: The name is invalid, or flash attention is not installed.
    """
    from transformers.utils.import_utils import is_flash_attn_2_available  # noqa: PLC0415  see the module

    if attention not in ATTENTIONS:
        raise ConfigurationError(f"'attention' must be one of {', '.join(ATTENTIONS)}, got '{attention}'")
    if attention == "flash_attention_2" and not is_flash_attn_2_available():
        raise ConfigurationError("flash_attention_2 is not installed for this torch and device: use auto or sdpa")
    if attention != "auto":
        return attention
    fits = device.startswith("cuda") and dtype != "float32" and is_flash_attn_2_available()
    return "flash_attention_2" if fits else "sdpa"


def dtype_name(dtype: Any) -> str:
    """Return the name of a torch dtype, such as ``bfloat16``."""
    return str(dtype).removeprefix("torch.")
