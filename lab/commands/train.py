"""``train``."""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from delayed_vlm_ros.resources import data_folder


class Family(str, Enum):
    """Model types that can be trained; ``scene_model`` describes them.

    Not Qwen3.5: transformers replaces its tokenizer by one of bytes, which the vocabulary of words does not fit.
    """

    QWEN2_5_VL = "qwen2_5_vl"
    QWEN3_VL = "qwen3_vl"


def train(
    work: Annotated[Path, typer.Option(help="Folder for clips and states, about 13 GB.")] = Path("build/train"),
    out: Annotated[
        Path | None, typer.Option(help="Folder for the trained model.  [default: the embedded model]")
    ] = None,
    shards: Annotated[int, typer.Option(help="Shards of 50 clips.", min=4)] = 110,
    vision_steps: Annotated[int, typer.Option(help="Steps of the first stage.", min=1)] = 1600,
    language_steps: Annotated[int, typer.Option(help="Steps of each round of the second stage.", min=1)] = 2400,
    joint_steps: Annotated[int, typer.Option(help="Steps of the last stage; 0 disables it.", min=0)] = 0,
    seed: Annotated[int, typer.Option(help="Seed of weights and batches.", min=0)] = 0,
    family: Annotated[Family, typer.Option(help="Model type.")] = Family.QWEN2_5_VL,
    vision_pairs: Annotated[int, typer.Option(help="Pairs of a batch of the first stage.", min=1)] = 96,
    language_clips: Annotated[int, typer.Option(help="Clips of a batch of the second stage.", min=1)] = 32,
    max_pairs: Annotated[int, typer.Option(help="Largest number of pairs of a question.", min=6, max=24)] = 24,
    rounds: Annotated[int, typer.Option(help="Rounds of the second stage.", min=1, max=4)] = 4,
    workers: Annotated[int, typer.Option(help="Rendering processes.", min=1)] = os.cpu_count() or 1,
    resume: Annotated[bool, typer.Option("--resume", help="Continue with the states in the work folder.")] = False,
) -> None:
    """Train the embedded model, or a tiny model of another type, from random weights; takes hours."""
    from lab.training.train import TrainingPlan, WorkFolderError  # noqa: PLC0415  imports torch
    from lab.training.train import train as run  # noqa: PLC0415  imports torch

    if out is None and family is not Family.QWEN2_5_VL:
        raise typer.BadParameter(f"the embedded model is no {family.value}: name another folder with --out")
    plan = TrainingPlan(
        shards,
        vision_steps,
        language_steps,
        joint_steps,
        seed,
        family.value,
        vision_pairs,
        language_clips,
        max_pairs,
        rounds,
    )
    try:
        run(plan, work, out or data_folder("demo", "tiny_scene"), workers, resume=resume)
    except WorkFolderError as error:
        raise typer.BadParameter(str(error)) from error
