"""Find a checkpoint on this machine and read its description, before its weights are loaded.

This module imports no torch: a node's configure transition must be quick, and must report errors early.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from delayed_vlm_ros.dependencies import explained_imports, is_installed, missing
from delayed_vlm_ros.errors import ConfigurationError, ModelError, ModelNotFoundError, UnsupportedModelError
from delayed_vlm_ros.inference.local.budget import MemoryBudget, cache_bytes, plan_budget
from delayed_vlm_ros.inference.local.memory_plan import MemoryPlan, plan_memory
from delayed_vlm_ros.inference.local.models.adapters.registry import MODEL_FACTS, check_model_type
from delayed_vlm_ros.inference.local.models.files import check_files, check_kind, read_json, weight_bytes
from delayed_vlm_ros.inference.local.models.gpu_memory import has_cuda_device, usable_gpu_memory
from delayed_vlm_ros.inference.local.models.processor_files import (
    check_has_chat_template,
    check_processor_types,
    video_processor_settings,
)
from delayed_vlm_ros.inference.local.models.quantization import quantization_method
from delayed_vlm_ros.inference.local.models.validation import check_description, check_size
from delayed_vlm_ros.ingest.geometry import FrameGeometry
from delayed_vlm_ros.memory import MemoryConfig
from delayed_vlm_ros.memory.grid import Grid
from delayed_vlm_ros.resources import data_folder

ROBOT_MODEL = "Qwen/Qwen2.5-VL-3B-Instruct"
# Larger models first, and of equal size Qwen3-VL before Qwen3.5.
AUTOMATIC_MODELS = (
    "Qwen/Qwen3-VL-8B-Instruct",
    "Qwen/Qwen2.5-VL-7B-Instruct",
    "Qwen/Qwen3-VL-4B-Instruct",
    "Qwen/Qwen3.5-4B",
    ROBOT_MODEL,
    "Qwen/Qwen3-VL-2B-Instruct",
    "Qwen/Qwen3.5-2B",
    "Qwen/Qwen2-VL-2B-Instruct",
)
DEMO_MODEL = "demo"
DEMO_WARNING = "demo model, synthetic scenes only"

# Defaults of transformers' video processor.
_DEFAULT_MIN_TOKENS = 128
_DEFAULT_MAX_TOKENS = 768

_DEMO_FOLDER = data_folder("demo", "tiny_scene")
_HALF_PRECISION_BYTES = 2


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint on this machine.

    Attributes:
        name: Name as requested, with ``auto`` resolved.
        path: Folder with the files.
        model_type: Model type in ``config.json``.
        factor: Divisor of both image sides, in pixels.
        min_pixels: Smallest height × width of an image.
        max_pixels: Largest height × width of an image.
        config: Fields of ``config.json``.
        only_size: Single image size that the model was trained on; None: any size.
        weights_missing: Whether the weights are still to be downloaded, which was allowed.
        warnings: Limitations of all answers of this model, one sentence each.
        generation: Content of ``generation_config.json``; None without this file.
        quantization: Method by which the weights are quantised; empty: they are not.
        image_statistics: File with the statistics of the images that the model knows; None: it knows any.
        why_chosen: Why ``auto`` chose this model, a sentence; empty: it was named.
    """

    name: str
    path: Path
    model_type: str
    factor: int
    min_pixels: int
    max_pixels: int
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)
    only_size: Grid | None = None
    weights_missing: bool = False
    warnings: tuple[str, ...] = ()
    generation: Mapping[str, Any] | None = field(default=None, repr=False)
    quantization: str = ""
    image_statistics: Path | None = None
    why_chosen: str = ""

    def geometry(self, max_pixels: int) -> FrameGeometry:
        """Return the image sizes for a memory whose frames have at most ``max_pixels`` pixels (height × width).

        Raises:
            ConfigurationError: The model needs larger images.
        """
        return frame_geometry(self.name, self.factor, self.min_pixels, min(max_pixels, self.max_pixels), self.only_size)

    def plan_budget(
        self, memory_budget_mb: float, frames: int, max_pixels: int, element_bytes: int, *, shares: int = 1
    ) -> MemoryBudget:
        """Divide a budget among memories of this model.

        Args:
            memory_budget_mb: Bytes that all memories may keep, in MB of 10**6 bytes.
            frames: Capacity of one memory in frames.
            max_pixels: Largest height × width of a frame.
            element_bytes: Bytes of one number in the model's dtype.
            shares: Number of memories, with equal parts.

        Returns:
            The budget of one memory.

        Raises:
            ConfigurationError: The budget does not hold the images and the encoding of a single pair.
            UnsupportedModelError: The config lacks the sizes of the model.
        """
        token = cache_bytes(self.config, element_bytes)
        return plan_budget(memory_budget_mb, frames, self.geometry(max_pixels), token, shares=shares)

    def plan_memory(
        self, *, parameters: int, element_bytes: int, frames: int, max_pixels: int, cameras: int = 1
    ) -> MemoryPlan:
        """Compute the memory that this model and full memories need.

        Args:
            parameters: Number of parameters of the model.
            element_bytes: Bytes of one number in the model's dtype.
            frames: Capacity of one camera's memory in frames.
            max_pixels: Largest height × width of a frame; the checkpoint's own limit applies, too.
            cameras: Number of cameras, each with a memory of its own.

        Raises:
            UnsupportedModelError: The config lacks the sizes of the language model.
        """
        only = self.only_size
        return plan_memory(
            self.config,
            parameters=parameters,
            element_bytes=element_bytes,
            frames=frames,
            frame_pixels=min(max_pixels, self.max_pixels) if only is None else only.height * only.width,
            factor=self.factor,
            cameras=cameras,
        )


