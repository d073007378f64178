"""Find a checkpoint on this machine and read what must be known of it before its weights are loaded.

Nothing here imports torch: a node's configure step must be quick, and must find out what is wrong at once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from delayed_vlm_ros.dependencies import explained_imports, is_installed, missing
from delayed_vlm_ros.errors import ConfigurationError, ModelNotFoundError, UnsupportedModelError
from delayed_vlm_ros.inference.local.budget import MemoryBudget, plan_budget, token_bytes
from delayed_vlm_ros.inference.local.models.adapters import check_model_type
from delayed_vlm_ros.inference.local.models.validation import check_description
from delayed_vlm_ros.ingest.geometry import FrameGeometry
from delayed_vlm_ros.memory.grid import Grid
from delayed_vlm_ros.resources import data_folder

ROBOT_MODEL = "Qwen/Qwen2.5-VL-3B-Instruct"
DEMO_MODEL = "demo"
DEMO_NOTICE = "demo model, synthetic scenes only"

# What the library's video processor assumes where a checkpoint says nothing.
_DEFAULT_MIN_PIXELS = 128 * 28 * 28
_DEFAULT_MAX_PIXELS = 768 * 28 * 28

_DEMO_FOLDER = data_folder("demo", "tiny_scene")

_CUDA_DEVICE_FILES = ("/dev/nvidiactl", "/dev/nvhost-gpu", "/dev/nvgpu", "/dev/dxg")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint on this machine.

    Attributes:
        name: As it was asked for, with ``auto`` resolved.
        path: Folder with its files.
        model_type: Architecture as its ``config.json`` names it.
        factor: Image sides must be multiples of it, in pixels.
        min_pixels: Smallest height × width it takes.
        max_pixels: Largest height × width it takes.
        text_config: The fields of its language model's config.
        only_size: The one size of images it was trained on; None: any.
        weights_missing: True when they are still to be downloaded (and that was allowed).
        warnings: Standing ways in which its answers are less than they should be.
    """

    name: str
    path: Path
    model_type: str
    factor: int
    min_pixels: int
    max_pixels: int
    text_config: Mapping[str, Any] = field(default_factory=dict, repr=False)
    only_size: Grid | None = None
    weights_missing: bool = False
    warnings: tuple[str, ...] = ()

    def geometry(self, max_pixels: int) -> FrameGeometry:
        """Image sizes for a memory whose frames may have at most ``max_pixels`` pixels (height × width).

        Raises:
            ConfigurationError: The checkpoint needs larger images than that.
        """
        return frame_geometry(self.name, self.factor, self.min_pixels, min(max_pixels, self.max_pixels), self.only_size)

    def plan_budget(
        self, memory_budget_mb: float, frames: int, max_pixels: int, element_bytes: int, *, shares: int = 1
    ) -> MemoryBudget:
        """Divide a budget for a memory of this model.

        Args:
            memory_budget_mb: All that may be kept, in MB of 10**6 bytes.
            frames: Most frames in memory.
            max_pixels: Largest height × width that the memory takes.
            element_bytes: Of one number in the model's dtype.
            shares: Memories that share it, in equal parts.

        Returns:
            The part of one memory.

        Raises:
            ConfigurationError: There would be no room for the encoding of a single pair beside the images.
            UnsupportedModelError: The config does not say how large the model is.
        """
        token = token_bytes(self.text_config, element_bytes)
        return plan_budget(memory_budget_mb, frames, self.geometry(max_pixels), token, shares=shares)


def frame_geometry(
    name: str, factor: int, min_pixels: int, max_pixels: int, only_size: Grid | None = None
) -> FrameGeometry:
    """Image sizes for a memory.

    Args:
        name: The model, for the error.
        factor: Image sides must be multiples of it, in pixels.
        min_pixels: Smallest height × width that the model takes.
        max_pixels: Largest height × width that model and memory take.
        only_size: The one size of images the model was trained on; None: any.

    Raises:
        ConfigurationError: The model needs larger images than the memory takes.
    """
    smallest = max(min_pixels, factor**2) if only_size is None else only_size.height * only_size.width
    if max_pixels < smallest:
        raise ConfigurationError(
            f"max_pixels is {max_pixels}, but {name} takes images of {smallest} pixels or more: raise it"
        )
    return FrameGeometry(factor, min_pixels, max_pixels, only_size)


def resolve_checkpoint(model: str, *, allow_download: bool = False, device: str = "auto") -> Checkpoint:
    """Find a checkpoint.

    Args:
        model: A folder, the name of a model on the hub, ``demo`` (the model that comes with this package), or
            ``auto``: the robot's default if it is on this machine and CUDA is there, else ``demo``.
        allow_download: Whether a hub model that is not on this machine may be fetched. Its small files are fetched
            here, its weights when it is loaded.
        device: Where it shall run; only ``auto`` and ``cuda…`` let ``auto`` choose the robot's default.

    Raises:
        ModelNotFoundError: It is not on this machine.
        UnsupportedModelError: It is not of a supported architecture, or its files do not say enough.
    """
    name = model.strip()
    if name == "auto":
        return _automatic_choice(device)
    if name == DEMO_MODEL:
        return _demo_checkpoint()
    folder = _expanded(name)
    if name and folder.is_dir():  # the empty path is the working folder
        return _read(name, folder, warnings=())
    if not name or name.startswith(("/", ".", "~")) or name.count("/") != 1:
        raise ModelNotFoundError(
            f"there is no model folder '{name}': give the folder of a checkpoint, a name on the model hub such as "
            f"{ROBOT_MODEL}, 'demo' or 'auto'"
        )
    cached = _find_in_cache(name)
    if cached is not None:
        return _read(name, cached, warnings=())
    if allow_download:
        return _fetch_description(name)
    raise ModelNotFoundError(
        f"the model {name} is not on this machine, and downloading is off (allow_download): fetch it once with "
        f"'hf download {name}', or set the model to 'demo'"
    )


