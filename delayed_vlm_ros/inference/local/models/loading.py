"""Load the model and processor of a checkpoint. Only this module reads weights.

torch and transformers are imported inside functions: they take seconds to import, and may be missing.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
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
from delayed_vlm_ros.inference.local.familiarity import FamiliarImages, load_familiar_images
from delayed_vlm_ros.inference.local.models.answering import (
    check_chat_template,
    check_generation,
    check_tokenizer,
    set_end_tokens,
)
from delayed_vlm_ros.inference.local.models.checkpoint import Checkpoint
from delayed_vlm_ros.inference.local.models.decoding import decoding_settings
from delayed_vlm_ros.inference.local.models.device import choose_attention, choose_device, choose_dtype, dtype_name
from delayed_vlm_ros.inference.local.models.processor import load_processor
from delayed_vlm_ros.inference.local.models.quantization import (
    check_unused_weights,
    loading_options,
    quantized_dtype,
)
from delayed_vlm_ros.inference.local.oom import is_out_of_memory, is_shortage, shortage_error

# Only data is downloaded: no pickled weights and no code.
_DATA_FILES = ("*.json", "*.txt", "*.jinja", "*.safetensors")


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model with its processor.

    Attributes:
        model: Model from transformers, in evaluation mode.
        processor: Processor from transformers: tokenizer, chat template and video processor.
        device: Device of the model, ``cuda:0`` or ``cpu``.
        notes: Why ``auto`` chose the model, and what of the checkpoint is not used; one sentence each, to report once.
        familiar_images: The images that the model knows; None: it knows any.
    """

    model: Any
    processor: Any
    device: str
    notes: tuple[str, ...] = ()
    familiar_images: FamiliarImages | None = None


def load_model(
    checkpoint: Checkpoint,
    *,
    device: str = "auto",
    dtype: str = "auto",
    attention: str = "auto",
    sampling: bool = False,
) -> LoadedModel:
    """Load a checkpoint. Takes seconds to minutes.

    Args:
        checkpoint: Result of ``resolve_checkpoint``.
        device: ``auto`` (CUDA if available), ``cpu``, ``cuda`` or ``cuda:N``.
        dtype: One of ``DTYPES``; ``auto`` is bfloat16 on CUDA, float32 on the CPU and on devices without bfloat16.
        attention: One of ``ATTENTIONS``; ``auto`` is flash attention if it is installed and fits, else SDPA.
        sampling: Whether answers follow the sampling settings in ``generation_config.json``.

    Raises:
        ConfigurationError: The device, dtype or attention is not available on this machine.
        ModelNotFoundError: The weights cannot be downloaded.
        DependencyError: A package is missing or broken.
        DeviceMemoryError: The device has too little memory.
        NonFiniteError: The model computes NaN or infinity, as after an overflow in float16.
        UnsupportedModelError: transformers cannot load the files, or cannot answer questions with them.
    """
    with explained_imports():
        import torch  # noqa: F401, PLC0415  transformers imports without it, and fails later with an unclear error
        from transformers import AutoModelForImageTextToText, GenerationConfig  # noqa: PLC0415
        from transformers.utils import logging  # noqa: PLC0415

    if not _shows_progress_bars():
        logging.disable_progress_bar()
    target = choose_device(device)
    if checkpoint.why_chosen and not target.startswith("cuda"):  # it was chosen for the memory of a GPU
        raise ConfigurationError(
            f"{checkpoint.why_chosen}, but torch finds no CUDA device: install a torch for CUDA, or name a model"
        )
    dtype = choose_dtype(quantized_dtype(checkpoint.quantization, dtype), target)
    attention = choose_attention(attention, dtype, target)
    path = _download_weights(checkpoint) if checkpoint.weights_missing else checkpoint.path
    what = f"cannot load the model {checkpoint.name} in {path}"
    settings = decoding_settings(checkpoint.generation or {}, sampling=sampling)
    try:
        processor = load_processor(Path(path))
    except Exception as error:
        raise _load_error(what, error) from error
    check_chat_template(processor, checkpoint.name)
    check_tokenizer(processor, Path(path), checkpoint.name)
    try:
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            path,
            dtype=dtype,
            attn_implementation=attention,
            device_map={"": target},
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **loading_options(checkpoint.quantization, Path(path)),
            **({} if checkpoint.generation is None else {"generation_config": GenerationConfig(**settings.kept)}),
        )
    except Exception as error:
        raise _load_error(what, error) from error
    model, report = loaded
    if report["missing_keys"]:  # transformers would fill them with random numbers
        raise UnsupportedModelError(
            f"the model {checkpoint.name} in {path} lacks {len(report['missing_keys'])} weights, such as "
            f"{min(report['missing_keys'])}: download all its files again"
        )
    notes = check_unused_weights(checkpoint.name, report["unexpected_keys"])
    if processor.video_token_id != model.config.video_token_id:  # transformers makes an empty tokenizer without files
        raise UnsupportedModelError(
            f"the tokenizer of {checkpoint.name} in {path} does not match its model: download all its files again"
        )
    model.eval()
    if checkpoint.why_chosen:
        notes = (checkpoint.why_chosen, *notes)
    if dtype_name(model.dtype) != dtype:  # transformers changes the dtype of some quantised weights
        notes = (*notes, f"{checkpoint.name} was loaded in {dtype_name(model.dtype)}, not in {dtype}")
    notes = (*notes, *settings.notes(checkpoint.name), *set_end_tokens(model, processor, checkpoint.name))
    check_generation(model, processor, checkpoint.name, sampling=sampling)
    statistics = checkpoint.image_statistics
    familiar_images = None if statistics is None else load_familiar_images(statistics)
    return LoadedModel(model, processor, str(model.device), notes, familiar_images)


def _load_error(what: str, error: Exception) -> DelayedVlmError:
    """Return the error with its remedy. transformers has no common class for the effects of a damaged file."""
    cause = str(error) if isinstance(error, (OSError, ValueError, RuntimeError)) else f"{type(error).__name__}: {error}"
    if is_out_of_memory(error):
        return DeviceMemoryError(f"{what}: {cause}. Free the device's memory, or choose a smaller model or device cpu")
    if is_shortage(error):
        return shortage_error(what, error)
    if isinstance(error, ImportError):  # such as torchvision, which transformers imports late
        return DependencyError(f"{what}: {cause}. Install the package in the repository: {install_command('vlm')}")
    return UnsupportedModelError(
        f"{what}: {cause}. Download all its files again; if they are complete, update transformers"
    )


def _download_weights(checkpoint: Checkpoint) -> str | Path:
    with explained_imports():  # a local folder does not need the package
        from huggingface_hub import snapshot_download  # noqa: PLC0415
        from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415

    try:
        return snapshot_download(checkpoint.name, allow_patterns=list(_DATA_FILES))
    except (HfHubHTTPError, OSError) as error:
        raise ModelNotFoundError(f"cannot download the weights of {checkpoint.name}: {error}") from error


def _shows_progress_bars() -> bool:
    """Return whether the libraries may show progress bars, which are unreadable in a log file.

    A node's terminal may be launch's emulation of one, whose output is a log: ``run_node`` sets the variable.
    """
    is_terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    return is_terminal and not os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS")