def frame_geometry(
    name: str, factor: int, min_pixels: int, max_pixels: int, only_size: Grid | None = None
) -> FrameGeometry:
    """Return the image sizes for a memory.

    Args:
        name: Name of the model, for the error.
        factor: Divisor of both image sides, in pixels.
        min_pixels: Smallest height × width that the model accepts.
        max_pixels: Largest height × width that model and memory accept.
        only_size: Single image size that the model was trained on; None: any size.

    Raises:
        ConfigurationError: The model needs larger images than the memory accepts.
    """
    smallest = max(min_pixels, factor**2) if only_size is None else only_size.height * only_size.width
    if max_pixels < smallest:
        raise ConfigurationError(
            f"max_pixels is {max_pixels}, but {name} needs images of {smallest} pixels or more: raise it"
        )
    return FrameGeometry(factor, min_pixels, max_pixels, only_size)


def processor_geometry(config: Any, processor: Any, max_pixels: int) -> FrameGeometry:
    """Return the image sizes for a memory of a loaded model.

    Args:
        config: Config of the model.
        processor: The library's processor of the model.
        max_pixels: Largest height × width of a frame; the checkpoint's own limit applies, too, to each frame also where
            the processor applies it to a whole video.

    Raises:
        ConfigurationError: The model needs larger images.
    """
    video_processor = processor.video_processor
    factor = int(video_processor.patch_size) * int(video_processor.merge_size)
    return frame_geometry(
        "this model",
        factor,
        _min_pixels(config.model_type, factor, int(video_processor.size["shortest_edge"])),
        min(max_pixels, int(video_processor.size["longest_edge"])),
        parse_frame_size(getattr(config, "frame_size", None)),
    )


def resolve_checkpoint(model: str, *, allow_download: bool = False, device: str = "auto") -> Checkpoint:
    """Find a checkpoint.

    Args:
        model: A folder, the name of a model on the hub, ``demo`` (the embedded model), or ``auto``: with CUDA the first
            of ``AUTOMATIC_MODELS`` that is in the local cache and fits the GPU with a memory of the default size, else
            ``demo``.
        allow_download: Whether a hub model that is not in the local cache may be downloaded. Its small files are
            downloaded here, its weights when the model is loaded.
        device: Device for the model. ``auto`` chooses another model than ``demo`` only on ``auto`` and ``cuda…``.

    Raises:
        ModelNotFoundError: The checkpoint is not on this machine.
        UnsupportedModelError: The model type is not supported, or the files are incomplete.
    """
    name = model.strip()
    if name == "auto":
        return _choose_model(device)
    if name == DEMO_MODEL:
        return _demo_checkpoint()
    folder = _expand_user(name)
    if name and folder.is_dir():  # the empty path is the working folder
        return _read_checkpoint(name, folder)
    if not name or name.startswith(("/", ".", "~")) or name.count("/") != 1:
        raise ModelNotFoundError(
            f"cannot find a model folder '{name}': use the folder of a checkpoint, a name on the model hub such as "
            f"{ROBOT_MODEL}, 'demo' or 'auto'"
        )
    cached = _find_in_cache(name)
    if cached is not None:
        return _read_checkpoint(name, cached)
    if allow_download:
        return _download_description(name)
    raise ModelNotFoundError(
        f"the model {name} is not on this machine, and downloads are disabled (allow_download): download it once with "
        f"'hf download {name}', or set the model to 'demo'"
    )


