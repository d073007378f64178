"""``delayed-vlm record-scene``: record a synthetic scene as a bag."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from delayed_vlm_ros.cli import terminal


def record_scene(
    seed: Annotated[int, typer.Option(help="Number of the room; held-out rooms start at 3000000.", min=0)],
    out: Annotated[Path, typer.Option(help="Folder of the new bag; it must not exist.")],
    seconds: Annotated[float, typer.Option(help="Duration of the recording, in seconds.", min=1.0)] = 60.0,
    rate: Annotated[float, typer.Option(help="Images per second.", min=0.1, max=240.0)] = 10.0,
    width: Annotated[int, typer.Option(help="Image width, in pixels.", min=16)] = 320,
    height: Annotated[int, typer.Option(help="Image height, in pixels.", min=16)] = 240,
    storage: Annotated[str, typer.Option(help="Storage plugin of the bag: mcap or sqlite3.")] = "mcap",
    compressed: Annotated[bool, typer.Option("--compressed", help="Record JPEG images instead of raw ones.")] = False,
    questions: Annotated[int, typer.Option(help="Number of questions with expected answers.", min=1)] = 40,
) -> None:
    """Record a synthetic scene as a bag, with questions and expected answers in its questions.yaml."""
    # The packages that write bags are an optional extra.
    from delayed_vlm_ros.demo.record_scene import STORAGES, SceneRecording  # noqa: PLC0415
    from delayed_vlm_ros.demo.record_scene import record_scene as record  # noqa: PLC0415
    from delayed_vlm_ros.replay.progress import ReplayProgress  # noqa: PLC0415

    if storage not in STORAGES:
        raise typer.BadParameter(f"must be {' or '.join(STORAGES)}, got '{storage}'", param_hint="--storage")
    settings = SceneRecording(seed, seconds, rate, height, width, storage, compressed, questions)
    console = terminal.console()
    with ReplayProgress(console) as progress:
        task = progress.add(out.name, max(1, round(seconds * rate)))
        count = record(out, settings, lambda written: progress.update(task, written))
    console.print(f"{out}: {count} images, questions in questions.yaml", highlight=False, soft_wrap=True)
    console.print(f"Next: delayed-vlm replay {out}", highlight=False, soft_wrap=True)
