"""Check at load that a checkpoint can answer a question: chat template, end tokens and generation settings.

torch and transformers are imported inside functions, as in ``loading``.
"""

from __future__ import annotations

from typing import Any

from delayed_vlm_ros.errors import DeviceMemoryError, NonFiniteError, UnsupportedModelError
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.local.prompt import build_prompt

_CHECKED_TOKENS = 2


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
    """Generate two tokens with the checkpoint's settings.

    Args:
        model: Model from transformers.
        processor: Processor of the model.
        name: Name of the model, for the error.
        sampling: Whether answers follow the sampling settings.

    Raises:
        UnsupportedModelError: transformers rejects a setting, or cannot run the model.
        DeviceMemoryError: The device has too little memory.
        NonFiniteError: The model computes NaN or infinity, also for a text without images.
    """
    import torch  # noqa: PLC0415  see the module
    from transformers import DynamicCache  # noqa: PLC0415

    from delayed_vlm_ros.inference.local.generation import generate_answer  # noqa: PLC0415  imports torch

    token_ids = list(build_prompt(processor, "what?").after)
    positions = torch.arange(len(token_ids)).expand(3, 1, -1)
    try:
        generate_answer(
            model,
            token_ids,
            positions,
            DynamicCache(),
            max_new_tokens=_CHECKED_TOKENS,
            control=AskControl(),
            decode=lambda _: "",
            sampling=sampling,
        )
    except NonFiniteError as error:
        raise NonFiniteError(f"the model {name} cannot answer: {error}") from error
    except torch.OutOfMemoryError as error:
        raise DeviceMemoryError(
            f"no device memory to answer with the model {name}: {error}. Free the device's memory, or choose a smaller "
            "model or device cpu"
        ) from error
    except Exception as error:
        raise UnsupportedModelError(
            f"the model {name} cannot generate an answer ({type(error).__name__}: {error}): correct or remove its "
            "generation_config.json, or choose another checkpoint"
        ) from error
