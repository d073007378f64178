"""Load the processor of a checkpoint: tokenizer, chat template and video processor.

transformers is imported inside the function, as in ``loading``.
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from delayed_vlm_ros.inference.local.models.processor_files import IMAGE_SETTINGS, RENAMED_IMAGE_PROCESSORS


def load_processor(folder: Path) -> Any:
    """Return the processor of a checkpoint, as its own version of transformers would load it.

    Newer versions read no chat template from ``tokenizer_config.json``, and refuse a checkpoint because of the name of
    its image processor, which only answers about images would need.

    Args:
        folder: Folder of the checkpoint.

    Raises:
        Exception: transformers cannot load the files; it raises various classes.
    """
    file = folder / IMAGE_SETTINGS
    settings = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    renamed = RENAMED_IMAGE_PROCESSORS.get(str(settings.get("image_processor_type")))
    if renamed is None:
        return _load(folder)
    with TemporaryDirectory() as copy:
        for other in folder.iterdir():
            if other.name != IMAGE_SETTINGS:
                Path(copy, other.name).symlink_to(other.resolve())
        Path(copy, IMAGE_SETTINGS).write_text(json.dumps(settings | {"image_processor_type": renamed}), "utf-8")
        return _load(Path(copy))


def _load(folder: Path) -> Any:
    from transformers import AutoProcessor  # noqa: PLC0415  see the module

    # The code in a checkpoint never runs; without the explicit False, transformers would prompt for it.
    processor: Any = AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if not getattr(processor, "chat_template", None):
        processor.chat_template = getattr(getattr(processor, "tokenizer", None), "chat_template", None)
    return processor
