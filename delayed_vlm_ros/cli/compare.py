"""``delayed-vlm compare``: native video inference and the delayed memory on the same video, without ROS."""

from __future__ import annotations

from delayed_vlm_ros.cli import options, output, terminal
from delayed_vlm_ros.cli.progress import elapsed_time
from delayed_vlm_ros.inference.local.models.device import dtype_name
from delayed_vlm_ros.memory import MemoryConfig


def compare(
    video: options.Video,
    model: options.Model = "auto",
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    question: options.Questions = None,
    sample_fps: options.SampleFps = None,
    star: options.Star = MemoryConfig.star_memory_size,
    stream: options.Stream = MemoryConfig.stream_window_size,
    max_new_tokens: options.MaxNewTokens = 128,
    as_json: options.Json = False,
) -> None:
    """Compare native inference on all frames with the delayed memory: answers, times, similarity."""
    # Keep --help fast.
    from delayed_vlm_ros.images.video import open_video  # noqa: PLC0415
    from delayed_vlm_ros.inference.local.models.checkpoint import resolve_checkpoint  # noqa: PLC0415
    from delayed_vlm_ros.replay.video_frames import sampling_rate  # noqa: PLC0415

    console = terminal.console(stderr=as_json)
    view = output.AnswerView(console)
    options.check_questions(question or ())
    with open_video(video) as source:
        resolve_checkpoint(model, device=device)
        # These imports load torch, which takes seconds; errors in the video and the model's name are reported first.
        from delayed_vlm_ros.cli.engine import load_engine  # noqa: PLC0415
        from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine  # noqa: PLC0415
        from delayed_vlm_ros.replay.compare import compare_answers, keep_everything, stream_in  # noqa: PLC0415

        rate = sample_fps or sampling_rate(source, 2)
        # Native inference answers about any images, so the delayed memory does so, too.
        engine = load_engine(view, model, device, dtype, star, stream, familiar_images=None)
        everything = DelayedBatchInferenceEngine(engine.model, engine.processor, frame_manager=keep_everything())
        with elapsed_time(console) as progress:
            total = source.duration_sec and int(source.duration_sec * rate)
            frames = progress.track(source.frames(rate=rate), total=total, description="streaming in")
            stream_in(engine, everything, frames)
    statistics = engine.frame_manager.get_statistics()
    all_frames = everything.frame_manager.statistics().unique_frames
    kept_frames = int(statistics["unique_frames"])
    output.show_frame_counts(console, kept_frames, all_frames)
    comparisons = []
    for comparison in compare_answers(engine, everything, question or options.DEFAULT_QUESTIONS, max_new_tokens):
        comparisons.append(comparison)
        output.show_comparison(view, comparison)
    if as_json:
        terminal.write_json(
            {
                "model": str(engine.model.name_or_path),
                "device": str(engine.model.device),
                "dtype": dtype_name(engine.model.dtype),
                "video": video,
                "sample_fps": rate,
                "frames": {"native": all_frames, "delayed": kept_frames},
                "comparisons": [one.as_json() for one in comparisons],
                "statistics": statistics,
            }
        )
    else:
        output.show_statistics(console, statistics)
