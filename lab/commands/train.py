"""``train``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from delayed_vlm_ros.resources import data_folder


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
    workers: Annotated[int, typer.Option(help="Rendering processes.", min=1)] = os.cpu_count() or 1,
    resume: Annotated[bool, typer.Option("--resume", help="Continue with the states in the work folder.")] = False,
) -> None:
    """Train the embedded model from random weights; takes hours."""
    from lab.training.train import TrainingPlan, WorkFolderError  # noqa: PLC0415  imports torch
    from lab.training.train import train as run  # noqa: PLC0415  imports torch

    plan = TrainingPlan(shards, vision_steps, language_steps, joint_steps, seed)
    try:
        run(plan, work, out or data_folder("demo", "tiny_scene"), workers, resume=resume)
    except WorkFolderError as error:
        raise typer.BadParameter(str(error)) from error
