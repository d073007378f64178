"""The reference: Hugging Face's one-shot video inference, without the caches of this package."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer
from transformers.video_utils import VideoMetadata

from delayed_vlm_ros.errors import NoFramesError
from delayed_vlm_ros.inference.finish import FinishReason
from delayed_vlm_ros.inference.local.engine import DEFAULT_MAX_NEW_TOKENS
from delayed_vlm_ros.inference.local.generation import finish_reason
from delayed_vlm_ros.inference.local.models.decoding import generate_arguments
from delayed_vlm_ros.inference.local.prompt import build_prompt, chat_text
from delayed_vlm_ros.inference.local.repetition import RepetitionStop
from delayed_vlm_ros.inference.local.video_input import frame_times_ms, lay_out
from delayed_vlm_ros.inference.request import AskRequest, check_request
from delayed_vlm_ros.memory import Snapshot


def native_inputs(
    processor: Any, snapshot: Snapshot, question: str, *, stock_times: bool = False
) -> dict[str, torch.Tensor]:
    """Return the model inputs that the stock processor makes of the kept frames, as one video, and a question.

    Args:
        processor: Processor of transformers.
        snapshot: Kept pairs; at least one.
        question: Question text.
        stock_times: Whether to assume 2 frames per second, as for a list of frames, instead of the true times.

    Returns:
        Model inputs on the CPU, without ``position_ids``.
    """
    frames = np.stack([frame for kept in snapshot for frame in kept.frames])
    fps, indices = (2.0, list(range(len(frames)))) if stock_times else (1000.0, frame_times_ms(snapshot))
    metadata = VideoMetadata(total_num_frames=len(frames), fps=fps, frames_indices=indices)
    inputs = processor(
        text=[chat_text(processor, question)],
        videos=[torch.from_numpy(frames).permute(0, 3, 1, 2)],
        video_metadata=[metadata],
        do_sample_frames=False,
        do_resize=False,
        cap_pixels_per_frame=False,
        return_tensors="pt",
    )
    return dict(inputs)


@torch.inference_mode()
def native_generate(
    model: Any,
    processor: Any,
    snapshot: Snapshot,
    question: str,
    *,
    max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS,
    stock_positions: bool = False,
    **options: Any,
) -> Any:
    """Run the unmodified ``generate`` of transformers on the kept frames as one video, greedily as the engine does.

    Args:
        model: Model of transformers.
        processor: Processor of the model.
        snapshot: Kept pairs; at least one.
        question: Question text.
        max_new_tokens: Maximum length of the answer, in tokens.
        stock_positions: True leaves times and position ids to Hugging Face's defaults, which assume 2 frames per
            second. False passes the true times and the position ids that the engine uses.
        **options: Further arguments of ``generate``.

    Returns:
        Return value of ``generate``.
    """
    inputs = _placed_inputs(model, processor, snapshot, question, stock_positions=stock_positions)
    return _generate(model, inputs, max_new_tokens, **options)


def _placed_inputs(
    model: Any, processor: Any, snapshot: Snapshot, question: str, *, stock_positions: bool
) -> dict[str, Any]:
    """Return the arguments of ``generate`` for the frames and the question, on the model's device."""
    inputs = native_inputs(processor, snapshot, question, stock_times=stock_positions)
    if not stock_positions:
        layout = lay_out(model.config, processor, snapshot)
        inputs["position_ids"] = layout.positions(build_prompt(processor, question))
    return {name: value.to(model.device) if torch.is_tensor(value) else value for name, value in inputs.items()}


def _generate(model: Any, inputs: dict[str, Any], max_new_tokens: int, **options: Any) -> Any:
    settings = generate_arguments(model.generation_config.to_dict(), max_new_tokens, sampling=False)
    return model.generate(**inputs, **settings, **options)


@dataclass(frozen=True)
class NativeAnswer:
    """Answer of native inference, with its cost.

    Attributes:
        text: Answer text.
        first_token_sec: Time from images to the first token, in seconds.
        seconds: Time from images to text, in seconds.
        visual_tokens: Merged visual tokens in the prompt.
        kv_cache_length: Tokens of prompt and answer.
        answer_tokens: Tokens of the answer, the end token included.
        finish_reason: Why the answer ended.
    """

    text: str
    first_token_sec: float
    seconds: float
    visual_tokens: int
    kv_cache_length: int
    answer_tokens: int
    finish_reason: FinishReason


class _FirstTokenTimer(BaseStreamer):
    """Streamer that stores the time of the first generated token."""

    def __init__(self) -> None:
        self._calls = 0
        self.time = math.nan

    def put(self, value: torch.Tensor) -> None:  # noqa: ARG002  part of the interface
        self._calls += 1
        if self._calls == 2:  # noqa: PLR2004  the first call passes the prompt
            self.time = time.monotonic()

    def end(self) -> None:
        pass


def native_answer(
    model: Any, processor: Any, snapshot: Snapshot, request: AskRequest, *, stock_positions: bool = False
) -> NativeAnswer:
    """Return the answer of native inference on all frames of a snapshot. Time limits of the request are ignored.

    Args:
        model: Model of transformers.
        processor: Processor of the model.
        snapshot: Frames to use.
        request: Question and maximum length of the answer.
        stock_positions: See ``native_generate``.

    Raises:
        NoFramesError: The snapshot is empty.
        BadRequestError: The request is invalid.
    """
    check_request(request)
    if not snapshot:
        raise NoFramesError("no frames: native inference needs at least one")
    started = time.monotonic()
    inputs = _placed_inputs(model, processor, snapshot, request.question, stock_positions=stock_positions)
    prompt_length = int(inputs["input_ids"].shape[1])
    timer = _FirstTokenTimer()
    repetition = RepetitionStop(prompt_length)
    with torch.inference_mode():
        output = _generate(
            model,
            inputs,
            request.max_new_tokens or DEFAULT_MAX_NEW_TOKENS,
            streamer=timer,
            stopping_criteria=StoppingCriteriaList([repetition]),
        )
    tokens = output[0, prompt_length:].tolist()
    text = processor.tokenizer.decode(tokens, skip_special_tokens=True).strip()
    ended = time.monotonic()
    return NativeAnswer(
        text=text,
        first_token_sec=timer.time - started,
        seconds=ended - started,
        visual_tokens=lay_out(model.config, processor, snapshot).visual_tokens,
        kv_cache_length=int(output.shape[1]),
        answer_tokens=len(tokens),
        finish_reason=finish_reason(model, tokens, repetition),
    )


def native_prompt_length(processor: Any, model: Any, snapshot: Snapshot, question: str) -> int:
    """Return the number of prompt tokens that ``native_generate`` passes to the model, with the true times."""
    return len(lay_out(model.config, processor, snapshot).token_ids(build_prompt(processor, question)))
