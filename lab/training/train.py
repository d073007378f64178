"""Training of the embedded model, and of tiny models of other types, from random weights.

Clips, weights and the order of the batches follow from the seed. An interrupted run can be resumed with the same plan
and the same sources.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.utils.data import DataLoader

from delayed_vlm_ros.resources import data_folder
from lab.training.clips import Clip, read_clips, write_clips
from lab.training.language_data import ClipQuestions
from lab.training.language_stage import LanguageStage, features_of, live, stored
from lab.training.scene_model import frame_grid, make_model, make_processor, save
from lab.training.vision_stage import VisionStage, read_pairs

_ROUND_RATES = (1.5e-3, 1e-3, 1e-3, 1e-3)  # largest learning rates of the rounds of the second stage
_JOINT_RATE = 6e-4
_JOINT_CLIPS = 16  # per batch; fewer, because their images are encoded as well
_SAVE_EVERY = 250
_REPORT_EVERY = 50
_SMOOTHING = 0.02


@dataclass(frozen=True)
class TrainingPlan:
    """Size of a training.

    Attributes:
        shards: Shards of 50 clips.
        vision_steps: Steps of the first stage.
        language_steps: Steps of each round of the second stage.
        joint_steps: Steps of the last stage; 0 disables it.
        seed: Seed of weights and batches.
        family: Model type, one of ``scene_model.TRAINED_TYPES``.
        vision_pairs: Pairs of a batch of the first stage.
        language_clips: Clips of a batch of the second stage.
        max_pairs: Largest number of pairs that a question is about.
        rounds: Rounds of the second stage, at most four.
    """

    shards: int
    vision_steps: int
    language_steps: int
    joint_steps: int
    seed: int
    family: str
    vision_pairs: int
    language_clips: int
    max_pairs: int
    rounds: int


class WorkFolderError(ValueError):
    """The work folder belongs to a training with another plan or other sources."""


@dataclass(frozen=True)
class _Training:
    """A training in progress."""

    plan: TrainingPlan
    work: Path
    model: Any
    processor: Any
    progress: Progress
    console: Console

    @property
    def clips_folder(self) -> Path:
        return self.work / "clips"

    def clips(self) -> list[Clip]:
        return [clip for number in range(self.plan.shards) for clip in read_clips(self.clips_folder, number)]


def train(plan: TrainingPlan, work: Path, out: Path, workers: int, *, resume: bool) -> None:
    """Render clips, train the vision encoder, the language model and both together, and write the checkpoint.

    Args:
        plan: Size of the training.
        work: Folder for clips and intermediate states, about 13 GB.
        out: Folder for the trained model.
        workers: Number of rendering processes.
        resume: Whether to continue with the states in the work folder.

    Raises:
        WorkFolderError: The work folder cannot be resumed with this plan.
    """
    console = Console()
    _prepare(work, {**asdict(plan), "sources": _sources_digest()}, resume=resume)
    torch.manual_seed(plan.seed)
    processor = make_processor(plan.family)
    model = make_model(processor.tokenizer, plan.seed, plan.family)
    with _progress_bars(console) as progress:
        training = _Training(plan, work, model, processor, progress, console)
        task = progress.add_task("clips", total=plan.shards)
        for done in write_clips(training.clips_folder, plan.shards, workers, frame_grid(plan.family)):
            progress.update(task, completed=done)
        _train_vision(training)
        _train_language(training)
        _train_jointly(training)
    model.eval()
    draft = work / "checkpoint"
    shutil.rmtree(draft, ignore_errors=True)
    save(model, processor, draft)
    out.mkdir(parents=True, exist_ok=True)
    for file in draft.iterdir():
        shutil.copy(file, out / file.name)
    digest = hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()
    console.print(f"{out / 'model.safetensors'}: sha256 {digest}", soft_wrap=True)


def _prepare(work: Path, settings: dict[str, Any], *, resume: bool) -> None:
    """Empty the work folder, or check that it can be resumed."""
    file = work / "settings.json"
    before = json.loads(file.read_text()) if file.is_file() else {}
    changed = [name for name in settings if before and before.get(name) != settings[name]]
    if resume and changed:
        raise WorkFolderError(
            f"cannot resume {work}, which has other {', '.join(changed)}: "
            "remove it, leave out --resume, or use another folder"
        )
    if not resume:
        for state in work.glob("*.pt"):
            state.unlink()
        if not before or not {"sources", "family"}.isdisjoint(changed):
            shutil.rmtree(work / "clips", ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(settings, indent=2))


def _sources_digest() -> str:
    """Return the hash of the sources that determine the clips and the training."""
    files = sorted([*data_folder("scenes").glob("*.py"), *Path(__file__).parent.glob("*.py")])
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _train_vision(training: _Training) -> None:
    """Run the first stage, or load its result."""
    plan, model = training.plan, training.model
    file = training.work / "vision.pt"
    if file.exists():
        model.load_state_dict(torch.load(file, weights_only=True))
        return
    held_out = max(1, plan.shards // 50)
    data = read_pairs(training.clips_folder, range(plan.shards - held_out))
    stage = VisionStage(model, training.processor, plan.vision_steps, plan.seed, pairs_per_batch=plan.vision_pairs)
    losses = ((loss, 0.0) for loss in islice(stage.losses(data), plan.vision_steps))
    _run_steps(training, losses, 0, plan.vision_steps, "vision")
    held_out_data = read_pairs(training.clips_folder, range(plan.shards - held_out, plan.shards))
    objects, others = stage.accuracy(held_out_data)
    training.console.print(
        f"vision, on scenes not trained on: {objects:.3f} of objects correct, {others:.3f} of others"
    )
    _save_state(file, model.state_dict())


def _train_language(training: _Training) -> None:
    """Run the rounds of the second stage that are not complete."""
    plan = training.plan
    for number, rate in enumerate(_ROUND_RATES[: plan.rounds], start=1):
        file = training.work / f"language{number}.pt"
        state = _load_state(file, training.model)
        if state is not None and state["step"] == plan.language_steps:
            continue
        stage = LanguageStage(training.model, stored(_features(training), plan.seed), plan.language_steps, rate)
        data = ClipQuestions(
            training.clips(),
            training.processor,
            training.model.config,
            plan.language_steps,
            state["step"] if state else 0,
            plan.seed + number,
            clips_per_batch=plan.language_clips,
            max_pairs=plan.max_pairs,
            grown=number > 1,
        )
        _run_language_stage(training, stage, data, plan.language_steps, file, state)


def _features(training: _Training) -> torch.Tensor:
    """Return the features of all clips, computed once and kept in a file."""
    file = training.work / "features.pt"
    shards = training.plan.shards
    if not file.exists():
        encoded = features_of(training.model, training.processor, training.clips_folder, range(shards))
        _save_state(file, torch.cat(list(training.progress.track(encoded, shards, description="features"))))
    features: torch.Tensor = torch.load(file, weights_only=True)
    return features


def _train_jointly(training: _Training) -> None:
    """Run the last stage, in which vision encoder and language model are trained together."""
    plan, model = training.plan, training.model
    file = training.work / "joint.pt"
    state = _load_state(file, model)
    if plan.joint_steps == 0 or (state is not None and state["step"] == plan.joint_steps):
        return
    source = live(model, training.processor, training.clips_folder, range(plan.shards))
    stage = LanguageStage(model, source, plan.joint_steps, _JOINT_RATE, with_vision=True)
    data = ClipQuestions(
        training.clips(),
        training.processor,
        model.config,
        plan.joint_steps,
        state["step"] if state else 0,
        plan.seed,
        clips_per_batch=_JOINT_CLIPS,
        max_pairs=plan.max_pairs,
        grown=True,
    )
    _run_language_stage(training, stage, data, plan.joint_steps, file, state)


def _load_state(file: Path, model: Any) -> Any:
    """Load the state of a stage, and its weights into the model; return None if the stage has not begun."""
    if not file.exists():
        return None
    state = torch.load(file, weights_only=True)
    model.load_state_dict(state["model"])
    return state


def _run_language_stage(
    training: _Training, stage: LanguageStage, data: ClipQuestions, steps: int, file: Path, state: Any
) -> None:
    """Run the steps of a stage; save model and optimizer from time to time."""
    if state is not None:
        stage.restore(state["stage"])
    batches = DataLoader(data, batch_size=None, num_workers=1, prefetch_factor=8)

    def save_step(step: int) -> None:
        _save_state(file, {"model": training.model.state_dict(), "stage": stage.state(), "step": step})

    _run_steps(training, stage.losses(batches), state["step"] if state else 0, steps, file.stem, save_step)
    save_step(steps)


def _run_steps(
    training: _Training,
    losses: Iterable[tuple[float, float]],
    first: int,
    steps: int,
    name: str,
    save_step: Callable[[int], None] | None = None,
) -> None:
    """Run the steps of a stage, report them and save them from time to time."""
    smooth = correct = None
    started = time.monotonic()
    task = training.progress.add_task(name, total=steps, completed=first)
    for step, (loss, share) in enumerate(losses, start=first + 1):
        smooth = loss if smooth is None else smooth + _SMOOTHING * (loss - smooth)
        correct = share if correct is None else correct + _SMOOTHING * (share - correct)
        text = f"{name}: loss {smooth:.3f}, correct {correct:.3f}"
        training.progress.update(task, completed=step, description=text)
        if step % _REPORT_EVERY == 0 and not training.console.is_terminal:
            seconds = time.monotonic() - started
            sys.stdout.write(f"{name} {step}/{steps} loss {smooth:.4f} correct {correct:.4f} {seconds:.0f} s\n")
            sys.stdout.flush()
        if save_step is not None and step % _SAVE_EVERY == 0:
            save_step(step)


def _save_state(file: Path, content: Any) -> None:
    """Write a file and then rename it, so that an interruption leaves the previous one."""
    draft = file.with_suffix(".draft")
    torch.save(content, draft)
    draft.replace(file)


def _progress_bars(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console)
