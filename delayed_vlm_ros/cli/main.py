"""The ``delayed-vlm`` command. Thin: each command gathers its parts, runs them, and shows what they say.

The parts are imported inside the commands, so that ``--help`` does not wait for torch, and what needs no ROS works
without.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from delayed_vlm_ros import __version__
from delayed_vlm_ros.cli import ask, bench, replay, web
from delayed_vlm_ros.cli.sweep import sweep
from delayed_vlm_ros.dependencies import dependency_error
from delayed_vlm_ros.errors import DelayedVlmError

QUESTIONS = ("What do you see?", "What happened?", "What appeared last?")
_VIDEO_FRAMES = 16

app = typer.Typer(
    name="delayed-vlm",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.command()(ask.ask)
app.command()(ask.status)
app.command()(web.web)
app.command()(replay.replay)
app.command()(replay.record_scene)
app.command()(sweep)
app.add_typer(bench.app, name="bench")

_Model = Annotated[
    str, typer.Option(help="A checkpoint's folder, a name on the model hub, 'demo', or 'auto' (the best that is here).")
]
_Device = Annotated[str, typer.Option(help="Where the model runs: auto, cpu, cuda, cuda:1.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
_Question = Annotated[list[str] | None, typer.Option("--question", "-q", help="A question; may be given repeatedly.")]
_SampleFps = Annotated[
    float | None,
    typer.Option(help="Frames a second taken from the video.  [default: 2, more for a short video]", min=0.01),
]
_Star = Annotated[int, typer.Option(help="Key frames over the whole past, in frames.", min=0)]
_Stream = Annotated[int, typer.Option(help="Newest frames, in frames.", min=2)]
_Tokens = Annotated[int, typer.Option(help="Length limit of an answer, in tokens.", min=1)]
_Video = Annotated[str, typer.Option(help="A video file.")]


def _show_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"delayed-vlm {__version__}\n")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Scene memory for camera robots: keep a little of everything seen, ask about it when you want to know."""


