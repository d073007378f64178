"""The model of an evaluation on a server. Needs no torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from delayed_vlm_ros.errors import BusyError, ConfigurationError, DelayedVlmError, ModelNotReadyError
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.engine import CachedBytes
from delayed_vlm_ros.inference.remote.capabilities import Capabilities
from delayed_vlm_ros.inference.remote.connection import ServerConnection
from delayed_vlm_ros.inference.remote.engine import RemoteEngine
from delayed_vlm_ros.inference.remote.model import RemoteModel, remote_model
from delayed_vlm_ros.inference.request import AskRequest, AskResult
from delayed_vlm_ros.inference.yes_no import ScoreResult
from delayed_vlm_ros.ingest.geometry import FrameGeometry
from delayed_vlm_ros.memory import SmartFrameManager, Snapshot
from delayed_vlm_ros.memory.frame import Frame
from delayed_vlm_ros.replay.answerers import MethodAnswer, engine_answer
from delayed_vlm_ros.replay.methods import DELAYED, left_out_warnings, local_methods
from delayed_vlm_ros.replay.runner import ReplaySettings

_Result = TypeVar("_Result")

_PROBE_SEC = 60.0
_PAUSES_SEC = (1.0, 2.0, 4.0, 8.0, 15.0)  # before a question is asked again while the server is away or busy


@dataclass(frozen=True)
class ServerModel:
    """A model on a server; see ``ReplayModel``. Only the method ``delayed`` can use it.

    Attributes:
        model: The model.
        connection: Connection to its server.
        found: What server and model could do at the start.
        left_out: Methods of the evaluation that need a model on this machine.
    """

    model: RemoteModel
    connection: ServerConnection
    found: Capabilities
    left_out: tuple[str, ...]

    is_remote = True
    methods = (DELAYED,)

    @classmethod
    def connect(cls, settings: ReplaySettings) -> ServerModel:
        """Connect to a server, and find out what it can do.

        Raises:
            ConfigurationError: The methods do not include ``delayed``, or the address or key is invalid.
            DelayedVlmError: The server cannot be used.
        """
        if DELAYED not in settings.methods:
            raise ConfigurationError(f"a model on a server can only answer by the method '{DELAYED}': add it")
        model = remote_model(settings.model, settings.remote)
        connection = model.connect()
        found = connection.capabilities(AskControl(time.monotonic() + _PROBE_SEC))
        return cls(model, connection, found, local_methods(settings.methods))

    @property
    def notes(self) -> tuple[str, ...]:
        """Limitations of the model, one sentence each."""
        return self.model.warnings

    @property
    def warnings(self) -> tuple[str, ...]:
        """Limitations of the evaluation, the model's included."""
        return (*self.notes, *left_out_warnings(self.left_out))

    @property
    def environment(self) -> Mapping[str, Any]:
        """Server and encoding, for the report."""
        return {
            "model": str(self.connection.address),
            "model server": f"{self.found.server or 'unknown kind'} at {self.connection.address.host}",
            "encoding": self.found.encoding.value,
            "exact": "false",
        }

    def geometry(self, max_pixels: int) -> FrameGeometry:
        """Return the image sizes that the model accepts."""
        return self.model.geometry(max_pixels)

    def answerers(self, memory: SmartFrameManager, max_pixels: int) -> ServerAnswerers:  # noqa: ARG002  see geometry
        """Return the method for one recording; arguments as for ``ReplayModel``."""
        return ServerAnswerers(self._engine(memory))

    def watch_engine(self, memory: SmartFrameManager, max_pixels: int) -> PatientEngine:  # noqa: ARG002  see geometry
        """Return an engine for watches alone."""
        return self._engine(memory)

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    def _engine(self, memory: SmartFrameManager) -> PatientEngine:
        return PatientEngine(self.model.engine(memory, self.connection))


class PatientEngine:
    """Asks the server again while it is away or busy, up to half a minute; once it was away for longer, only once.

    Args:
        engine: The engine that asks.
    """

    def __init__(self, engine: RemoteEngine) -> None:
        self._engine = engine
        self._is_away = False

    def answer(
        self, request: AskRequest, control: AskControl | None = None, *, frames: Snapshot | None = None
    ) -> AskResult:
        """Answer a request.

        Raises:
            DelayedVlmError: As for ``RemoteEngine.answer``.
        """
        return self._ask(lambda: self._engine.answer(request, control, frames=frames))

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
            DelayedVlmError: As for ``RemoteEngine.score``.
        """
        return self._ask(lambda: self._engine.score(questions, window_sec=window_sec, frames=frames, control=control))

    def precompute(self, control: AskControl | None = None, *, prefill: bool) -> bool:
        """Do nothing, as ``RemoteEngine.precompute``."""
        return self._engine.precompute(control, prefill=prefill)

    def keep_windows(self, lengths: Collection[float]) -> None:
        """Drop the encoded windows of all other lengths, in seconds."""
        self._engine.keep_windows(lengths)

    def cached_bytes(self) -> CachedBytes:
        """Return the bytes of compressed frames kept between questions."""
        return self._engine.cached_bytes()

    def reset_cache(self) -> None:
        """Drop the compressed frames."""
        self._engine.reset_cache()

    def close(self) -> None:
        """Close the connection."""
        self._engine.close()

    def _ask(self, ask: Callable[[], _Result]) -> _Result:
        for pause_sec in () if self._is_away else _PAUSES_SEC:
            try:
                return ask()
            except (ModelNotReadyError, BusyError):
                time.sleep(pause_sec)
        self._is_away = True
        result = ask()
        self._is_away = False
        return result


class ServerAnswerers:
    """The method ``delayed`` with a model on a server, applied to one recording.

    Args:
        engine: Engine with the replay's memory.
    """

    def __init__(self, engine: PatientEngine) -> None:
        self._engine = engine

    @property
    def cached_bytes(self) -> int:
        """Bytes of compressed frames that are kept for the next question."""
        return self._engine.cached_bytes().features

    def add(self, frame: Frame) -> None:
        """Do nothing: the frame is in the memory."""

    def reset(self) -> None:
        """Drop the compressed frames, after a backward time jump."""
        self._engine.reset_cache()

    def answer(self, request: AskRequest) -> dict[str, MethodAnswer]:
        """Answer a question; a server that is away is an error, never an answer."""
        try:
            return {DELAYED: engine_answer(self._engine, request)}
        except DelayedVlmError as error:
            return {DELAYED: MethodAnswer(error=str(error))}
        except Exception as error:  # noqa: BLE001  a defect must not lose the answers so far
            return {DELAYED: MethodAnswer(error=f"{type(error).__name__}: {error}")}
