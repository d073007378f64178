"""How far evaluations are, and how long they will still take: bars for people."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import timedelta
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


@dataclass
class Pace:
    """What is left to do, and how long it takes by what has been done.

    Images and questions take very different times, and questions mostly come late: each has its own pace. Nothing is
    said before both are known.

    Attributes:
        images: Images in all; None: nobody knows.
        questions: Questions in all.
    """

    images: int | None
    questions: int
    _taken: int = 0
    _asked: int = 0
    _looking_sec: float = 0.0
    _asking_sec: float = 0.0
    _last: float = field(default_factory=time.monotonic)

    def update(self, taken: int, asked: int) -> None:
        """So many images have been taken and questions asked by now."""
        now = time.monotonic()
        if asked > self._asked:
            self._asking_sec += now - self._last
        else:
            self._looking_sec += now - self._last
        self._taken, self._asked, self._last = taken, asked, now

    @property
    def left_sec(self) -> float | None:
        """Seconds that are left; None where that cannot be said yet."""
        if self.images is None or self._taken == 0 or (self._asked == 0 and self.questions):
            return None
        looking = max(0, self.images - self._taken) * self._looking_sec / self._taken
        asking = (self.questions - self._asked) * self._asking_sec / max(1, self._asked)
        return looking + asking


class ReplayProgress:
    """A bar for each recording at work; a context manager."""

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

    @property
    def console(self) -> Console:
        """Where to print above the bars."""
        return self._progress.console

    def begin(self, name: str, total: int | None, questions: int = 0) -> TaskID:
        """Show a bar of so many images, or whatever is counted, and of so many questions; gives its number."""
        task = self._progress.add_task(name, total=total, asked="", left="")
        self._paces[task] = Pace(total, questions)
        return task

    def update(self, task: TaskID, images: int, asked: int) -> None:
        """So much of a recording is done."""
        pace = self._paces[task]
        pace.update(images, asked)
        left = pace.left_sec
        shown = "" if left is None else f"{timedelta(seconds=round(left))} left"
        told = f"{asked} of {pace.questions} asked" if pace.questions else ""
        self._progress.update(task, completed=images, asked=told, left=shown)

    def end(self, task: TaskID) -> None:
        """Take a bar away."""
        self._progress.remove_task(task)

    def __enter__(self) -> ReplayProgress:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
