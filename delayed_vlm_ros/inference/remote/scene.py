"""Scene memory of one camera with a model on a server, for Python programs. Needs no torch."""

from __future__ import annotations

from typing import Any

from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.metrics import AskMetrics
from delayed_vlm_ros.inference.remote.capabilities import Capabilities
from delayed_vlm_ros.inference.remote.engine import RemoteEngine
from delayed_vlm_ros.inference.remote.model import remote_model
from delayed_vlm_ros.inference.remote.settings import RemoteSettings
from delayed_vlm_ros.inference.request import AskRequest
from delayed_vlm_ros.ingest.ingestor import FrameIngestor
from delayed_vlm_ros.memory import MemoryConfig, SmartFrameManager, Snapshot


class RemoteInferenceEngine(RemoteEngine):
    """Scene memory of one camera, with a model on a server that answers questions about it.

    It is used as ``DelayedBatchInferenceEngine``. Only one thread may ask at a time; another thread may add frames
    meanwhile.

    Args:
        model: Address such as ``openai:http://server:8000/v1#Qwen/Qwen3-VL-8B-Instruct``.
        settings: How the server is asked; None: the defaults.
        max_pixels: Largest height × width of a kept frame.
        star_memory_size: Key frames over the whole past, in frames.
        stream_window_size: Newest frames, in frames.
        frame_manager: A memory to use instead of a new one; its own sizes apply.

    Attributes:
        frame_manager: The memory.

    Raises:
        ConfigurationError: The address or a size is invalid, or the environment variable of the key is not set.
    """

    def __init__(
        self,
        model: str,
        settings: RemoteSettings | None = None,
        *,
        max_pixels: int = MemoryConfig.max_pixels,
        star_memory_size: int = MemoryConfig.star_memory_size,
        stream_window_size: int = MemoryConfig.stream_window_size,
        frame_manager: SmartFrameManager | None = None,
    ) -> None:
        remote = remote_model(model, settings)
        self.frame_manager = frame_manager or SmartFrameManager(star_memory_size, stream_window_size)
        self._ingestor = FrameIngestor(remote.geometry(max_pixels), self.frame_manager)
        self._warnings = remote.warnings
        super().__init__(self.frame_manager, remote.connect(), remote.settings)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Limitations of all answers, one sentence each."""
        return self._warnings

    def add_frame(self, image: Any, timestamp: float) -> str:
        """Add an image to the memory; the server receives it when a question needs it.

        Args:
            image: RGB uint8 array of shape (H, W, 3), or a PIL image.
            timestamp: Stamp of the image in seconds, newer than the last one.

        Returns:
            What happened to the image, in one line.

        Raises:
            ImageError: The image cannot be used; the memory has not changed.
            StampOrderError: The stamp is not newer than the last one; the memory has not changed.
        """
        return str(self._ingestor.add(image, timestamp))

    def snapshot(self) -> Snapshot:
        """Return the kept pairs in time order."""
        return self.frame_manager.snapshot()

    def ask(
        self,
        question: str,
        *,
        since: float | None = None,
        until: float | None = None,
        last_sec: float | None = None,
        max_new_tokens: int | None = None,
    ) -> tuple[str, AskMetrics]:
        """Answer a question about the kept frames; arguments as for ``DelayedBatchInferenceEngine.ask``.

        Returns:
            The answer and its metrics.

        Raises:
            DelayedVlmError: As for ``answer``.
        """
        result = self.answer(AskRequest(question, since, until, last_sec, max_new_tokens))
        return result.answer, result.metrics

    def capabilities(self, control: AskControl | None = None) -> Capabilities:
        """Return what the server can do; ask it if it is not known.

        Raises:
            DelayedVlmError: The server cannot be used.
        """
        return self._connection.capabilities(control or AskControl())
