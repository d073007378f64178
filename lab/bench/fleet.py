"""Many robots that ask one model server at the same time, each in a process of its own.

Each robot has a memory of its own and sees a room of its own. Between two questions its camera adds the frames of
``every_sec`` seconds. With ``paced``, this time also passes on the clock; otherwise the next question follows at once.
"""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from threading import BrokenBarrierError
from typing import Any

import numpy as np

from delayed_vlm_ros.errors import DelayedVlmError
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.remote.address import parse_address
from delayed_vlm_ros.inference.remote.connection import ServerConnection
from delayed_vlm_ros.inference.remote.settings import RemoteSettings
from delayed_vlm_ros.memory import MemoryConfig
from delayed_vlm_ros.memory.frame import FRAMES_PER_PAIR
from lab.bench.remote_reuse import QUESTIONS, SAMPLE_SEC, Robot, robot

_READY_SEC = 300.0
_LONGEST_QUESTION_SEC = 60.0


@dataclass(frozen=True)
class FleetPlan:
    """What the robots do.

    Attributes:
        server: Address of the server.
        settings: Settings of the engines.
        memory: Settings of each robot's memory.
        max_pixels: Largest height × width of a kept frame.
        seconds: Time for which each robot asks.
        every_sec: Time of the camera between two questions in seconds.
        paced: Whether this time passes on the clock.
        first_seed: Seed of the first robot's scene.
    """

    server: str
    settings: RemoteSettings
    memory: MemoryConfig
    max_pixels: int
    seconds: float = 60.0
    every_sec: float = 10.0
    paced: bool = False
    first_seed: int = 0


@dataclass(frozen=True)
class AskedQuestion:
    """One question and its cost.

    Attributes:
        error: Type of the error that ended it; empty: it was answered.
        first_token_sec: Time to the first token in seconds.
        total_sec: Time to the complete answer in seconds.
        bytes_sent: Bytes sent to the server.
        prompt_tokens: Tokens of the prompt.
        cached_tokens: Tokens of the prompt that the server had computed before.
    """

    error: str
    first_token_sec: float
    total_sec: float
    bytes_sent: int
    prompt_tokens: int
    cached_tokens: int


def measure_fleet(plan: FleetPlan, robots: int) -> Mapping[str, Any]:
    """Let a number of robots ask at the same time; return what they observed.

    Args:
        plan: What the robots do.
        robots: Number of robots.

    Raises:
        RuntimeError: A robot's process ended without a result.
    """
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(robots)
    ends: list[Connection] = []
    processes = []
    for number in range(robots):
        receiving, sending = context.Pipe(duplex=False)
        processes.append(context.Process(target=_run_robot, args=(plan, number, start, sending), daemon=True))
        processes[-1].start()
        sending.close()
        ends.append(receiving)
    try:
        asked = [one for end in ends for one in _received(end)]
    finally:
        for process in processes:
            process.terminate()
            process.join()
    return fleet_json(asked, robots, plan.seconds)


def _received(end: Connection) -> Sequence[AskedQuestion]:
    try:
        asked: Sequence[AskedQuestion] = end.recv()
    except EOFError:
        raise RuntimeError("a robot's process ended without a result: see its output above") from None
    return asked


def _run_robot(plan: FleetPlan, number: int, start: Any, results: Connection) -> None:
    connection = ServerConnection(parse_address(plan.server), plan.settings)
    connection.capabilities(AskControl())
    asking = robot(connection, plan.settings, plan.first_seed + number, plan.memory.build(), plan.max_pixels)
    filling = plan.memory.star_memory_size + plan.memory.stream_window_size
    asking.see(0, filling)
    try:
        start.wait(_READY_SEC)
    except BrokenBarrierError:
        return
    results.send(_questions(plan, number, asking, filling))
    connection.close()


def _questions(plan: FleetPlan, number: int, asking: Robot, seen: int) -> list[AskedQuestion]:
    """Ask until the time is over; the robots of a paced fleet start one after another within ``every_sec``."""
    started = time.monotonic()
    fresh = max(FRAMES_PER_PAIR, round(plan.every_sec / SAMPLE_SEC))
    due = started + (plan.every_sec * np.random.default_rng(number).random() if plan.paced else 0.0)
    asked: list[AskedQuestion] = []
    while True:
        time.sleep(max(0.0, due - time.monotonic()))
        if time.monotonic() - started >= plan.seconds:
            return asked
        asked.append(_ask(asking, QUESTIONS[len(asked) % len(QUESTIONS)]))
        asking.see(seen, fresh)
        seen += fresh
        if plan.paced:
            due = max(due + plan.every_sec, time.monotonic())


def _ask(asking: Robot, question: str) -> AskedQuestion:
    control = AskControl(deadline=time.monotonic() + _LONGEST_QUESTION_SEC)
    try:
        metrics = asking.ask(question, control).metrics
    except DelayedVlmError as error:
        return AskedQuestion(type(error).__name__, 0.0, 0.0, 0, 0, 0)
    return AskedQuestion(
        "",
        metrics.time_to_first_token,
        metrics.total_latency,
        metrics.bytes_sent,
        metrics.kv_cache_length - metrics.answer_tokens,
        metrics.kv_tokens_reused,
    )


def fleet_json(asked: Sequence[AskedQuestion], robots: int, seconds: float) -> Mapping[str, Any]:
    """Return rates, latencies and costs of all robots' questions.

    Args:
        asked: The questions of all robots.
        robots: Number of robots.
        seconds: Time for which each robot asked.
    """
    answered = [one for one in asked if not one.error]
    figures: dict[str, Any] = {
        "robots": robots,
        "answers": len(answered),
        "errors": dict(Counter(one.error for one in asked if one.error)),
        "answers_per_sec": round(len(answered) / seconds, 3),
    }
    if answered:
        prompt = sum(one.prompt_tokens for one in answered)
        figures |= {
            "first_token_sec": _percentiles([one.first_token_sec for one in answered]),
            "total_sec": _percentiles([one.total_sec for one in answered]),
            "bytes_per_question": round(sum(one.bytes_sent for one in answered) / len(answered)),
            "prompt_tokens": round(prompt / len(answered), 1),
            "cached_share": round(sum(one.cached_tokens for one in answered) / prompt, 4) if prompt else 0.0,
        }
    return figures


def _percentiles(seconds: Sequence[float]) -> Mapping[str, float]:
    return {f"p{percent}": round(float(np.percentile(seconds, percent)), 3) for percent in (50, 95)}
