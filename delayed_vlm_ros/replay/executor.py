"""Evaluate many recordings: in this process, in several processes, or on a Ray cluster.

Each function yields results as they complete. A recording that fails does not stop the others. The recording of a
worker that dies is tried once more.
"""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ProcessPoolExecutor, wait
from contextlib import closing
from functools import partial
from importlib import import_module
from typing import Any

from delayed_vlm_ros.errors import ConfigurationError, IncompleteError
from delayed_vlm_ros.replay.job import Evaluator, ReplayJob, write_failed_result
from delayed_vlm_ros.replay.runner import Progress

JobResult = tuple[ReplayJob, dict[str, Any]]

_ATTEMPTS = 2  # for a recording whose worker dies


def run_sequentially(
    jobs: Sequence[ReplayJob], on_progress: Callable[[ReplayJob, Progress], None]
) -> Iterator[JobResult]:
    """Evaluate the recordings one after the other in this process.

    Args:
        jobs: Recordings to evaluate.
        on_progress: Called with a job and its progress after each image and each question.

    Raises:
        IncompleteError: A result cannot be written.
    """
    with closing(Evaluator()) as evaluator:
        for job in jobs:
            yield job, evaluator.run(job, partial(on_progress, job))


def run_in_processes(jobs: Sequence[ReplayJob], workers: int) -> Iterator[JobResult]:
    """Evaluate the recordings in several processes.

    Args:
        jobs: Recordings to evaluate.
        workers: Number of processes; each loads its own model.

    Raises:
        IncompleteError: A result cannot be written.
    """
    lost: list[ReplayJob] = []
    yield from _run_in_pool(jobs, workers, lost)
    # A process that dies breaks its whole pool, so each lost job gets a pool of its own.
    for job in lost:
        lost_again: list[ReplayJob] = []
        yield from _run_in_pool([job], 1, lost_again)
        if lost_again:
            yield job, write_failed_result(job, "the worker process died twice: check that there is enough memory")


def _run_in_pool(jobs: Sequence[ReplayJob], workers: int, lost: list[ReplayJob]) -> Iterator[JobResult]:
    # A fork would copy a model that holds threads and locks.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context) as pool:
        futures: dict[Future[dict[str, Any]], ReplayJob] = {pool.submit(_run_in_worker, job): job for job in jobs}
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


_worker_evaluators: list[Evaluator] = []  # the evaluator of a worker process: created by its first job, then reused


def _run_in_worker(job: ReplayJob) -> dict[str, Any]:
    if not _worker_evaluators:
        _worker_evaluators.append(Evaluator())
    return _worker_evaluators[0].run(job)


def run_on_ray(jobs: Sequence[ReplayJob], address: str, workers: int) -> Iterator[JobResult]:
    """Evaluate the recordings on a Ray cluster.

    Each free GPU gets one actor. A cluster without GPUs gets at most ``workers`` actors, and no more than it has free
    processors. All machines must reach the recordings and the result folders under the same paths.

    Args:
        jobs: Recordings to evaluate.
        address: Address of the cluster, or ``local`` to start one on this machine until the evaluation ends.
        workers: Number of actors on a cluster without GPUs.

    Raises:
        ConfigurationError: The cluster cannot be reached, or has no free processor or GPU.
        IncompleteError: A result cannot be written.
    """
    ray: Any = import_module("ray")  # an optional extra; Any: parts of its API have no annotations
    try:
        ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigurationError(f"cannot reach the Ray cluster at '{address}': {error}") from error
    try:
        gpus = int(ray.cluster_resources().get("GPU", 0))
        free = int(ray.available_resources().get("GPU" if gpus else "CPU", 0))
        count = min(free, len(jobs), free if gpus else workers)
        if count == 0:
            resource = "GPU" if gpus else "processor"
            raise ConfigurationError(f"the Ray cluster '{address}' has no free {resource}: wait for its running jobs")
        # Ray restarts an actor whose process dies, then retries its recording.
        options = {"max_restarts": -1, "max_task_retries": _ATTEMPTS - 1, "num_gpus": 1 if gpus else 0, "num_cpus": 1}
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
            yield job, _ray_result(ray, ready, job)
    finally:
        ray.shutdown()


def _ray_result(ray: Any, ready: Any, job: ReplayJob) -> dict[str, Any]:
    try:
        result: dict[str, Any] = ray.get(ready)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, IncompleteError):
            raise error.cause from error
        return write_failed_result(job, f"{type(error.cause).__name__}: {error.cause}")
    except ray.exceptions.RayError as error:
        return write_failed_result(job, f"the Ray actor was lost: {error}")
    return result
