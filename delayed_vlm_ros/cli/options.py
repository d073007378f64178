"""Options shared by several commands."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer

from delayed_vlm_ros.inference.local.models.device import DTYPES

DEFAULT_QUESTIONS = ("What do you see?", "What happened?", "What appeared last?")


def _check_dtype(dtype: str) -> str:
    """Refuse an unknown number format before torch is loaded, which takes seconds."""
    if dtype not in DTYPES:
        raise typer.BadParameter(f"must be one of {', '.join(DTYPES)}, got '{dtype}'")
    return dtype


Model = Annotated[
    str,
    typer.Option(
        help="Folder of a checkpoint, name on the Hugging Face Hub, 'demo', 'auto' (best one available), or a model on "
        "a server (openai:http://server:8000/v1#NAME)."
    ),
]
ApiKeyEnv = Annotated[
    str, typer.Option(help="Environment variable that has the key of the model server.", show_default="no key")
]
FrameMultiple = Annotated[
    int,
    typer.Option(
        help="With a model on a server: divisor of a frame's sides, in pixels; 28 for Qwen2.5-VL, 32 for Qwen3-VL and "
        "Qwen3.5.",
        min=1,
    ),
]
Device = Annotated[str, typer.Option(help="Device of the model: auto, cpu or cuda[:N].")]
Dtype = Annotated[
    str,
    typer.Option(
        callback=_check_dtype,
        help="Number format of the model: auto (bfloat16 on CUDA, float32 on the CPU), bfloat16, float16 or float32.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show the cost of each answer.")]
Namespace = Annotated[str, typer.Option(help="Namespace of the scene_memory node, such as /robot1.")]
Video = Annotated[str, typer.Option(help="Video file or camera device.")]
Questions = Annotated[list[str] | None, typer.Option("--question", "-q", help="Question; repeat for several.")]
SampleFps = Annotated[
    float | None,
    typer.Option(help="Frames to sample from the video, in fps.", min=0.01, show_default="2, more for a short video"),
]
Star = Annotated[int, typer.Option(help="Size of Star memory, in frames.", min=0)]
Stream = Annotated[int, typer.Option(help="Size of Stream memory, in frames.", min=2)]
MaxNewTokens = Annotated[int, typer.Option(help="Maximum length of an answer, in tokens.", min=1)]


def check_questions(questions: Iterable[str]) -> None:
    """Check questions before a model is loaded.

    Raises:
        BadRequestError: A question is empty or too long.
    """
    # Keep --help fast.
    from delayed_vlm_ros.inference.request import AskRequest, check_request  # noqa: PLC0415

    for question in questions:
        check_request(AskRequest(question))
