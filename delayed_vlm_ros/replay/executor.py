"""Many recordings, one after the other or side by side: in this process, in several, or on a Ray cluster.

Each way yields the results as they come. A recording that fails does not stop the others, nor does a worker that dies:
its recording is tried again, once.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ProcessPoolExecutor, wait
from typing import Any

from delayed_vlm_ros.errors import ConfigurationError, IncompleteError
from delayed_vlm_ros.replay.job import Evaluator, ReplayJob, write_failed
from delayed_vlm_ros.replay.runner import Progress

Finished = tuple[ReplayJob, dict[str, Any]]

_TRIES = 2  # of a recording whose worker dies


def one_by_one(jobs: Sequence[ReplayJob], told: Callable[[ReplayJob, Progress], None]) -> Iterator[Finished]:
    """Evaluate in this process.

    Args:
        jobs: The recordings.
        told: Hears how far each is.

    Raises:
        IncompleteError: A result cannot be written.
    """
    evaluator = Evaluator()
    for job in jobs:

        def told_of_it(progress: Progress, job: ReplayJob = job) -> None:
            told(job, progress)

        yield job, evaluator.run(job, told_of_it)


def in_processes(jobs: Sequence[ReplayJob], workers: int) -> Iterator[Finished]:
    """Evaluate in so many processes, each of which has the model to itself.

    Raises:
        IncompleteError: A result cannot be written.
    """
    lost: list[ReplayJob] = []
    yield from _in_a_pool(jobs, workers, lost)
    # One that dies takes those beside it along. Alone, in a process of its own, each has its own fate.
    for job in lost:
        lost_again: list[ReplayJob] = []
        yield from _in_a_pool([job], 1, lost_again)
        if lost_again:
            yield job, write_failed(job, "the process that evaluated it has died, twice: was there enough memory?")


def _in_a_pool(jobs: Sequence[ReplayJob], workers: int, lost: list[ReplayJob]) -> Iterator[Finished]:
    # A fork would copy a model that holds threads and locks.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context) as pool:
        futures: dict[Future[dict[str, Any]], ReplayJob] = {pool.submit(_run_here, job): job for job in jobs}
        pending = set(futures)
        while pending:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                job = futures[future]
                try:
                    result = future.result()
                except BrokenExecutor:
                    lost.append(job)
                    continue
                except IncompleteError:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
                yield job, result


_evaluators: list[Evaluator] = []  # of this worker's process: one, from its first job on


def _run_here(job: ReplayJob) -> dict[str, Any]:
    if not _evaluators:
        _evaluators.append(Evaluator())
    return _evaluators[0].run(job)


def on_ray(jobs: Sequence[ReplayJob], address: str, workers: int) -> Iterator[Finished]:
    """Evaluate on a Ray cluster: one actor for each of its GPUs, or ``workers`` actors where it has none.

    The recordings and the results' folder must be reachable under the same paths on all its machines. No more actors
    are made than there are processors or GPUs free now.

    Args:
        jobs: The recordings.
        address: Of the cluster, or ``local`` for one on this machine that ends with the evaluation.
        workers: Actors where there are no GPUs.

    Raises:
        ConfigurationError: The cluster cannot be reached, or nothing in it is free.
        IncompleteError: A result cannot be written.
    """
    import ray  # noqa: PLC0415  an extra

    try:
        ray.init(
            address=address,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigurationError(f"the Ray cluster at '{address}' cannot be reached: {error}") from error
    try:
        gpus = int(ray.cluster_resources().get("GPU", 0))
        free = int(ray.available_resources().get("GPU" if gpus else "CPU", 0))
        count = min(free, len(jobs), free if gpus else workers)
        if count == 0:
            wanted = "GPU" if gpus else "processor"
            raise ConfigurationError(f"no {wanted} of the Ray cluster '{address}' is free: wait for what runs there")
        # Restarted when its process dies, and its recording is then tried again.
        options = {"max_restarts": -1, "max_task_retries": _TRIES - 1, "num_gpus": 1 if gpus else 0, "num_cpus": 1}
        actor = ray.remote(**options)(Evaluator)
        idle = [actor.remote() for _ in range(count)]
        busy: dict[Any, tuple[ReplayJob, Any]] = {}
        waiting = list(jobs)
        while waiting or busy:
            while waiting and idle:
                worker, job = idle.pop(), waiting.pop(0)
                busy[worker.run.remote(job)] = (job, worker)
            (ready,), _ = ray.wait(list(busy), num_returns=1)
            job, worker = busy.pop(ready)
            idle.append(worker)
            yield job, _result_of(ray, ready, job)
    finally:
        ray.shutdown()


def _result_of(ray: Any, ready: Any, job: ReplayJob) -> dict[str, Any]:
    try:
        result: dict[str, Any] = ray.get(ready)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, IncompleteError):
            raise error.cause from error
        return write_failed(job, f"{type(error.cause).__name__}: {error.cause}")
    except ray.exceptions.RayError as error:
        return write_failed(job, f"the actor that evaluated it was lost: {error}")
    return result
