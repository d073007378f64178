"""The files that describe a processor: image sizes, types of its parts, and chat template. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from delayed_vlm_ros.errors import UnsupportedModelError
from delayed_vlm_ros.inference.local.models.adapters.registry import ModelFacts
from delayed_vlm_ros.inference.local.models.files import read_json

IMAGE_SETTINGS = "preprocessor_config.json"
RENAMED_IMAGE_PROCESSORS = {
    "Qwen2_5_VLImageProcessor": "Qwen2VLImageProcessor",
    "Qwen2_5_VLImageProcessorFast": "Qwen2VLImageProcessorFast",
}
"""Image processors of the first files of Qwen2.5-VL, and the name that transformers knows them by."""

_VIDEO_SETTINGS = "video_preprocessor_config.json"
_PROCESSOR = "processor_config.json"
_TOKENIZER = "tokenizer_config.json"
_IMAGE_PROCESSORS = (*RENAMED_IMAGE_PROCESSORS.values(), "Qwen2VLImageProcessorPil", *RENAMED_IMAGE_PROCESSORS)


def video_processor_settings(name: str, folder: Path) -> dict[str, Any]:
    """Return the settings from the first file that has them; transformers' versions use different files.

    Args:
        name: Name of the model, for the error.
        folder: Folder of the checkpoint.

    Raises:
        UnsupportedModelError: No file has them, or a file cannot be read.
    """
    nested = _read(name, folder / _PROCESSOR).get("video_processor")
    if nested:
        return dict(nested)
    for file in (_VIDEO_SETTINGS, IMAGE_SETTINGS):
        if (folder / file).is_file():
            return read_json(name, folder / file)
    raise UnsupportedModelError(
        f"the folder of {name} has none of {_PROCESSOR}, {_VIDEO_SETTINGS} and {IMAGE_SETTINGS}, so its image sizes "
        "are unknown: download all its files again"
    )


def check_processor_types(name: str, folder: Path, model_type: str, facts: ModelFacts) -> None:
    """Check that the processor's classes, where the files name them, are those of the model type.

    Args:
        name: Name of the model, for the error.
        folder: Folder of the checkpoint.
        model_type: Model type in ``config.json``.
        facts: Facts of this type.

    Raises:
        UnsupportedModelError: A class belongs to another model, or a file cannot be read.
    """
    expected = {
        "processor_class": facts.processors,
        "image_processor_type": _IMAGE_PROCESSORS,
        "video_processor_type": (facts.video_processor,),
    }
    for file, field, found in _processor_types(name, folder):
        if found not in expected[field]:
            raise UnsupportedModelError(
                f"cannot use the model {name}: {file} has the {field} {found!r:.100}, but a {model_type} model needs "
                f"{expected[field][0]}: download all files from the source of the weights"
            )


def _processor_types(name: str, folder: Path) -> Iterator[tuple[str, str, Any]]:
    """Yield file, field and value of each class that a file names."""
    for file in (_PROCESSOR, IMAGE_SETTINGS, _VIDEO_SETTINGS, _TOKENIZER):
        content = _read(name, folder / file)
        nested = (content.get(part) for part in ("image_processor", "video_processor"))
        for fields in (content, *(part for part in nested if isinstance(part, dict))):
            for field in ("processor_class", "image_processor_type", "video_processor_type"):
                if fields.get(field) is not None:
                    yield file, field, fields[field]


def check_has_chat_template(name: str, folder: Path) -> None:
    """Check that a file has a chat template.

    Args:
        name: Name of the model, for the error.
        folder: Folder of the checkpoint.

    Raises:
        UnsupportedModelError: No file has one, or a file cannot be read.
    """
    if any(folder.glob("*.jinja")) or any(folder.glob("additional_chat_templates/*.jinja")):
        return
    if not any(
        _read(name, folder / file).get("chat_template") for file in ("chat_template.json", _PROCESSOR, _TOKENIZER)
    ):
        raise UnsupportedModelError(
            f"the model {name} has no chat template (chat_template.jinja): it is a base model, or files are missing. "
            "Use an instruction-tuned checkpoint, or download all its files again"
        )


def _read(name: str, file: Path) -> dict[str, Any]:
    """Return the content of a file; nothing if it is missing."""
    return read_json(name, file) if file.is_file() else {}