def _expand_user(name: str) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError:  # no such user
        return Path(name)


def _choose_model(device: str) -> Checkpoint:
    reason = _why_without_cuda(device)
    if not reason:
        folders = {name: folder for name in AUTOMATIC_MODELS if (folder := _find_in_cache(name)) is not None}
        available = usable_gpu_memory(device) if folders else None
        skipped: list[str] = []
        for name in _in_order_of_choice(folders, available):
            found = _candidate(name, folders[name], available, skipped)
            if found is not None:
                return replace(found, why_chosen="; ".join([f"{name} was chosen automatically", *skipped]))
        reason = "; ".join(skipped) or (
            f"none of {', '.join(AUTOMATIC_MODELS)} is in this user's cache (download one once, for example with "
            f"'hf download {ROBOT_MODEL}')"
        )
    demo = _demo_checkpoint()
    return replace(demo, warnings=(*demo.warnings, f"the demo model was chosen automatically: {reason}"))


def _why_without_cuda(device: str) -> str:
    if not is_installed("torch"):  # otherwise the warning would blame the device
        return missing("torch")
    if device != "auto" and not device.startswith("cuda"):
        return f"the device is {device}"
    return "" if has_cuda_device() else "there is no CUDA device"


def _in_order_of_choice(names: Iterable[str], available: int | None) -> tuple[str, ...]:
    """Return the models as they are, large ones first; the contract's, then small ones, if the memory is unknown."""
    if available is not None:
        return tuple(names)
    small_first = [*names][::-1]
    return tuple(sorted(small_first, key=lambda name: name != ROBOT_MODEL))


def _candidate(name: str, folder: Path, available: int | None, skipped: list[str]) -> Checkpoint | None:
    """Return a model that fits the GPU; None, with the reason in ``skipped``, if it does not, or is incomplete."""
    try:
        found = _read_checkpoint(name, folder)
        needed = _needed_bytes(found)
    except ModelError as error:  # one that was downloaded in part, too
        skipped.append(f"{name} cannot be used ({error})")
        return None
    if available is not None and needed > available:
        skipped.append(f"{name} needs {needed / 1e9:.1f} GB of the GPU's {available / 1e9:.1f} GB")
        return None
    return found


def _needed_bytes(checkpoint: Checkpoint) -> int:
    """Return the memory of a model with one camera and a memory of the default size."""
    return checkpoint.plan_memory(
        parameters=weight_bytes(checkpoint.name, checkpoint.path) // _HALF_PRECISION_BYTES,
        element_bytes=_HALF_PRECISION_BYTES,
        frames=MemoryConfig.star_memory_size + MemoryConfig.stream_window_size,
        max_pixels=MemoryConfig.max_pixels,
    ).peak


def _demo_checkpoint() -> Checkpoint:
    checkpoint = _read_checkpoint(DEMO_MODEL, _DEMO_FOLDER, warnings=(DEMO_WARNING,))
    return replace(checkpoint, image_statistics=_DEMO_FOLDER / "image_statistics.npz")