def _expanded(name: str) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError:  # no such user
        return Path(name)


def _automatic_choice(device: str) -> Checkpoint:
    """The robot's model where it can work, else the demo's, which then says why."""
    cached = None
    if not is_installed("torch"):  # else the missing device would be reported, which is not the cause
        reason = missing("torch")
    elif device != "auto" and not device.startswith("cuda"):
        reason = f"the device is {device}"
    elif not any(Path(file).exists() for file in _CUDA_DEVICE_FILES):
        reason = "there is no CUDA device"
    elif (cached := _find_in_cache(ROBOT_MODEL)) is None:
        reason = f"{ROBOT_MODEL} is not in this user's cache (fetch it once with 'hf download {ROBOT_MODEL}')"
    if cached is not None:
        return _read(ROBOT_MODEL, cached, warnings=())
    demo = _demo_checkpoint()
    return replace(demo, warnings=(*demo.warnings, f"the demo model was chosen automatically: {reason}"))


def _demo_checkpoint() -> Checkpoint:
    return _read(DEMO_MODEL, _DEMO_FOLDER, warnings=(DEMO_NOTICE,))


def _find_in_cache(name: str) -> Path | None:
    """Folder of a hub model in the local cache, None unless its description and weights are there."""
    with explained_imports():  # not needed for a local folder
        from huggingface_hub import snapshot_download  # noqa: PLC0415
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError  # noqa: PLC0415

    try:
        folder = Path(snapshot_download(name, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    except HFValidationError as error:
        raise ModelNotFoundError(f"'{name}' is neither a folder nor a name on the model hub: {error}") from None
    return folder if any(folder.glob("*.safetensors")) and (folder / "config.json").is_file() else None


def _fetch_description(name: str) -> Checkpoint:
    with explained_imports():
        from huggingface_hub import snapshot_download  # noqa: PLC0415
        from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415

    try:
        folder = Path(snapshot_download(name, allow_patterns=["*.json"]))
    except (HfHubHTTPError, OSError) as error:
        raise ModelNotFoundError(
            f"the model {name} could not be fetched ({error}): check the name and network"
        ) from error
    return _read(name, folder, warnings=(), weights_missing=True)


def _read(name: str, folder: Path, *, warnings: tuple[str, ...], weights_missing: bool = False) -> Checkpoint:
    config = _read_json(name, folder / "config.json")
    model_type = str(config.get("model_type", "none"))
    check_model_type(name, model_type)
    if not weights_missing and not any(folder.glob("*.safetensors")):
        raise ModelNotFoundError(f"the folder of {name} holds no *.safetensors weights: fetch or convert it again")
    try:
        processor = _video_processor_settings(name, folder)
        check_description(name, config, processor)
        size = dict(processor.get("size") or {})
        return Checkpoint(
            name=name,
            path=folder,
            model_type=model_type,
            factor=int(processor.get("patch_size", 14)) * int(processor.get("merge_size", 2)),
            min_pixels=int(processor.get("min_pixels") or size.get("shortest_edge") or _DEFAULT_MIN_PIXELS),
            max_pixels=int(processor.get("max_pixels") or size.get("longest_edge") or _DEFAULT_MAX_PIXELS),
            text_config=config.get("text_config") or config,  # older files have its fields in one level with the rest
            only_size=only_size(config.get("frame_size")),
            weights_missing=weights_missing,
            warnings=warnings,
        )
    except (TypeError, ValueError) as error:
        raise UnsupportedModelError(f"the image sizes of {name} make no sense ({error}): fetch it again") from None


def only_size(frame_size: Any) -> Grid | None:
    """What a config's optional field ``frame_size``, ``[height, width]`` in pixels, says of a checkpoint.

    Raises:
        ValueError: It is something else.
    """
    if frame_size is None:
        return None
    height, width = (int(side) for side in frame_size)
    return Grid(height, width)


def _video_processor_settings(name: str, folder: Path) -> dict[str, Any]:
    """The video processor's settings, from whichever of the files that hold them over the library's versions."""
    if (folder / "processor_config.json").is_file():
        nested = _read_json(name, folder / "processor_config.json").get("video_processor")
        if nested:
            return dict(nested)
    for file in ("video_preprocessor_config.json", "preprocessor_config.json"):
        if (folder / file).is_file():
            return _read_json(name, folder / file)
    raise UnsupportedModelError(
        f"the folder of {name} has none of processor_config.json, video_preprocessor_config.json and "
        "preprocessor_config.json, so the size of its images is unknown: fetch it again, complete"
    )


def _read_json(name: str, file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelNotFoundError(f"the folder of {name} has no {file.name}: it is not a checkpoint") from None
    except (OSError, ValueError) as error:
        raise UnsupportedModelError(f"{file.name} of {name} cannot be read ({error}): fetch it again") from None
    if not isinstance(content, dict):
        raise UnsupportedModelError(f"{file.name} of {name} is not a JSON object: fetch it again")
    return content
