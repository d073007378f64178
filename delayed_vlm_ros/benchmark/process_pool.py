"""Parallel work over several processes that end as soon as the caller stops reading results."""

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
    initializer: Callable[..., None] | None = None,
    initargs: tuple[Any, ...] = (),
) -> Iterator[tuple[Unit, Result]]:
    """Call a function for every unit in worker processes.

    Closing the iterator early, for example by an interruption, terminates the processes.

    Args:
        work: Module-level function; its argument and its result must be picklable.
        units: Arguments of the function, one per call.
        jobs: Maximum number of processes.
        initializer: Function called once in each process.
        initargs: Arguments of ``initializer``.

    Yields:
        Unit and result, in order of completion.
    """
    if not units:
        return
    # "spawn", because a fork would copy threads and locks.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        min(jobs, len(units)), mp_context=context, initializer=_initialize, initargs=(initializer, initargs)
    ) as pool:
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


def _initialize(initializer: Callable[..., None] | None, initargs: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # end on Ctrl-C without a traceback
    if initializer is not None:
        initializer(*initargs)


@contextmanager
def single_threaded_opencv() -> Iterator[None]:
    """Restrict OpenCV to one thread: for images this small, more threads only slow each other down."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)
