"""The reference: the library's own one-shot video inference, with none of this package's caches."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers.generation.streamers import BaseStreamer
from transformers.video_utils import VideoMetadata

from delayed_vlm_ros.errors import NoFramesError
from delayed_vlm_ros.inference.local.engine import DEFAULT_MAX_NEW_TOKENS
from delayed_vlm_ros.inference.local.prompt import build_prompt
from delayed_vlm_ros.inference.local.video_input import lay_out
from delayed_vlm_ros.inference.request import AskRequest, check_request
from delayed_vlm_ros.memory import Snapshot


def native_inputs(processor: Any, snapshot: Snapshot, question: str) -> dict[str, torch.Tensor]:
    """What the library's own processor makes of the kept frames as one video, and a question.

    Args:
        processor: The library's processor.
        snapshot: At least one kept pair.
        question: Plain text.

    Returns:
        The model's inputs on the CPU, without ``position_ids``.
    """
    content = [{"type": "video"}, {"type": "text", "text": question}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    frames = np.stack([frame for kept in snapshot for frame in kept.frames])
    metadata = VideoMetadata(total_num_frames=len(frames), fps=2.0, frames_indices=list(range(len(frames))))
    inputs = processor(
        text=[text],
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
    """The library's unmodified ``generate`` on the kept frames as one video.

    Args:
        model: The library's model.
        processor: Its processor.
        snapshot: At least one kept pair.
        question: Plain text.
        max_new_tokens: Length limit of the answer.
        stock_positions: True leaves the rotary positions to the library, which takes the frames for 2 a second; False
            gives it those of true time that the engine uses.
        **options: Further arguments of ``generate``.

    Returns:
        What ``generate`` returns.
    """
    inputs = native_inputs(processor, snapshot, question)
    if not stock_positions:
        inputs["position_ids"] = lay_out(model.config, snapshot).positions(build_prompt(processor, question))
    placed = {name: value.to(model.device) if torch.is_tensor(value) else value for name, value in inputs.items()}
    return model.generate(**placed, max_new_tokens=max_new_tokens, **options)


@dataclass(frozen=True)
class NativeAnswer:
    """What native inference said, and what it cost.

    Attributes:
        text: The answer.
        first_token_sec: From images to the answer's first token.
        seconds: From images to text.
        visual_tokens: Merged visual tokens in the prompt.
        kv_cache_length: Tokens of prompt and answer.
    """

    text: str
    first_token_sec: float
    seconds: float
    visual_tokens: int
    kv_cache_length: int


class _FirstToken(BaseStreamer):  # type: ignore[misc]
    """Hears of the prompt, then of each token; remembers when the first one came."""

    def __init__(self) -> None:
        self._heard = 0
        self.time = math.nan

    def put(self, value: torch.Tensor) -> None:  # noqa: ARG002  what it is does not matter here
        self._heard += 1
        if self._heard == 2:  # noqa: PLR2004  the first is the prompt
            self.time = time.monotonic()

    def end(self) -> None:
        pass


def native_answer(
    model: Any, processor: Any, snapshot: Snapshot, request: AskRequest, *, stock_positions: bool = False
) -> NativeAnswer:
    """Native inference's answer.

    The snapshot says which frames are used: the request's limits in time do not count here.

    Raises:
        NoFramesError: The snapshot is empty.
        BadRequestError: The question makes no sense.
    """
    check_request(request)
    if not snapshot:
        raise NoFramesError("no frames: there is nothing to compare on")
    prompt_length = native_prompt_length(processor, model, snapshot, request.question)
    started = time.monotonic()
    first_token = _FirstToken()
    output = native_generate(
        model,
        processor,
        snapshot,
        request.question,
        max_new_tokens=request.max_new_tokens or DEFAULT_MAX_NEW_TOKENS,
        stock_positions=stock_positions,
        streamer=first_token,
    )
    text = processor.tokenizer.decode(output[0, prompt_length:], skip_special_tokens=True).strip()
    ended = time.monotonic()
    return NativeAnswer(
        text=text,
        first_token_sec=first_token.time - started,
        seconds=ended - started,
        visual_tokens=lay_out(model.config, snapshot).visual_tokens,
        kv_cache_length=int(output.shape[1]),
    )


def native_prompt_length(processor: Any, model: Any, snapshot: Snapshot, question: str) -> int:
    """Tokens of the prompt that ``native_generate`` gives to the model."""
    return len(build_prompt(processor, question).token_ids(lay_out(model.config, snapshot).visual_tokens))


__all__: Sequence[str] = ("NativeAnswer", "native_answer", "native_generate", "native_inputs", "native_prompt_length")
