"""Files of a checkpoint: which may be read, and their content. A checkpoint may come from a stranger."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from delayed_vlm_ros.errors import ModelNotFoundError, UnsupportedModelError

INDEX = "model.safetensors.index.json"
_WEIGHTS = "*.safetensors"
# Names that transformers reads. A training leaves other files, of any size.
_DESCRIPTIONS = (
    *("config.json", "generation_config.json", INDEX),
    *("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json"),
    *("tokenizer.json", "tokenizer.*.json", "tokenizer_config.json", "vocab.json", "vocab.txt", "merges.txt"),
    *("added_tokens.json", "special_tokens_map.json", "audio_tokenizer_config.json", "adapter_config.json", "*.model"),
    *("chat_template.json", "*.jinja", "additional_chat_templates/*.jinja"),
)
_MAX_DESCRIPTION_BYTES = 64 * 10**6  # the largest tokenizer.json of a known model has 35 MB


def check_files(name: str, folder: Path) -> None:
    """Check that every file that a library would read is an ordinary one, and that descriptions are not too large.

    Descriptions must be in the folder, or in the ``blobs`` of the hub's cache, into which its snapshots and older
    downloads link. Weights may be links, for example to another disk: they are read as safetensors only.

    Args:
        name: Name of the model, for the error.
        folder: Folder of the checkpoint.

    Raises:
        UnsupportedModelError: A description leads out of the folder or is too large, or a file is no ordinary one.
    """
    for pattern in (*_DESCRIPTIONS, _WEIGHTS):
        for file in folder.glob(pattern):
            try:
                fault = _fault(file, folder.resolve(), is_weights=pattern == _WEIGHTS)
            except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
                fault = f"cannot be read ({error}): download it again"
            if fault:
                raise UnsupportedModelError(f"{file.name} of {name} {fault}")


def _fault(file: Path, folder: Path, *, is_weights: bool) -> str:
    """Return why a file may not be read; empty if it may, or is missing."""
    target = file.resolve()
    if not (is_weights or target.is_relative_to(folder) or _is_blob(target, folder)):
        return f"is a link to {target}, outside its folder: copy the file into the folder"
    if not target.exists():
        return ""
    if not target.is_file():
        return "is not an ordinary file: download it again"
    size = target.stat().st_size
    if not is_weights and size > _MAX_DESCRIPTION_BYTES:
        return f"has {size} bytes, more than {_MAX_DESCRIPTION_BYTES}: no description of a model, download it again"
    return ""


def _is_blob(target: Path, folder: Path) -> bool:
    """Return whether a file is in ``blobs`` of the hub's cache: a model's, or next to this ``snapshots``."""
    blobs = target.parent
    if blobs.name != "blobs":
        return False
    return blobs.parent.name.startswith("models--") or (
        folder.parent.name == "snapshots" and blobs.parent == folder.parents[1]
    )


def check_kind(name: str, folder: Path) -> None:
    """Check that a folder has a whole model, not one for other software or an addition to another model.

    Args:
        name: Name of the model, for the error.
        folder: Folder of the checkpoint.

    Raises:
        UnsupportedModelError: The folder has a GGUF file without other weights, or an adapter such as LoRA.
    """
    if (folder / "adapter_config.json").is_file():
        raise UnsupportedModelError(
            f"the folder of {name} has an adapter (adapter_config.json), such as LoRA: merge it into its base model, "
            "and use the merged model"
        )
    gguf = sorted(file.name for file in folder.glob("*.gguf"))
    if gguf and not any(folder.glob(_WEIGHTS)):
        raise UnsupportedModelError(
            f"the folder of {name} has only weights for llama.cpp ({gguf[0]}): download the checkpoint with "
            "*.safetensors files"
        )


def read_json(name: str, file: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Args:
        name: Name of the model, for the error.
        file: The file, checked by ``check_files``.

    Raises:
        ModelNotFoundError: The file does not exist.
        UnsupportedModelError: The file cannot be read or is not a JSON object.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelNotFoundError(f"the folder of {name} has no {file.name}: not a checkpoint") from None
    except RecursionError:
        raise UnsupportedModelError(f"{file.name} of {name} is nested too deeply: download it again") from None
    except (OSError, ValueError) as error:
        raise UnsupportedModelError(f"cannot read {file.name} of {name} ({error}): download it again") from None
    if not isinstance(content, dict):
        raise UnsupportedModelError(f"{file.name} of {name} is not a JSON object: download it again")
    return content


def weight_files(name: str, folder: Path) -> list[Path]:
    """Return the weight files of a checkpoint: those of its index, or all without an index.

    Args:
        name: Name of the model, for the error.
        folder: Folder of the checkpoint.

    Raises:
        ModelNotFoundError: There are no weights, or a file of the index is missing.
        UnsupportedModelError: The index is invalid, or has a file of another folder.
    """
    index = folder / INDEX
    if (folder / "model.safetensors").is_file() or not index.is_file():  # in transformers' order
        files = [file for file in sorted(folder.glob(_WEIGHTS)) if file.is_file()]
        if not files:
            raise ModelNotFoundError(f"the folder of {name} has no *.safetensors weights: download or convert it again")
        return files
    names = sorted(set(_shards(name, read_json(name, index).get("weight_map"))))
    missing = [shard for shard in names if not (folder / shard).is_file()]
    if missing or not names:
        raise ModelNotFoundError(
            f"the folder of {name} lacks {', '.join(missing) or 'weights'}, listed in {INDEX}: download all its files "
            "again"
        )
    return [folder / shard for shard in names]


def weight_bytes(name: str, folder: Path) -> int:
    """Return the size of the files with the weights, as ``weight_files`` finds them."""
    return sum(file.stat().st_size for file in weight_files(name, folder))


def _shards(name: str, weight_map: Any) -> Iterator[str]:
    """Yield the file of each weight."""
    if not isinstance(weight_map, dict):
        raise UnsupportedModelError(f"{INDEX} of {name} has no weight_map: download it again")
    for shard in weight_map.values():
        is_name = isinstance(shard, str) and shard == PurePosixPath(shard).name and "\0" not in shard
        if not is_name or not PurePosixPath(shard).match(_WEIGHTS):
            raise UnsupportedModelError(
                f"{INDEX} of {name} lists {shard!r:.200}, not a *.safetensors file in its folder: download it again"
            )
        yield shard
