"""Many like pieces of work over several processes, which end when their results are wanted no more."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Any, TypeVar

import cv2

Unit = TypeVar("Unit")
Result = TypeVar("Result")


def map_in_processes(
    work: Callable[[Unit], Result],
    units: Sequence[Unit],
    jobs: int,
    prepare: Callable[..., None] | None = None,
    prepare_with: tuple[Any, ...] = (),
) -> Iterator[tuple[Unit, Result]]:
    """Do all the work; results come as they are ready.

    When whoever takes the results ends early, by an interruption or otherwise, the processes are ended in the middle of
    what they are at.

    Args:
        work: A function of a module; what it takes and gives goes from process to process.
        units: What to do it with.
        jobs: Processes, at most.
        prepare: Is called first in each process.
        prepare_with: Its arguments.
    """
    if not units:
        return
    # A fork would copy threads and locks.
    context = multiprocessing.get_context("spawn")
    begun = (prepare, prepare_with)
    with ProcessPoolExecutor(min(jobs, len(units)), mp_context=context, initializer=_begin, initargs=begun) as pool:
        waiting = {pool.submit(work, unit): unit for unit in units}
        workers = multiprocessing.active_children()
        try:
            for done in as_completed(waiting):
                yield waiting[done], done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in workers:
                worker.terminate()
            raise


def _begin(prepare: Callable[..., None] | None, prepare_with: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ends it without a trace of where it was
    if prepare is not None:
        prepare(*prepare_with)


@contextmanager
def single_threaded_opencv() -> Iterator[None]:
    """Restrict OpenCV to one thread: for images this small, more threads only slow each other down."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)
