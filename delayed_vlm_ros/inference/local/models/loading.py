"""Load a checkpoint's model and processor. Slow, and the only place that reads weights."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from delayed_vlm_ros.dependencies import explained_imports, install_command
from delayed_vlm_ros.errors import (
    ConfigurationError,
    DelayedVlmError,
    DependencyError,
    DeviceMemoryError,
    ModelNotFoundError,
    UnsupportedModelError,
)
from delayed_vlm_ros.inference.local.models.checkpoint import Checkpoint

DTYPES = ("auto", "bfloat16", "float16", "float32")
ATTENTIONS = ("auto", "sdpa", "flash_attention_2", "eager")

# What is fetched of a model: data alone, no pickled weights and no code.
_DATA = ("*.json", "*.txt", "*.jinja", "*.safetensors")


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model with its processor.

    Attributes:
        model: The library's model, in evaluation mode.
        processor: The library's processor: tokenizer, chat template and video processor.
        device: Where it is, ``cuda:0`` or ``cpu``.
    """

    model: Any
    processor: Any
    device: str


def load_model(
    checkpoint: Checkpoint, *, device: str = "auto", dtype: str = "auto", attention: str = "auto"
) -> LoadedModel:
    """Load a checkpoint. Takes seconds to minutes.

    Args:
        checkpoint: What ``resolve_checkpoint`` found.
        device: ``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:1``.
        dtype: One of ``DTYPES``; ``auto`` is bfloat16 on CUDA, float32 on the CPU and on devices without bfloat16.
        attention: One of ``ATTENTIONS``; ``auto`` is flash attention where it is installed and fits, else SDPA.

    Raises:
        ConfigurationError: The device, dtype or attention cannot be had here.
        ModelNotFoundError: The weights could not be fetched.
        DependencyError: A package is missing or broken.
        DeviceMemoryError: The device has no room for it.
        UnsupportedModelError: The library cannot load it.
    """
    with explained_imports():
        import torch  # noqa: F401, PLC0415  transformers does without, and fails later with less to say
        from transformers import AutoModelForImageTextToText, AutoProcessor  # noqa: PLC0415  takes seconds
        from transformers.utils import logging  # noqa: PLC0415

    if not sys.stderr.isatty():
        logging.disable_progress_bar()  # a bar is noise in a robot's log
    place = _choose_device(device)
    number_format = _choose_dtype(dtype, place)
    kernels = _choose_attention(attention, number_format, place)
    path = _complete(checkpoint) if checkpoint.weights_missing else checkpoint.path
    try:
        # Code that lies in a checkpoint is never run: not even after a question, which the library would ask otherwise.
        processor = AutoProcessor.from_pretrained(path, local_files_only=True, trust_remote_code=False)
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            path,
            dtype=number_format,
            attn_implementation=kernels,
            device_map={"": place},
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as error:
        raise _load_failure(f"the model {checkpoint.name} in {path} cannot be loaded", error) from error
    model, report = loaded
    if report["missing_keys"]:  # the library fills them with random numbers and goes on
        raise UnsupportedModelError(
            f"the model {checkpoint.name} in {path} lacks {len(report['missing_keys'])} of its weights, such as "
            f"{min(report['missing_keys'])}: fetch it again, complete"
        )
    if processor.video_token_id != model.config.video_token_id:  # without its files, the library makes an empty one
        raise UnsupportedModelError(
            f"the tokenizer of {checkpoint.name} in {path} does not fit its model: fetch it again, complete"
        )
    return LoadedModel(model.eval(), processor, str(model.device))


def _load_failure(what: str, error: Exception) -> DelayedVlmError:
    """Return the error with the remedy; the library has no common class for what a damaged file can cause."""
    import torch  # noqa: PLC0415

    cause = str(error) if isinstance(error, (OSError, ValueError, RuntimeError)) else f"{type(error).__name__}: {error}"
    if isinstance(error, torch.OutOfMemoryError):
        return DeviceMemoryError(f"{what}: {cause}. Free the device's memory, or choose a smaller model or device cpu")
    if isinstance(error, ImportError):  # such as torchvision, which the library asks for only now
        return DependencyError(f"{what}: {cause}. Install what it needs in the repository: {install_command('vlm')}")
    return UnsupportedModelError(f"{what}: {cause}. Fetch it again, complete; if it is complete, update transformers")


def _complete(checkpoint: Checkpoint) -> Any:
    with explained_imports():
        from huggingface_hub import snapshot_download  # noqa: PLC0415
        from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415

    try:
        return snapshot_download(checkpoint.name, allow_patterns=list(_DATA))
    except (HfHubHTTPError, OSError) as error:
        raise ModelNotFoundError(f"the weights of {checkpoint.name} could not be fetched: {error}") from error


def _choose_device(device: str) -> str:
    import torch  # noqa: PLC0415

    if device == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    try:
        wanted = torch.device(device)
    except RuntimeError:
        raise ConfigurationError(f"the device '{device}' is unknown: use auto, cpu, cuda or cuda:1") from None
    if wanted.type == "cuda":
        count = torch.cuda.device_count()
        if (wanted.index or 0) >= count:
            raise ConfigurationError(
                f"the device '{device}' is not there: this torch sees {count} CUDA devices. Use auto or cpu, or "
                "install a torch that fits the driver"
            )
        return f"cuda:{wanted.index or 0}"
    return str(wanted)


def _choose_dtype(dtype: str, device: str) -> str:
    import torch  # noqa: PLC0415

    if dtype not in DTYPES:
        raise ConfigurationError(f"the dtype '{dtype}' is unknown: use one of {', '.join(DTYPES)}")
    if dtype != "auto":
        return dtype
    # Never float16: activations of these models exceed its range, above all in the vision encoder.
    return "bfloat16" if device.startswith("cuda") and torch.cuda.is_bf16_supported() else "float32"


def _choose_attention(attention: str, dtype: str, device: str) -> str:
    from transformers.utils.import_utils import is_flash_attn_2_available  # noqa: PLC0415

    if attention not in ATTENTIONS:
        raise ConfigurationError(f"the attention '{attention}' is unknown: use one of {', '.join(ATTENTIONS)}")
    if attention == "flash_attention_2" and not is_flash_attn_2_available():
        raise ConfigurationError("flash_attention_2 is not installed for this torch and device: use auto or sdpa")
    if attention != "auto":
        return attention
    fits = device.startswith("cuda") and dtype != "float32" and is_flash_attn_2_available()
    return "flash_attention_2" if fits else "sdpa"