@app.command()
def demo(
    video: Annotated[str, typer.Option(help="A video file or camera device in place of the synthetic camera.")] = "",
    model: _Model = "auto",
    question: _Question = None,
    frames: Annotated[
        int | None,
        typer.Option(
            help="Frames taken in before the first question.  [default: the synthetic story's 64; 16 of a video]", min=1
        ),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Camera → memory → questions, the whole way through ROS 2, in processes of their own."""
    from delayed_vlm_ros.cli import output  # noqa: PLC0415
    from delayed_vlm_ros.demo.run import STORY_FRAMES, DemoListener, DemoOptions, run_demo  # noqa: PLC0415
    from delayed_vlm_ros.images.video import open_video  # noqa: PLC0415
    from delayed_vlm_ros.inference.local.models.checkpoint import DEMO_MODEL, resolve_checkpoint  # noqa: PLC0415
    from delayed_vlm_ros.scenes.story import STORY_QUESTIONS  # noqa: PLC0415

    console = Console(stderr=as_json)
    story = {} if video else {asked.text: asked.answer for asked in STORY_QUESTIONS}
    questions = question or tuple(story) or QUESTIONS
    wanted = frames or (_VIDEO_FRAMES if video else STORY_FRAMES)
    _check_questions(questions)
    checkpoint = resolve_checkpoint(model)  # what is wrong with it is said now, not when the nodes have started
    # Other models may say the same in other words, and who asks early has not seen the story's end.
    truths = story if checkpoint.name == DEMO_MODEL and wanted >= STORY_FRAMES else {}
    if video:
        open_video(video).close()
    options = DemoOptions(questions=tuple(questions), video=video, model=model, frames=wanted)
    with _progress(console) as progress:
        filling = progress.add_task("memory", total=wanted, visible=False)

        def show_filling(statistics: Any) -> None:
            taken = min(wanted, statistics.total_frames_added)
            progress.update(filling, visible=True, completed=taken, description=output.filling(statistics))

        listener = DemoListener(
            step=lambda text: progress.console.print(f"[bold]{text}[/]"),
            filling=show_filling,
            answered=lambda asked, response: output.show_response(progress.console, asked, response, truths.get(asked)),
        )
        run = run_demo(options, listener)
    if as_json:
        _print_json(output.demo_json(run))
    else:
        output.show_diagnostics(console, run.diagnostics)
        console.print("nodes ended: " + ", ".join(f"{node} {code}" for node, code in sorted(run.exit_codes.items())))
    if any(run.exit_codes.values()):
        raise DelayedVlmError(f"a node did not end in order: exit codes {run.exit_codes}")


@app.command()
def basic(
    video: _Video,
    model: _Model = "auto",
    device: _Device = "auto",
    question: _Question = None,
    sample_fps: _SampleFps = None,
    star: _Star = 20,
    stream: _Stream = 20,
    max_new_tokens: _Tokens = 128,
    as_json: _Json = False,
) -> None:
    """Four stages on a video: stream in, ask, ask again from cache, add ten frames and ask."""
    from delayed_vlm_ros.cli import output  # noqa: PLC0415
    from delayed_vlm_ros.images.video import open_video  # noqa: PLC0415
    from delayed_vlm_ros.replay.video_frames import sampling_rate  # noqa: PLC0415

    console = Console(stderr=as_json)
    questions = [*(question or []), *QUESTIONS[len(question or []) :]]
    _check_questions(questions)
    with open_video(video) as source:
        from delayed_vlm_ros.demo.basic import LATER_FRAMES, basic_course  # noqa: PLC0415  after the video's check

        rate = sample_fps or sampling_rate(source, 2 * LATER_FRAMES)
        engine = _engine(console, model, device, star, stream)
        stages = []
        with _progress(console) as progress:
            total = source.duration_sec and int(source.duration_sec * rate)
            frames = progress.track(source.frames(rate=rate), total=total, description="streaming in")
            for number, stage in enumerate(basic_course(engine, frames, questions, max_new_tokens), start=1):
                stages.append(stage)
                output.show_stage(progress.console, number, stage)
    statistics = engine.frame_manager.get_statistics()
    if as_json:
        asks = [stage.ask.as_json() for stage in stages if stage.ask is not None]
        _print_json({"stages": [stage.as_json() for stage in stages], "asks": asks, "statistics": statistics})
    else:
        output.show_statistics(console, statistics)


@app.command()
def compare(
    video: _Video,
    model: _Model = "auto",
    device: _Device = "auto",
    question: _Question = None,
    sample_fps: _SampleFps = None,
    star: _Star = 20,
    stream: _Stream = 20,
    max_new_tokens: _Tokens = 128,
    as_json: _Json = False,
) -> None:
    """Native video inference on all frames beside the delayed memory: answers, times, length ratio, similarity."""
    from delayed_vlm_ros.cli import output  # noqa: PLC0415
    from delayed_vlm_ros.images.video import open_video  # noqa: PLC0415
    from delayed_vlm_ros.replay.video_frames import sampling_rate  # noqa: PLC0415

    console = Console(stderr=as_json)
    _check_questions(question or ())
    with open_video(video) as source:
        from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine  # noqa: PLC0415
        from delayed_vlm_ros.replay.compare import compare_answers, keep_everything, stream_in  # noqa: PLC0415

        rate = sample_fps or sampling_rate(source, 2)
        engine = _engine(console, model, device, star, stream)
        everything = DelayedBatchInferenceEngine(engine.model, engine.processor, frame_manager=keep_everything())
        with _progress(console) as progress:
            total = source.duration_sec and int(source.duration_sec * rate)
            frames = progress.track(source.frames(rate=rate), total=total, description="streaming in")
            stream_in(engine, everything, frames)
    statistics = engine.frame_manager.get_statistics()
    all_frames = everything.frame_manager.statistics().unique_frames
    output.show_kept(console, statistics["unique_frames"], all_frames)
    comparisons = []
    for comparison in compare_answers(engine, everything, question or QUESTIONS, max_new_tokens):
        comparisons.append(comparison)
        output.show_comparison(console, comparison)
    if as_json:
        _print_json(
            {
                "model": str(engine.model.name_or_path),
                "device": str(engine.model.device),
                "video": video,
                "sample_fps": rate,
                "frames": {"native": all_frames, "delayed": statistics["unique_frames"]},
                "comparisons": [one.as_json() for one in comparisons],
                "statistics": statistics,
            }
        )
    else:
        output.show_statistics(console, statistics)


def _engine(console: Console, model: str, device: str, star: int, stream: int) -> Any:
    from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine  # noqa: PLC0415

    with console.status("loading the model"):
        engine = DelayedBatchInferenceEngine.from_pretrained(
            model, device=device, star_memory_size=star, stream_window_size=stream
        )
    console.print(f"model in {engine.model.name_or_path} on {engine.model.device}", highlight=False, soft_wrap=True)
    return engine


def _check_questions(questions: Iterable[str]) -> None:
    from delayed_vlm_ros.inference.request import AskRequest, check_request  # noqa: PLC0415

    for question in questions:
        check_request(AskRequest(question))


@contextmanager
def _progress(console: Console) -> Iterator[Progress]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield progress


def _print_json(content: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(content, ensure_ascii=False, indent=2) + "\n")


def main() -> None:
    """Run the command line; an error of ours is one sentence and exit code 1."""
    try:
        app()
    except DelayedVlmError as error:
        _fail(str(error))
    except ImportError as error:
        explained = dependency_error(error)
        if explained is None:
            raise
        _fail(str(explained))


def _fail(message: str) -> None:
    Console(stderr=True).print(f"[bold red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
