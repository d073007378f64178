"""Train the embedded model from nothing: ``python -m lab.training.train`` (``make train``).

Clips, weights and order follow from the seed. With ``--resume`` an interrupted run of the same settings and sources
goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.utils.data import DataLoader

from delayed_vlm_ros.resources import data_folder
from lab.training.clips import Clip, read_clips, write_clips
from lab.training.language_data import ClipQuestions
from lab.training.language_stage import LanguageStage, features_of, live, stored
from lab.training.scene_model import make_model, make_processor, save
from lab.training.vision_stage import VisionStage, read_seen

EMBEDDED = data_folder("demo", "tiny_scene")
_ROUND_RATES = (1.5e-3, 1e-3, 1e-3, 1e-3)  # the second stage's: from nothing, then again from there
_JOINT_RATE = 6e-4
_JOINT_CLIPS = 16  # a batch: their images have to be encoded as well
_SAVE_EVERY = 250
_TOLD_EVERY = 50
_SMOOTHING = 0.02

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console()


@app.command()
def train(
    work: Annotated[Path, typer.Option(help="Folder for clips and checkpoints, about 13 GB.")] = Path("build/train"),
    out: Annotated[Path, typer.Option(help="Folder for the trained model.")] = EMBEDDED,
    shards: Annotated[int, typer.Option(help="Shards of 50 clips.", min=4)] = 110,
    vision_steps: Annotated[int, typer.Option(help="Steps of the first stage.", min=1)] = 1600,
    language_steps: Annotated[int, typer.Option(help="Steps of each round of the second stage.", min=1)] = 2400,
    joint_steps: Annotated[int, typer.Option(help="Steps of the last stage; 0: none.", min=0)] = 0,
    seed: Annotated[int, typer.Option(help="Of weights and order.", min=0)] = 0,
    workers: Annotated[int, typer.Option(help="Processes that render.", min=1)] = os.cpu_count() or 1,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what is in the work folder.")] = False,
) -> None:
    """Render clips, learn to see, learn to answer, learn both together, and write the checkpoint."""
    settings = {
        "shards": shards,
        "vision_steps": vision_steps,
        "language_steps": language_steps,
        "joint_steps": joint_steps,
        "seed": seed,
        "sources": _sources_digest(),
    }
    _begin(work, settings, resume=resume)
    torch.manual_seed(seed)
    processor = make_processor()
    model = make_model(processor.tokenizer, seed)
    with _progress() as progress:
        task = progress.add_task("clips", total=shards)
        for done in write_clips(work / "clips", shards, workers):
            progress.update(task, completed=done)
        _learn_to_see(model, processor, work, shards, vision_steps, seed, progress)
        _learn_to_answer(model, processor, work, shards, language_steps, seed, progress)
        _learn_both(model, processor, work, shards, joint_steps, seed, progress)
    model.eval()
    draft = work / "checkpoint"
    shutil.rmtree(draft, ignore_errors=True)
    save(model, processor, draft)
    out.mkdir(parents=True, exist_ok=True)
    for file in draft.iterdir():
        shutil.copy(file, out / file.name)
    digest = hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()
    console.print(f"{out / 'model.safetensors'}: sha256 {digest}", soft_wrap=True)


def _begin(work: Path, settings: dict[str, Any], *, resume: bool) -> None:
    """Make the work folder fit the settings: go on with what is there, or empty it."""
    note = work / "settings.json"
    kept = json.loads(note.read_text()) if note.is_file() else {}
    changed = [name for name in settings if kept and kept.get(name) != settings[name]]
    if resume and changed:
        raise typer.BadParameter(
            f"{work} was begun with other {', '.join(changed)}: remove it, leave out --resume, or name another folder"
        )
    if not resume:
        for file in work.glob("*.pt"):
            file.unlink()
        if "sources" in changed or not kept:
            shutil.rmtree(work / "clips", ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps(settings, indent=2))


def _sources_digest() -> str:
    """Of the files that say what clips look like and how is learnt from them."""
    files = sorted([*data_folder("scenes").glob("*.py"), *Path(__file__).parent.glob("*.py")])
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _learn_to_see(
    model: Any, processor: Any, work: Path, shards: int, steps: int, seed: int, progress: Progress
) -> None:
    """The first stage; its result is kept in one file."""
    kept = work / "vision.pt"
    if kept.exists():
        model.load_state_dict(torch.load(kept, weights_only=True))
        return
    held_out = max(1, shards // 50)
    seen = read_seen(work / "clips", range(shards - held_out))
    stage = VisionStage(model, processor.tokenizer, steps, seed)
    _run(((loss, 0.0) for loss in islice(stage.losses(seen), steps)), 0, steps, "seeing", progress)
    things, others = stage.accuracy(read_seen(work / "clips", range(shards - held_out, shards)))
    console.print(f"seeing: {things:.3f} of the things right in scenes not trained on, {others:.3f} of the rest")
    _keep(kept, model.state_dict())


def _learn_to_answer(
    model: Any, processor: Any, work: Path, shards: int, steps: int, seed: int, progress: Progress
) -> None:
    """The second stage, in rounds; model and optimiser are kept every now and then."""
    for number, rate in enumerate(_ROUND_RATES, start=1):
        kept = work / f"language{number}.pt"
        state = _kept_state(kept, model)
        if state is not None and state["step"] == steps:
            continue
        stage = LanguageStage(model, stored(_features(model, work, shards, progress), seed), steps, rate)
        clips = _clips(work, shards)
        first = state["step"] if state else 0
        data = ClipQuestions(clips, processor, model.config, steps, first, seed + number, grown=number > 1)
        _train_language(model, stage, data, steps, kept, state, progress)


def _features(model: Any, work: Path, shards: int, progress: Progress) -> torch.Tensor:
    """What the vision encoder says of all clips, kept in one file."""
    kept = work / "features.pt"
    if not kept.exists():
        encoded = features_of(model, work / "clips", range(shards))
        _keep(kept, torch.cat(list(progress.track(encoded, shards, description="features"))))
    features: torch.Tensor = torch.load(kept, weights_only=True)
    return features


def _learn_both(model: Any, processor: Any, work: Path, shards: int, steps: int, seed: int, progress: Progress) -> None:
    """The last stage: everything learns together, a little."""
    kept = work / "joint.pt"
    state = _kept_state(kept, model)
    if steps == 0 or (state is not None and state["step"] == steps):
        return
    stage = LanguageStage(model, live(model, work / "clips", range(shards)), steps, _JOINT_RATE, with_vision=True)
    clips = _clips(work, shards)
    first = state["step"] if state else 0
    data = ClipQuestions(clips, processor, model.config, steps, first, seed, clips_per_batch=_JOINT_CLIPS, grown=True)
    _train_language(model, stage, data, steps, kept, state, progress)


def _kept_state(kept: Path, model: Any) -> Any:
    """What was kept of a stage, its weights put into the model; None where there is nothing."""
    if not kept.exists():
        return None
    state = torch.load(kept, weights_only=True)
    model.load_state_dict(state["model"])
    return state


def _clips(work: Path, shards: int) -> list[Clip]:
    return [clip for number in range(shards) for clip in read_clips(work / "clips", number)]


def _train_language(
    model: Any, stage: LanguageStage, data: ClipQuestions, steps: int, kept: Path, state: Any, progress: Progress
) -> None:
    """Go through the steps of a stage; model and optimiser are kept every now and then."""
    if state is not None:
        stage.restore(state["stage"])
    batches = DataLoader(data, batch_size=None, num_workers=1, prefetch_factor=8)

    def keep(step: int) -> None:
        _keep(kept, {"model": model.state_dict(), "stage": stage.state(), "step": step})

    _run(stage.losses(batches), state["step"] if state else 0, steps, kept.stem, progress, keep)
    keep(steps)


def _run(
    losses: Iterable[tuple[float, float]],
    first: int,
    steps: int,
    name: str,
    progress: Progress,
    keep: Any = None,
) -> None:
    """Go through the steps of a stage, telling and keeping how far it is."""
    smooth = right = None
    started = time.monotonic()
    task = progress.add_task(name, total=steps, completed=first)
    for step, (loss, share) in enumerate(losses, start=first + 1):
        smooth = loss if smooth is None else smooth + _SMOOTHING * (loss - smooth)
        right = share if right is None else right + _SMOOTHING * (share - right)
        progress.update(task, completed=step, description=f"{name}: loss {smooth:.3f}, right {right:.3f}")
        if step % _TOLD_EVERY == 0 and not console.is_terminal:
            seconds = time.monotonic() - started
            sys.stdout.write(f"{name} {step}/{steps} loss {smooth:.4f} right {right:.4f} {seconds:.0f} s\n")
            sys.stdout.flush()
        if keep is not None and step % _SAVE_EVERY == 0:
            keep(step)


def _keep(file: Path, content: Any) -> None:
    """Write a file in one step, so that an interruption leaves the one before."""
    draft = file.with_suffix(".draft")
    torch.save(content, draft)
    draft.replace(file)


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console)


if __name__ == "__main__":
    app()
