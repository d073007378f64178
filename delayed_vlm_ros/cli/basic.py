"""``delayed-vlm basic``: the four stages of a delayed memory on a video, without ROS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from delayed_vlm_ros.cli import engine as engines
from delayed_vlm_ros.cli import options, output, terminal
from delayed_vlm_ros.cli.progress import elapsed_time
from delayed_vlm_ros.inference.remote.address import is_remote
from delayed_vlm_ros.inference.remote.settings import RemoteSettings
from delayed_vlm_ros.memory import MemoryConfig

if TYPE_CHECKING:
    from delayed_vlm_ros.images.video import VideoSource
    from delayed_vlm_ros.inference.engine import SceneEngine


def basic(
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
    verbose: options.Verbose = False,
    as_json: options.Json = False,
) -> None:
    """Run four stages on a video: stream in, ask, ask again from cache, add ten frames and ask."""
    # Keep --help fast.
    from delayed_vlm_ros.images.video import open_video  # noqa: PLC0415

    view = output.AnswerView(terminal.console(stderr=as_json), verbose)
    given = question or []
    questions = [*given, *options.DEFAULT_QUESTIONS[len(given) :]]
    options.check_questions(questions)
    remote = RemoteSettings(api_key_env=api_key_env, frame_multiple=frame_multiple)
    with open_video(video) as source:
        # Errors in the video and the model's name are reported before torch is loaded, which takes seconds.
        engines.check_model(model, device, remote)
        if is_remote(model):
            with engines.connected_engine(view, model, remote, star, stream) as server:
                _run(view, server, source, sample_fps, questions, max_new_tokens, as_json=as_json)
        else:
            engine = engines.load_engine(view, model, device, dtype, star, stream)
            _run(view, engine, source, sample_fps, questions, max_new_tokens, as_json=as_json)


def _run(
    view: output.AnswerView,
    engine: SceneEngine,
    source: VideoSource,
    sample_fps: float | None,
    questions: Sequence[str],
    max_new_tokens: int,
    *,
    as_json: bool,
) -> None:
    from delayed_vlm_ros.demo.basic import LATER_FRAMES, run_stages  # noqa: PLC0415  keep --help fast
    from delayed_vlm_ros.replay.video_frames import sampling_rate  # noqa: PLC0415

    rate = sample_fps or sampling_rate(source, 2 * LATER_FRAMES)
    stages = []
    with elapsed_time(view.console) as progress:
        total = source.duration_sec and int(source.duration_sec * rate)
        frames = progress.track(source.frames(rate=rate), total=total, description="streaming in")
        for number, stage in enumerate(run_stages(engine, frames, questions, max_new_tokens), start=1):
            stages.append(stage)
            output.show_stage(view, number, stage)
    statistics = engine.frame_manager.get_statistics()
    if as_json:
        asks = [stage.answer.as_json() for stage in stages if stage.answer is not None]
        terminal.write_json({"stages": [stage.as_json() for stage in stages], "asks": asks, "statistics": statistics})
    else:
        output.show_statistics(view.console, statistics)