def _find_in_cache(name: str) -> Path | None:
    """Return the folder of a hub model in the local cache; None without its description and weights."""
    with explained_imports():  # a local folder does not need the package
        from huggingface_hub import snapshot_download  # noqa: PLC0415
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError  # noqa: PLC0415

    try:
        folder = Path(snapshot_download(name, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    except HFValidationError as error:
        raise ModelNotFoundError(f"'{name}' is neither a folder nor a valid name on the model hub: {error}") from None
    return folder if any(folder.glob("*.safetensors")) and (folder / "config.json").is_file() else None


def _download_description(name: str) -> Checkpoint:
    with explained_imports():  # a local folder does not need the package
        from huggingface_hub import snapshot_download  # noqa: PLC0415
        from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415

    try:
        folder = Path(snapshot_download(name, allow_patterns=["*.json", "*.jinja"]))
    except (HfHubHTTPError, OSError) as error:
        raise ModelNotFoundError(f"cannot download the model {name} ({error}): check name and network") from error
    return _read_checkpoint(name, folder, weights_missing=True)


def _read_checkpoint(
    name: str, folder: Path, *, warnings: tuple[str, ...] = (), weights_missing: bool = False
) -> Checkpoint:
    if folder != _DEMO_FOLDER:  # which an installation may link file by file
        check_files(name, folder)
    check_kind(name, folder)
    config = read_json(name, folder / "config.json")
    model_type = str(config.get("model_type", "none"))
    check_model_type(name, model_type)
    facts = MODEL_FACTS[model_type]
    check_processor_types(name, folder, model_type, facts)
    check_has_chat_template(name, folder)
    quantization = quantization_method(name, config)
    if not weights_missing:
        check_size(name, config, weight_bytes(name, folder))
    generation_file = folder / "generation_config.json"
    generation = read_json(name, generation_file) if generation_file.is_file() else None
    try:
        processor = video_processor_settings(name, folder)
        check_description(name, config, processor, facts.patch_size)
        size = dict(processor.get("size") or {})
        patch_size = int(processor.get("patch_size") or facts.patch_size)
        factor = patch_size * int(processor.get("merge_size", 2))
        smallest = int(processor.get("min_pixels") or size.get("shortest_edge") or _DEFAULT_MIN_TOKENS * factor**2)
        min_pixels = _min_pixels(model_type, factor, smallest)
        max_pixels = int(processor.get("max_pixels") or size.get("longest_edge") or _DEFAULT_MAX_TOKENS * factor**2)
        only_size = parse_frame_size(config.get("frame_size"))
        check_image_sizes(factor, min_pixels, max_pixels, only_size)
        return Checkpoint(
            name=name,
            path=folder,
            model_type=model_type,
            factor=factor,
            min_pixels=min_pixels,
            max_pixels=max_pixels,
            config=config,
            only_size=only_size,
            weights_missing=weights_missing,
            warnings=warnings,
            generation=generation,
            quantization=quantization,
        )
    except (OverflowError, TypeError, ValueError) as error:
        raise UnsupportedModelError(f"the image sizes of {name} are invalid ({error}): download it again") from None


def _min_pixels(model_type: str, factor: int, limit: int) -> int:
    """Return the smallest height × width of a frame: one visual token if the processor's limit is for whole videos."""
    return factor**2 if MODEL_FACTS[model_type].limits_whole_video else limit


def parse_frame_size(frame_size: Any) -> Grid | None:
    """Return the size in a config's optional field ``frame_size``, ``[height, width]`` in pixels.

    Raises:
        ValueError: The field has another form.
    """
    if frame_size is None:
        return None
    is_pair = isinstance(frame_size, (list, tuple)) and len(frame_size) == 2  # noqa: PLR2004  height and width
    if not is_pair or not all(type(side) is int and side > 0 for side in frame_size):
        raise ValueError(f"frame_size must be two positive integers, got {frame_size!r:.100}")
    return Grid(*frame_size)


def check_image_sizes(factor: int, min_pixels: int, max_pixels: int, only_size: Grid | None) -> None:
    """Check that a memory can keep images of these sizes.

    Args:
        factor: Divisor of both image sides, in pixels.
        min_pixels: Smallest height × width of an image.
        max_pixels: Largest height × width of an image.
        only_size: Single image size; None: any size.

    Raises:
        ValueError: No image has such a size.
    """
    if not 0 < min_pixels <= max_pixels or max_pixels < factor**2:
        raise ValueError(f"images of {min_pixels} to {max_pixels} pixels, with sides that are multiples of {factor}")
    if only_size is None:
        return
    if only_size.height % factor or only_size.width % factor:
        raise ValueError(f"frame_size {only_size.height} × {only_size.width} is not a multiple of {factor}")
    if only_size.height * only_size.width > max_pixels:
        raise ValueError(f"frame_size {only_size.height} × {only_size.width} has more than {max_pixels} pixels")
