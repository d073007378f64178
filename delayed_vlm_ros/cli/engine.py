"""The engine of the commands that run without ROS: a model on this machine, or on a server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from delayed_vlm_ros.cli.output import AnswerView
from delayed_vlm_ros.inference.remote.address import is_remote
from delayed_vlm_ros.inference.remote.settings import RemoteSettings

if TYPE_CHECKING:
    from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine
    from delayed_vlm_ros.inference.remote.scene import RemoteInferenceEngine


def check_model(model: str, device: str, remote: RemoteSettings) -> None:
    """Check the name of a model before anything is loaded.

    Raises:
        DelayedVlmError: There is no such model on this machine, or its server's address or key is invalid.
    """
    from delayed_vlm_ros.inference.local.models.checkpoint import resolve_checkpoint  # noqa: PLC0415  keep --help fast
    from delayed_vlm_ros.inference.remote.model import remote_model  # noqa: PLC0415

    if is_remote(model):
        remote_model(model, remote)
    else:
        resolve_checkpoint(model, device=device)


def load_engine(
    view: AnswerView, model: str, device: str, dtype: str, star: int, stream: int, **engine_options: Any
) -> DelayedBatchInferenceEngine:
    """Load a model and return an engine with an empty memory.

    Args:
        view: View of the session; shows the location of the model and its standing warnings.
        model: Folder of a checkpoint, name on the Hugging Face Hub, ``demo`` or ``auto``.
        device: Device of the model: ``auto``, ``cpu`` or ``cuda[:N]``.
        dtype: Number format of the model, one of ``DTYPES``.
        star: Size of Star memory, in frames.
        stream: Size of Stream memory, in frames.
        **engine_options: Further arguments of the engine.

    Raises:
        ModelError: The model cannot be loaded.
    """
    from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine  # noqa: PLC0415  imports torch
    from delayed_vlm_ros.inference.local.models.device import dtype_name  # noqa: PLC0415

    console = view.console
    with console.status("loading the model"):
        engine = DelayedBatchInferenceEngine.from_pretrained(
            model, device=device, dtype=dtype, star_memory_size=star, stream_window_size=stream, **engine_options
        )
    where = f"{engine.model.device} in {dtype_name(engine.model.dtype)}"
    console.print(f"model: {engine.model.name_or_path} on {where}", highlight=False, soft_wrap=True)
    view.show_standing(engine.warnings)
    return engine


@contextmanager
def connected_engine(
    view: AnswerView, model: str, remote: RemoteSettings, star: int, stream: int
) -> Iterator[RemoteInferenceEngine]:
    """Connect to a model server and yield an engine with an empty memory.

    Args:
        view: View of the session; shows the server, the encoding and the standing warnings.
        model: Address of the model.
        remote: Settings for the server.
        star: Size of Star memory, in frames.
        stream: Size of Stream memory, in frames.

    Raises:
        DelayedVlmError: The server cannot be used.
    """
    from delayed_vlm_ros.inference.remote.scene import RemoteInferenceEngine  # noqa: PLC0415  takes seconds

    engine = RemoteInferenceEngine(model, remote, star_memory_size=star, stream_window_size=stream)
    try:
        with view.console.status("asking the server what it can do"):
            found = engine.capabilities()
        where = f"{found.server or 'a model server'}, encoding {found.encoding.value}, exact: false"
        view.console.print(f"model: {found.model} on {where}", highlight=False, soft_wrap=True)
        view.show_standing(engine.warnings)
        yield engine
    finally:
        engine.close()
