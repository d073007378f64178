"""What a model server computes and receives again for further questions: tokens and bytes, by encoding.

The server's prefix cache holds full blocks of tokens only, so its hits are compared with the full blocks of the prefix
that a prompt shares with earlier ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

import numpy as np

from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.remote.address import parse_address
from delayed_vlm_ros.inference.remote.client import ChatRequest, ChatResult
from delayed_vlm_ros.inference.remote.connection import ServerConnection
from delayed_vlm_ros.inference.remote.engine import RemoteEngine
from delayed_vlm_ros.inference.remote.settings import RemoteSettings
from delayed_vlm_ros.inference.request import AskRequest, AskResult
from delayed_vlm_ros.ingest.geometry import FrameGeometry
from delayed_vlm_ros.ingest.ingestor import FrameIngestor
from delayed_vlm_ros.memory import MemoryConfig, SmartFrameManager
from delayed_vlm_ros.memory.frame import FRAMES_PER_PAIR
from delayed_vlm_ros.scenes import Scene, render

IMAGE_SIZE = (120, 160)
"""Height and width of the camera images in pixels."""

SAMPLE_SEC = 0.5
"""Time from frame to frame in seconds."""

QUESTIONS = (
    "what objects are there?",
    "how many objects are there?",
    "is there a red ball?",
    "what color is the box?",
    "did a person walk by?",
)
_ANSWER_TOKENS = 16


@dataclass(frozen=True)
class Robot:
    """A simulated camera and the engine that asks a server about it.

    Attributes:
        scene: What the camera sees.
        ingestor: The camera's memory, and the size of its frames.
        engine: The engine.
    """

    scene: Scene
    ingestor: FrameIngestor
    engine: RemoteEngine

    def see(self, first: int, frames: int) -> None:
        """Add frames to the memory; their numbers start with ``first``."""
        for number in range(first, first + frames):
            stamp = number * SAMPLE_SEC
            self.ingestor.add(render(self.scene, stamp, *IMAGE_SIZE), stamp)

    def ask(self, question: str, control: AskControl | None = None) -> AskResult:
        """Ask the server.

        Raises:
            DelayedVlmError: There is no answer.
        """
        return self.engine.answer(AskRequest(question, max_new_tokens=_ANSWER_TOKENS), control)


def robot(
    connection: ServerConnection, settings: RemoteSettings, seed: int, memory: SmartFrameManager, max_pixels: int
) -> Robot:
    """Return a robot that has seen nothing.

    Args:
        connection: Connection to the server.
        settings: Settings of the engine.
        seed: Seed of the scene.
        memory: Its empty memory.
        max_pixels: Largest height × width of a kept frame.
    """
    geometry = FrameGeometry(settings.frame_multiple, settings.frame_multiple**2, max_pixels)
    engine = RemoteEngine(memory, connection, settings)
    return Robot(Scene.from_seed(seed), FrameIngestor(geometry, memory), engine)


class RecordingConnection(ServerConnection):
    """A connection that asks for the tokens of each prompt.

    Attributes:
        prompts: Tokens of each prompt so far.
    """

    def __init__(self, server: str, settings: RemoteSettings) -> None:
        super().__init__(parse_address(server), settings)
        self.prompts: list[tuple[int, ...]] = []

    def chat(self, request: ChatRequest, control: AskControl, on_text: Any = None) -> ChatResult:
        """Return the model's answer, and record the tokens of its prompt."""
        extra = {**request.extra, "return_token_ids": True}
        result = super().chat(replace(request, extra=extra), control, on_text)
        self.prompts.append(result.prompt_token_ids)
        return result


