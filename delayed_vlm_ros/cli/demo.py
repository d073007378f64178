"""``delayed-vlm demo``: run camera, memory node and questions through ROS 2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from delayed_vlm_ros.cli import options, output, terminal
from delayed_vlm_ros.cli.progress import elapsed_time
from delayed_vlm_ros.errors import DelayedVlmError

if TYPE_CHECKING:
    from delayed_vlm_ros.msg import MemoryStats, NodeStats

_VIDEO_FRAMES = 16


def demo(
    video: Annotated[
        str, typer.Option(help="Video file, camera device or stream (rtsp://…) instead of the synthetic camera.")
    ] = "",
    model: options.Model = "auto",
    question: options.Questions = None,
    frames: Annotated[
        int | None,
        typer.Option(
            help="Frames to add before the first question.",
            min=1,
            show_default="64 of the synthetic story, 16 of a video",
        ),
    ] = None,
    verbose: options.Verbose = False,
    as_json: options.Json = False,
) -> None:
    """Run camera, memory and questions through ROS 2, each node in its own process."""
    # Requires ROS, OpenCV and torch.
    from delayed_vlm_ros.demo.run import STORY_FRAMES, DemoListener, DemoOptions, run_demo  # noqa: PLC0415
    from delayed_vlm_ros.images.video import open_video  # noqa: PLC0415
    from delayed_vlm_ros.inference.local.models.checkpoint import DEMO_MODEL, resolve_checkpoint  # noqa: PLC0415
    from delayed_vlm_ros.scenes.story import STORY_QUESTIONS  # noqa: PLC0415

    console = terminal.console(stderr=as_json)
    story = {} if video else {one.text: one.answer for one in STORY_QUESTIONS}
    questions = tuple(question or story or options.DEFAULT_QUESTIONS)
    frame_count = frames or (_VIDEO_FRAMES if video else STORY_FRAMES)
    # Report a bad question, model or video before the nodes start.
    options.check_questions(questions)
    checkpoint = resolve_checkpoint(model)
    if video:
        open_video(video).close()
    # Other models may phrase correct answers differently, and an early question precedes the end of the story.
    expected = story if checkpoint.name == DEMO_MODEL and frame_count >= STORY_FRAMES else {}
    with elapsed_time(console) as progress:
        view = output.AnswerView(progress.console, verbose)
        task = progress.add_task("memory", total=frame_count, visible=False)

        def show_statistics(statistics: MemoryStats, node: NodeStats) -> None:
            added = min(frame_count, statistics.total_frames_added)
            progress.update(task, visible=True, completed=added, description=output.memory_line(statistics, node))

        listener = DemoListener(
            on_step=lambda text: progress.console.print(f"[bold]{text}[/]"),
            on_statistics=show_statistics,
            on_warnings=view.show_standing,
            on_response=lambda asked, response: view.show_response(asked, response, expected.get(asked)),
        )
        run = run_demo(DemoOptions(questions=questions, video=video, model=model, frames=frame_count), listener)
    if as_json:
        terminal.write_json(output.demo_json(run))
    else:
        output.show_diagnostics(console, run.diagnostics)
        console.print("nodes ended: " + ", ".join(f"{node} {code}" for node, code in sorted(run.exit_codes.items())))
    if any(run.exit_codes.values()):
        raise DelayedVlmError(f"a node failed at shutdown: exit codes {run.exit_codes}")
