"""``delayed-vlm basic``: the four stages of a delayed memory on a video, without ROS."""

from __future__ import annotations

from delayed_vlm_ros.cli import options, output, terminal
from delayed_vlm_ros.cli.progress import elapsed_time
from delayed_vlm_ros.memory import MemoryConfig


def basic(
    video: options.Video,
    model: options.Model = "auto",
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
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
    from delayed_vlm_ros.inference.local.models.checkpoint import resolve_checkpoint  # noqa: PLC0415
    from delayed_vlm_ros.replay.video_frames import sampling_rate  # noqa: PLC0415

    console = terminal.console(stderr=as_json)
    view = output.AnswerView(console, verbose)
    given = question or []
    questions = [*given, *options.DEFAULT_QUESTIONS[len(given) :]]
    options.check_questions(questions)
    with open_video(video) as source:
        resolve_checkpoint(model, device=device)
        # These imports load torch, which takes seconds; errors in the video and the model's name are reported first.
        from delayed_vlm_ros.cli.engine import load_engine  # noqa: PLC0415
        from delayed_vlm_ros.demo.basic import LATER_FRAMES, run_stages  # noqa: PLC0415

        rate = sample_fps or sampling_rate(source, 2 * LATER_FRAMES)
        engine = load_engine(view, model, device, dtype, star, stream)
        stages = []
        with elapsed_time(console) as progress:
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
        output.show_statistics(console, statistics)