def measure_reuse(
    server: str, settings: RemoteSettings, seed: int, pairs: int, block_tokens: int, max_pixels: int
) -> dict[str, Mapping[str, Any]]:
    """Return tokens and bytes of a first question, of another one, and of one after a further pair.

    Args:
        server: Address of the server.
        settings: Settings of the engine.
        seed: Seed of a scene that the server has not seen.
        pairs: Pairs in memory at the first question.
        block_tokens: Tokens of a block of the server's prefix cache.
        max_pixels: Largest height × width of a kept frame.
    """
    connection = RecordingConnection(server, settings)
    frames = FRAMES_PER_PAIR * pairs
    memory = SmartFrameManager(0, frames + FRAMES_PER_PAIR)  # keeps all frames
    asking = robot(connection, settings, seed, memory, max_pixels)
    asking.see(0, frames)
    results = [asking.ask(question) for question in QUESTIONS[:2]]
    asking.see(frames, FRAMES_PER_PAIR)
    results.append(asking.ask(QUESTIONS[2]))
    connection.close()
    first = results[0].metrics.bytes_sent - _probe_bytes(server, settings)
    names = ("first question", "another question", "another question after one more pair")
    measured: dict[str, Mapping[str, Any]] = {}
    for number, (name, result) in enumerate(zip(names, results, strict=True)):
        shared = _common(connection.prompts[number - 1], connection.prompts[number]) if number else 0
        full = shared // block_tokens * block_tokens
        bytes_sent = result.metrics.bytes_sent if number else first
        measured[name] = {
            "bytes": bytes_sent,
            "bytes_over_first": round(bytes_sent / first, 4),
            "prompt_tokens": len(connection.prompts[number]),
            "shared_with_previous": shared,
            "in_full_blocks": full,
            "cached": result.metrics.kv_tokens_reused,
            "cached_over_full_blocks": round(result.metrics.kv_tokens_reused / full, 4) if full else None,
            "answer": result.answer,
        }
    return measured


def _probe_bytes(server: str, settings: RemoteSettings) -> int:
    """Return the bytes of the requests that find out what the server can do, which come before the first question."""
    connection = ServerConnection(parse_address(server), settings)
    connection.capabilities(AskControl())
    sent = connection.bytes_sent
    connection.close()
    return sent


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


@dataclass(frozen=True)
class Rhythm:
    """When a robot asks, in virtual time.

    Attributes:
        memory: Settings of the memory.
        questions: Number of questions.
        every_sec: Shortest and longest time from question to question in seconds.
        filling_sec: Time before the first question in seconds.
        seed: Seed of the times.
    """

    memory: MemoryConfig
    questions: int = 30
    every_sec: tuple[float, float] = (10.0, 30.0)
    filling_sec: float = 60.0
    seed: int = 0

    def frames(self) -> Iterator[int]:
        """Yield the number of new frames before each question."""
        random = np.random.default_rng(self.seed)
        yield round(self.filling_sec / SAMPLE_SEC)
        for _ in range(self.questions - 1):
            yield round(random.uniform(*self.every_sec) / SAMPLE_SEC)


def measure_rhythm(
    server: str, settings: RemoteSettings, seed: int, rhythm: Rhythm, max_pixels: int
) -> Mapping[str, Any]:
    """Return mean tokens and bytes of a question while the camera's frames keep arriving.

    Args:
        server: Address of the server.
        settings: Settings of the engine.
        seed: Seed of a scene that the server has not seen.
        rhythm: When the robot asks.
        max_pixels: Largest height × width of a kept frame.
    """
    connection = ServerConnection(parse_address(server), settings)
    connection.capabilities(AskControl())
    asking = robot(connection, settings, seed, rhythm.memory.build(), max_pixels)
    seen, rows = 0, []
    for number, frames in enumerate(rhythm.frames()):
        asking.see(seen, frames)
        seen += frames
        metrics = asking.ask(QUESTIONS[number % len(QUESTIONS)]).metrics
        prompt = metrics.kv_cache_length - metrics.answer_tokens
        rows.append(
            (prompt, metrics.kv_tokens_reused, metrics.frames_encoded, metrics.bytes_sent, metrics.total_latency)
        )
    connection.close()
    later = np.array(rows[1:], float)  # the first question has nothing to reuse
    prompt, cached, sent, size = later[:, :-1].mean(0)
    return {
        "questions": len(later),
        "prompt_tokens": round(float(prompt), 1),
        "cached": round(float(cached), 1),
        "prefilled": round(float(prompt - cached), 1),
        "images_sent": round(float(sent), 2),
        "bytes": round(float(size)),
        "median_sec": round(float(np.median(later[:, -1])), 3),
    }
