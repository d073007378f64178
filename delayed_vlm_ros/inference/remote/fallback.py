"""A local engine that answers while the model server is away."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import TypeVar

from delayed_vlm_ros.errors import ModelNotReadyError
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.engine import CachedBytes, Engine
from delayed_vlm_ros.inference.metrics import AskMetrics
from delayed_vlm_ros.inference.remote.connection import ServerConnection
from delayed_vlm_ros.inference.remote.engine import RemoteEngine
from delayed_vlm_ros.inference.request import AskRequest, AskResult
from delayed_vlm_ros.inference.yes_no import ScoreResult
from delayed_vlm_ros.memory import Snapshot

_Result = TypeVar("_Result")


class FallbackEngine:
    """Answers by a server, and by a model on this machine while the server is away.

    Args:
        remote: Engine that asks the server.
        connection: Connection of that engine.
        load_local: Returns the engine on this machine; called once, when it is needed first.
        local_name: Name of the model on this machine.
    """

    def __init__(
        self,
        remote: RemoteEngine,
        connection: ServerConnection,
        load_local: Callable[[], Engine],
        local_name: str,
    ) -> None:
        self._remote = remote
        self._connection = connection
        self._load_local = load_local
        self._local_name = local_name
        self._local: Engine | None = None

    def answer(
        self, request: AskRequest, control: AskControl | None = None, *, frames: Snapshot | None = None
    ) -> AskResult:
        """Answer a request.

        Raises:
            DelayedVlmError: As for both engines.
        """
        result, fault = self._run(
            lambda: self._remote.answer(request, control, frames=frames),
            lambda local: local.answer(request, control, frames=frames),
        )
        return replace(result, metrics=self._with_warning(result.metrics, fault))

    def score(
        self,
        questions: Sequence[str],
        *,
        window_sec: float | None = None,
        frames: Snapshot | None = None,
        control: AskControl | None = None,
    ) -> ScoreResult:
        """Return what the model would answer to yes/no questions about the newest frames.

        Raises:
            DelayedVlmError: As for both engines.
        """
        result, fault = self._run(
            lambda: self._remote.score(questions, window_sec=window_sec, frames=frames, control=control),
            lambda local: local.score(questions, window_sec=window_sec, frames=frames, control=control),
        )
        return replace(result, metrics=self._with_warning(result.metrics, fault))

    def precompute(self, control: AskControl | None = None, *, prefill: bool) -> bool:  # noqa: ARG002
        """Do nothing: while the server answers, nothing is computed here."""
        return False

    def keep_windows(self, lengths: Collection[float]) -> None:
        """Drop the encoded windows of all other lengths, in seconds."""
        if self._local is not None:
            self._local.keep_windows(lengths)

    def cached_bytes(self) -> CachedBytes:
        """Return the bytes kept between questions by both engines."""
        remote = self._remote.cached_bytes()
        local = CachedBytes(0, 0) if self._local is None else self._local.cached_bytes()
        return CachedBytes(remote.features + local.features, remote.kv + local.kv)

    def reset_cache(self) -> None:
        """Drop everything computed for earlier questions."""
        self._remote.reset_cache()
        if self._local is not None:
            self._local.reset_cache()

    def close(self) -> None:
        """Close the connection. The model on this machine belongs to the owner of ``load_local``."""
        self._remote.close()

    def _run(self, ask_server: Callable[[], _Result], ask_local: Callable[[Engine], _Result]) -> tuple[_Result, str]:
        """Return the result, and why the server did not give it; empty if it did."""
        if not self._connection.is_away:  # otherwise every question would wait for it; a check in idle time ends this
            try:
                return ask_server(), ""
            except ModelNotReadyError:
                pass  # noted by the connection
        fault = self._connection.fault
        if self._local is None:
            self._local = self._load_local()
        return ask_local(self._local), fault

    def _with_warning(self, metrics: AskMetrics, fault: str) -> AskMetrics:
        if not fault:
            return metrics
        warning = f"fallback: the model {self._local_name} on this machine answered: {fault}"
        return replace(metrics, warnings=(warning, *metrics.warnings))
