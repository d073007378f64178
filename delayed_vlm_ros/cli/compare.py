"""``delayed-vlm compare``: the delayed memory and all frames of the same video, without ROS."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from delayed_vlm_ros.cli import engine as engines
from delayed_vlm_ros.cli import options, output, terminal
from delayed_vlm_ros.cli.progress import elapsed_time
from delayed_vlm_ros.inference.remote.address import is_remote
from delayed_vlm_ros.inference.remote.settings import RemoteSettings
from delayed_vlm_ros.memory import MemoryConfig

if TYPE_CHECKING:
    from delayed_vlm_ros.inference.engine import SceneEngine
    from delayed_vlm_ros.replay.compare import Comparison
    from delayed_vlm_ros.replay.compare_server import ServerComparison

_NO_NATIVE = "the model is on a server: no native inference; all frames are sent to the server instead"


@dataclass(frozen=True)
class _Compared:
    """Two engines, and how they are compared.

    Attributes:
        engine: Engine with the delayed memory.
        everything: Engine whose memory keeps all frames.
        reference: Name of the method with all frames, and its key in the JSON object.
        answers: Compares the answers to questions of a maximum length in tokens.
        description: Entries of the JSON object about the model.
    """

    engine: SceneEngine
    everything: SceneEngine
    reference: tuple[str, str]
    answers: Callable[[Sequence[str], int], Iterable[Comparison | ServerComparison]]
    description: Mapping[str, Any]


def compare(
    video: options.Video,
    model: options.Model = "auto",
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    api_key_env: options.ApiKeyEnv = "",
    frame_multiple: options.FrameMultiple = RemoteSettings.frame_multiple,
    question: options.Questions = None,
    sample_fps: options.SampleFps = None,
    star: options.Star = MemoryConfig.star_memory_size,
    stream: options.Stream = MemoryConfig.stream_window_size,
    max_new_tokens: options.MaxNewTokens = 128,
    as_json: options.Json = False,
) -> None:
    """Compare native inference on all frames with the delayed memory: answers, times, similarity.

    A model on a server has no native inference: all frames are sent to the server instead.
    """
    # Keep --help fast.
    from delayed_vlm_ros.images.video import open_video  # noqa: PLC0415
    from delayed_vlm_ros.replay.compare import stream_in  # noqa: PLC0415
    from delayed_vlm_ros.replay.video_frames import sampling_rate  # noqa: PLC0415

    console = terminal.console(stderr=as_json)
    view = output.AnswerView(console)
    options.check_questions(question or ())
    remote = RemoteSettings(api_key_env=api_key_env, frame_multiple=frame_multiple)
    with open_video(video) as source:
        # Errors in the video and the model's name are reported before torch is loaded, which takes seconds.
        engines.check_model(model, device, remote)
        rate = sample_fps or sampling_rate(source, 2)
        with (
            _on_server(view, model, remote, star, stream)
            if is_remote(model)
            else _on_this_machine(view, model, device, dtype, star, stream)
        ) as compared:
            with elapsed_time(console) as progress:
                total = source.duration_sec and int(source.duration_sec * rate)
                frames = progress.track(source.frames(rate=rate), total=total, description="streaming in")
                stream_in(compared.engine, compared.everything, frames)
            _show(view, compared, question or options.DEFAULT_QUESTIONS, max_new_tokens, video, rate, as_json=as_json)


@contextmanager
def _on_this_machine(
    view: output.AnswerView, model: str, device: str, dtype: str, star: int, stream: int
) -> Iterator[_Compared]:
    # Native inference answers about any images, so the delayed memory does so, too.
    engine = engines.load_engine(view, model, device, dtype, star, stream, familiar_images=None)
    from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine  # noqa: PLC0415  imports torch
    from delayed_vlm_ros.inference.local.models.device import dtype_name  # noqa: PLC0415
    from delayed_vlm_ros.replay.compare import keep_everything  # noqa: PLC0415
    from delayed_vlm_ros.replay.compare_native import compare_answers  # noqa: PLC0415

    everything = DelayedBatchInferenceEngine(engine.model, engine.processor, frame_manager=keep_everything())
    description = {
        "model": str(engine.model.name_or_path),
        "device": str(engine.model.device),
        "dtype": dtype_name(engine.model.dtype),
    }
    yield _Compared(
        engine,
        everything,
        ("native", "native"),
        lambda questions, length: compare_answers(engine, everything, questions, length),
        description,
    )


@contextmanager
def _on_server(
    view: output.AnswerView, model: str, remote: RemoteSettings, star: int, stream: int
) -> Iterator[_Compared]:
    from delayed_vlm_ros.inference.remote.scene import RemoteInferenceEngine  # noqa: PLC0415  takes seconds
    from delayed_vlm_ros.replay.compare import keep_everything  # noqa: PLC0415
    from delayed_vlm_ros.replay.compare_server import compare_answers  # noqa: PLC0415

    with (
        engines.connected_engine(view, model, remote, star, stream) as engine,
        closing(RemoteInferenceEngine(model, remote, frame_manager=keep_everything())) as everything,
    ):
        view.show_standing([_NO_NATIVE])
        found = engine.capabilities()
        description = {"model": found.model, "server": found.server, "encoding": found.encoding.value}
        yield _Compared(
            engine,
            everything,
            ("all frames", "everything"),
            lambda questions, length: compare_answers(engine, everything, questions, length),
            description,
        )


def _show(
    view: output.AnswerView,
    compared: _Compared,
    questions: Sequence[str],
    max_new_tokens: int,
    video: str,
    rate: float,
    *,
    as_json: bool,
) -> None:
    statistics = compared.engine.frame_manager.get_statistics()
    all_frames = compared.everything.frame_manager.statistics().unique_frames
    kept_frames = int(statistics["unique_frames"])
    name, key = compared.reference
    output.show_frame_counts(view.console, kept_frames, all_frames, name)
    comparisons = []
    for comparison in compared.answers(questions, max_new_tokens):
        comparisons.append(comparison)
        output.show_comparison(view, comparison)
    if as_json:
        terminal.write_json(
            {
                **compared.description,
                "video": video,
                "sample_fps": rate,
                "frames": {key: all_frames, "delayed": kept_frames},
                "comparisons": [one.as_json() for one in comparisons],
                "statistics": statistics,
            }
        )
    else:
        output.show_statistics(view.console, statistics)
