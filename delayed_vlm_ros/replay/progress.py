"""Progress bars of evaluations, with the remaining time."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import timedelta
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


@dataclass
class Pace:
    """Estimates the remaining time of a replay.

    Images and questions take very different times, and most questions come late. Each has its own average; there is no
    estimate before both are known.

    Attributes:
        images: Total number of images; None if unknown.
        questions: Total number of questions.
    """

    images: int | None
    questions: int
    _images_done: int = 0
    _questions_done: int = 0
    _images_sec: float = 0.0
    _questions_sec: float = 0.0
    _last_update: float = field(default_factory=time.monotonic)

    def update(self, images: int, questions: int) -> None:
        """Record the number of images and questions completed so far."""
        now = time.monotonic()
        if questions > self._questions_done:
            self._questions_sec += now - self._last_update
        else:
            self._images_sec += now - self._last_update
        self._images_done, self._questions_done, self._last_update = images, questions, now

    @property
    def left_sec(self) -> float | None:
        """Estimated remaining time in seconds; None before there is an estimate."""
        if self.images is None or self._images_done == 0 or (self._questions_done == 0 and self.questions):
            return None
        images_left = max(0, self.images - self._images_done)
        questions_left = self.questions - self._questions_done
        return images_left * self._images_sec / self._images_done + questions_left * self._questions_sec / max(
            1, self._questions_done
        )


class ReplayProgress:
    """One progress bar per running task; a context manager."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[asked]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
            transient=True,
        )
        self._paces: dict[TaskID, Pace] = {}

    def add(self, name: str, total: int | None, questions: int = 0) -> TaskID:
        """Show a bar and return its id.

        Args:
            name: Label of the bar.
            total: Number of steps, such as images; None if unknown.
            questions: Number of questions.
        """
        task = self._progress.add_task(name, total=total, asked="", left="")
        self._paces[task] = Pace(total, questions)
        return task

    def update(self, task: TaskID, steps: int, questions: int = 0) -> None:
        """Set the number of completed steps and questions of a bar."""
        pace = self._paces[task]
        pace.update(steps, questions)
        left = "" if pace.left_sec is None else f"{timedelta(seconds=round(pace.left_sec))} left"
        asked = f"{questions} of {pace.questions} questions" if pace.questions else ""
        self._progress.update(task, completed=steps, asked=asked, left=left)

    def remove(self, task: TaskID) -> None:
        """Remove a bar."""
        self._progress.remove_task(task)

    def __enter__(self) -> ReplayProgress:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
