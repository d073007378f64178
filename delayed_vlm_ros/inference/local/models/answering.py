"""Check at load that a checkpoint can answer a question: chat template, end tokens and generation settings.

The check is a whole question about two frames. It also does everything that libraries do at their first use only, such
as imports and starting threads: a shortage at a later question must not make it fail for ever.

torch and transformers are imported inside functions, as in ``loading``.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from delayed_vlm_ros.errors import DeviceMemoryError, NonFiniteError, UnsupportedModelError
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.local.models.checkpoint import processor_geometry
from delayed_vlm_ros.inference.local.oom import is_out_of_memory, is_shortage, shortage_error
from delayed_vlm_ros.inference.local.prompt import build_prompt
from delayed_vlm_ros.ingest.ingestor import FrameIngestor
from delayed_vlm_ros.memory import SmartFrameManager, Snapshot

if TYPE_CHECKING:
    from pathlib import Path

_CHECKED_TOKENS = 2
_SAMPLE_TEXT = "What is on the left? A red box, and 2 blue ones."
_CAMERA_SIZE = (240, 320)  # height and width of the checked images, before they are resized for the model


def check_chat_template(processor: Any, name: str) -> None:
    """Check that the chat template contains one video and the question.

    Args:
        processor: Processor from transformers.
        name: Name of the model, for the error.

    Raises:
        UnsupportedModelError: There is no chat template, or it cannot be used.
    """
    if not getattr(processor, "chat_template", None):
        raise UnsupportedModelError(
            f"the model {name} has no chat template (chat_template.jinja): it is a base model, or files are missing. "
            "Use an instruction-tuned checkpoint, or download all its files again"
        )
    try:
        prompts = {build_prompt(processor, question).after for question in ("what?", "where?")}
    except UnsupportedModelError:
        raise
    except Exception as error:  # jinja and transformers raise various classes
        raise UnsupportedModelError(
            f"the chat template of {name} cannot be used ({type(error).__name__}: {error}): download its files again"
        ) from error
    if len(prompts) == 1:
        raise UnsupportedModelError(f"the chat template of {name} leaves out the question: download its files again")


def check_tokenizer(processor: Any, folder: Path, name: str) -> None:
    """Check that text has the tokens that ``tokenizer.json`` gives it.

    Without ``tokenizer_config.json``, transformers may build another tokenizer from the same vocabulary. Answers would
    be garbled.

    Args:
        processor: Processor from transformers.
        folder: Folder of the checkpoint; without ``tokenizer.json`` there is nothing to compare.
        name: Name of the model, for the error.

    Raises:
        UnsupportedModelError: The tokens differ.
    """
    from tokenizers import Tokenizer  # noqa: PLC0415  installed with transformers

    file = folder / "tokenizer.json"
    if not file.is_file():
        return
    expected = Tokenizer.from_file(str(file))
    expected.no_padding()  # both may be left from a fine-tuning; transformers ignores them
    expected.no_truncation()
    tokens = processor.tokenizer(_SAMPLE_TEXT, add_special_tokens=False).input_ids
    if tokens != expected.encode(_SAMPLE_TEXT, add_special_tokens=False).ids:
        reason = "" if (folder / "tokenizer_config.json").is_file() else ", since tokenizer_config.json is missing"
        raise UnsupportedModelError(
            f"the tokenizer of {name} splits text in another way than its tokenizer.json{reason}: answers would be "
            "garbled. Download all its files again"
        )


def set_end_tokens(model: Any, processor: Any, name: str) -> tuple[str, ...]:
    """Check the tokens that end an answer; without any, use the tokenizer's.

    Args:
        model: Model from transformers.
        processor: Processor of the model.
        name: Name of the model, for error and note.

    Returns:
        One sentence if the model had no end tokens.

    Raises:
        UnsupportedModelError: An end token is not a token of the model.
    """
    config = model.generation_config
    end = config.eos_token_id
    tokens = [] if end is None else end if isinstance(end, list) else [end]
    invalid = [token for token in tokens if isinstance(token, bool) or not isinstance(token, int)]
    vocabulary = int(model.config.get_text_config().vocab_size)
    invalid = invalid or [token for token in tokens if not 0 <= token < vocabulary]
    if invalid:
        raise UnsupportedModelError(
            f"the eos_token_id {invalid[0]!r} in the files of {name} is not a token of its vocabulary (0 to "
            f"{vocabulary - 1}): answers would not end. Correct generation_config.json, or download it again"
        )
    if tokens:
        return ()
    config.eos_token_id = processor.tokenizer.eos_token_id
    return (f"the files of {name} name no token that ends an answer: '{processor.tokenizer.eos_token}' is used",)


def check_generation(model: Any, processor: Any, name: str, *, sampling: bool) -> None:
    """Generate two tokens about two frames with the checkpoint's settings.

    Args:
        model: Model from transformers.
        processor: Processor of the model.
        name: Name of the model, for the error.
        sampling: Whether answers follow the sampling settings.

    Raises:
        UnsupportedModelError: transformers rejects a setting, or cannot run the model.
        DeviceMemoryError: The device has too little memory, or threads or file descriptors are short.
        NonFiniteError: The model computes NaN or infinity, also for uniform images.
    """
    try:
        _answer(model, processor, sampling=sampling)
    except NonFiniteError as error:
        raise NonFiniteError(f"the model {name} cannot answer: {error}") from error
    except UnsupportedModelError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise DeviceMemoryError(
                f"no device memory to answer with the model {name}: {str(error) or type(error).__name__}. Free the "
                "device's memory, or choose a smaller model or device cpu"
            ) from error
        if is_shortage(error):
            raise shortage_error(f"the model {name} cannot answer", error) from error
        raise UnsupportedModelError(
            f"the model {name} cannot generate an answer ({type(error).__name__}: {error}): correct or remove its "
            "generation_config.json, or choose another checkpoint"
        ) from error


def _answer(model: Any, processor: Any, *, sampling: bool) -> None:
    from delayed_vlm_ros.inference.local.cache.encoding import EncodingCache  # noqa: PLC0415  these import torch
    from delayed_vlm_ros.inference.local.generation import generate_answer  # noqa: PLC0415
    from delayed_vlm_ros.inference.local.video_input import lay_out  # noqa: PLC0415

    snapshot, control = _snapshot(model, processor), AskControl()
    prompt, layout = build_prompt(processor, "what?"), lay_out(model.config, processor, snapshot)
    cache = EncodingCache(model, processor, features_on_host=False, canonical=True, budget=None)
    capacity = len(prompt.after) + _CHECKED_TOKENS
    prefix = cache.prefix(prompt, layout, snapshot, control, capacity=capacity)
    generate_answer(
        model,
        layout.token_ids(prompt),
        layout.positions(prompt),
        prefix.cache.fork(),
        max_new_tokens=_CHECKED_TOKENS,
        control=control,
        decode=lambda tokens: str(processor.tokenizer.decode(tokens, skip_special_tokens=True)),
        sampling=sampling,
    )


def _snapshot(model: Any, processor: Any) -> Snapshot:
    """Return a pair of uniform images of the size that frames will have."""
    manager = SmartFrameManager(2, 2)
    ingestor = FrameIngestor(processor_geometry(model.config, processor, sys.maxsize), manager)
    for number in range(2):
        ingestor.add(np.full((*_CAMERA_SIZE, 3), 64 + 64 * number, np.uint8), float(number))
    return manager.snapshot()
