"""``delayed-vlm replay``: evaluate the memory on recordings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from delayed_vlm_ros.cli import options, terminal
from delayed_vlm_ros.cli.replay_watches import watch_table
from delayed_vlm_ros.errors import IncompleteError, QuestionsError
from delayed_vlm_ros.inference.remote.settings import RemoteSettings
from delayed_vlm_ros.memory import MemoryConfig
from delayed_vlm_ros.replay.methods import DELAYED, METHOD_KEYS, left_out_warnings, local_methods

if TYPE_CHECKING:
    from rich.progress import TaskID

    from delayed_vlm_ros.replay.job import ReplayJob
    from delayed_vlm_ros.replay.question_file import TimedQuestion
    from delayed_vlm_ros.replay.runner import Progress, ReplaySettings
    from delayed_vlm_ros.replay.watch_file import TimedWatch


def replay(
    recordings: Annotated[
        list[Path] | None, typer.Argument(help="Bags (folder or file), video files, or folders of images.")
    ] = None,
    topic: Annotated[str, typer.Option(help="Image topic of the bags; required if a bag has several.")] = "",
    questions: Annotated[
        Path | None, typer.Option(help="Question file.  [default: questions.yaml in each recording's folder]")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the report and the results.")] = Path("replay"),
    make_questions: Annotated[
        bool, typer.Option("--make-questions", help="Write an example question file to --questions and exit.")
    ] = False,
    model: options.Model = "auto",
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    api_key_env: options.ApiKeyEnv = "",
    frame_multiple: options.FrameMultiple = RemoteSettings.frame_multiple,
    methods: Annotated[
        str,
        typer.Option(
            help=f"Answering methods, separated by commas: {', '.join(METHOD_KEYS)}. A model on a server answers by "
            f"{DELAYED} only."
        ),
    ] = ",".join(METHOD_KEYS),
    star: Annotated[int, typer.Option(help="Size of Star memory, in frames.", min=0)] = MemoryConfig.star_memory_size,
    stream: Annotated[
        int, typer.Option(help="Size of Stream memory, in frames.", min=2)
    ] = MemoryConfig.stream_window_size,
    importance_threshold: Annotated[
        float, typer.Option(help="Score from which a frame enters Star memory on arrival.", min=0.0, max=1.0)
    ] = MemoryConfig.importance_threshold,
    sample_fps: Annotated[
        float, typer.Option(help="Frames to sample per second.", min=0.01, max=60.0)
    ] = MemoryConfig.sample_fps,
    max_pixels: Annotated[
        int, typer.Option(help="Maximum height × width of a frame, in pixels.", min=784)
    ] = MemoryConfig.max_pixels,
    eviction_chunk: Annotated[
        int, typer.Option(help="Frames evicted together from a full memory; -1: a third of the smaller memory.", min=-1)
    ] = -1,
    on_time_jump: Annotated[
        str, typer.Option(help="Effect of a backward time jump on the memory: continue or restart.")
    ] = "continue",
    max_new_tokens: Annotated[int, typer.Option(help="Maximum length of an answer, in tokens.", min=1)] = 128,
    image_rate: Annotated[
        float, typer.Option(help="Images per second of a folder whose file names are not times.", min=0.01)
    ] = 2.0,
    workers: Annotated[int, typer.Option(help="Number of processes; each loads its own model.", min=1)] = 1,
    ray: Annotated[str, typer.Option(help="Address of a Ray cluster to evaluate on, or 'local'.")] = "",
    fresh: Annotated[bool, typer.Option("--fresh", help="Evaluate again what has a complete result.")] = False,
) -> None:
    """Replay recordings: ask questions and check watches at their times, and compare with native inference."""
    from delayed_vlm_ros.replay import question_file, watch_file  # noqa: PLC0415  imports the packages of an optional extra
    from delayed_vlm_ros.replay.recordings.opening import check_exists  # noqa: PLC0415

    if make_questions:
        _make_questions(questions or Path(question_file.FILE_NAME))
        return
    if not recordings:
        raise typer.BadParameter("name a bag, a video file or a folder of images", param_hint="RECORDINGS")
    chosen = tuple(name.strip() for name in methods.split(",") if name.strip())
    _check_choices("--methods", chosen, METHOD_KEYS)
    _check_choices("--on-time-jump", (on_time_jump,), ("continue", "restart"))
    by_path = {recording.resolve(): recording for recording in recordings}
    for recording in by_path.values():
        check_exists(recording)
    asked = [question_file.find_questions(recording, questions) for recording in by_path.values()]
    watched = [watch_file.find_watches(recording, questions) for recording in by_path.values()]

    from delayed_vlm_ros.replay.runner import ReplaySettings  # noqa: PLC0415

    settings = ReplaySettings(
        model=model,
        device=device,
        dtype=dtype,
        remote=RemoteSettings(api_key_env=api_key_env, frame_multiple=frame_multiple),
        methods=chosen,
        memory=MemoryConfig(
            star_memory_size=star,
            stream_window_size=stream,
            importance_threshold=importance_threshold,
            eviction_chunk=None if eviction_chunk < 0 else eviction_chunk,
            sample_fps=sample_fps,
            max_pixels=max_pixels,
        ),
        on_time_jump=on_time_jump,
        max_new_tokens=max_new_tokens,
    )
    standing = _model_warnings(settings)
    _make_folder(out)
    jobs = _jobs(tuple(by_path), asked, watched, settings, out, topic, image_rate)
    _evaluate(jobs, out, workers=workers, ray=ray, fresh=fresh, standing=standing)


def _make_questions(file: Path) -> None:
    from delayed_vlm_ros.replay.question_file import template  # noqa: PLC0415

    if file.exists():
        raise QuestionsError(f"{file} already exists: name another file with --questions, or remove it")
    try:
        file.write_text(template(), encoding="utf-8")
    except OSError as error:
        raise QuestionsError(f"cannot write {file}: {error.strerror}") from error
    terminal.write(f"{file}: edit it, then run: delayed-vlm replay BAG --questions {file}")


def _check_choices(option: str, chosen: Sequence[str], choices: Sequence[str]) -> None:
    unknown = [name for name in chosen if name not in choices]
    if unknown or not chosen:
        listed = ", ".join(choices)
        raise typer.BadParameter(f"must be one of {listed}, got '{', '.join(unknown)}'", param_hint=option)


def _model_warnings(settings: ReplaySettings) -> tuple[str, ...]:
    """Return the limitations of the model that are known before it is loaded.

    Raises:
        DelayedVlmError: There is no such model on this machine, or its server's address or key is invalid.
    """
    from delayed_vlm_ros.inference.local.models.checkpoint import resolve_checkpoint  # noqa: PLC0415
    from delayed_vlm_ros.inference.remote.address import is_remote  # noqa: PLC0415
    from delayed_vlm_ros.inference.remote.model import remote_model  # noqa: PLC0415

    if not is_remote(settings.model):
        return resolve_checkpoint(settings.model, device=settings.device).warnings
    if DELAYED not in settings.methods:
        raise typer.BadParameter(f"must include {DELAYED} with a model on a server", param_hint="--methods")
    left_out = left_out_warnings(local_methods(settings.methods))
    return (*remote_model(settings.model, settings.remote).warnings, *left_out)


def _jobs(
    paths: Sequence[Path],
    questions: Sequence[tuple[TimedQuestion, ...]],
    watches: Sequence[tuple[TimedWatch, ...]],
    settings: ReplaySettings,
    out: Path,
    topic: str,
    image_rate: float,
) -> list[ReplayJob]:
    """Return a job for each recording, with a result folder of its own."""
    from delayed_vlm_ros.replay.job import ReplayJob  # noqa: PLC0415

    jobs: list[ReplayJob] = []
    for path, asked, watched in zip(paths, questions, watches, strict=True):
        name = path.name if path.is_dir() else path.stem
        taken = {Path(job.folder).name for job in jobs}
        candidates = (name, *(f"{name}~{number}" for number in range(2, len(jobs) + 2)))
        folder = out.resolve() / next(candidate for candidate in candidates if candidate not in taken)
        jobs.append(ReplayJob(str(path), str(folder), asked, settings, topic, image_rate, watched))
    return jobs


def _evaluate(
    jobs: Sequence[ReplayJob], out: Path, *, workers: int, ray: str, fresh: bool, standing: Sequence[str]
) -> None:
    from delayed_vlm_ros.replay.job import failed_result, finished_result  # noqa: PLC0415

    # A missing package of the report or of Ray must fail before an hour of evaluation, not after it.
    import_module("delayed_vlm_ros.replay.report.page")
    if ray:
        import_module("ray")

    console = terminal.console()
    for warning in standing:  # once, and before the first answer
        _print(console, f"[yellow]{terminal.literal(warning)}[/]")
    results: dict[str, Mapping[str, Any]] = {}
    for job in jobs:
        finished = None if fresh else finished_result(job)
        if finished is not None:
            results[job.folder] = finished
            _print(console, f"{job.name}: already evaluated (--fresh evaluates it again)")
            _show_result(console, job, finished, standing)
    pending = [job for job in jobs if job.folder not in results]
    try:
        for job, result in _run(pending, console, workers=workers, ray=ray):
            results[job.folder] = result
            _show_result(console, job, result, standing)
    finally:
        # The report also covers an interrupted evaluation.
        missing = {
            job.folder: failed_result(job, "not evaluated: interrupted") for job in jobs if job.folder not in results
        }
        if missing:
            done = f"{len(results)} of {len(jobs)} recordings evaluated"
            _print(console, f"[red]interrupted: {done}; run the command again for the rest[/]")
        _write_report(console, [{**results, **missing}[job.folder] for job in jobs], out)
    incomplete = [job.name for job in jobs if not results[job.folder]["complete"]]
    if incomplete:
        raise IncompleteError(f"incomplete: {', '.join(incomplete)}; the report gives the reasons")


def _run(
    jobs: Sequence[ReplayJob], console: Console, *, workers: int, ray: str
) -> Iterator[tuple[ReplayJob, Mapping[str, Any]]]:
    from delayed_vlm_ros.replay import executor  # noqa: PLC0415
    from delayed_vlm_ros.replay.job import image_count  # noqa: PLC0415
    from delayed_vlm_ros.replay.progress import ReplayProgress  # noqa: PLC0415

    if not jobs:
        return
    with ReplayProgress(console) as bars:
        if ray or workers > 1:
            task = bars.add("recordings", len(jobs))
            finished = executor.run_on_ray(jobs, ray, workers) if ray else executor.run_in_processes(jobs, workers)
            for number, job_result in enumerate(finished, start=1):
                bars.update(task, number)
                yield job_result
            return
        tasks: dict[str, TaskID] = {}

        def show_progress(job: ReplayJob, progress: Progress) -> None:
            if job.folder not in tasks:
                tasks[job.folder] = bars.add(job.name, image_count(job), len(job.questions))
            bars.update(tasks[job.folder], progress.images, progress.asked)

        for job, result in executor.run_sequentially(jobs, show_progress):
            if job.folder in tasks:
                bars.remove(tasks[job.folder])
            yield job, result


def _show_result(console: Console, job: ReplayJob, result: Mapping[str, Any], standing: Sequence[str]) -> None:
    if result["error"]:
        _print(console, f"[red]{terminal.literal(job.name)}:[/] {terminal.literal(result['error'])}")
        return
    recording = result["recording"]
    _print(
        console,
        f"[bold]{terminal.literal(job.name)}[/]: {recording['images']} images in {recording['duration_sec']:.0f} s, "
        f"{recording['sampled']} sampled, {_asked(result)}, evaluated in {result['seconds']:.1f} s",
    )
    for warning in (one for one in result["warnings"] if one not in standing):
        _print(console, f"  [yellow]{terminal.literal(warning)}[/]")
    for method, summary in result["summary"].items():
        first = summary["first_token_sec"]
        latency = "" if first is None else f"first token {first:.3f} s"
        if summary["bytes_sent"]:
            latency = f"{latency}, {summary['bytes_sent'] / 1e6:.2f} MB sent"
        _print(console, f"  {method:18} {_exact(summary):44} {latency}".rstrip())
        if summary["expected"] != summary["scored"] or summary["scored_in_gap"]:
            in_gap = summary["scored_in_gap"]
            gaps = f"; {in_gap} of them fall into gaps of the recording" if in_gap else ""
            _print(console, f"  {'':18} {summary['scored']} of {summary['expected']} questions scored{gaps}")
    if result["watches"]:
        console.print(watch_table(result))


def _asked(result: Mapping[str, Any]) -> str:
    questions, watches = len(result["questions"]), len(result["watches"])
    parts = [f"{questions} questions"] if questions or not watches else []
    return ", ".join([*parts, *([f"{watches} watches"] if watches else [])])


def _exact(summary: Mapping[str, Any]) -> str:
    if not summary["scored"]:
        return ""
    low, high = summary["exact_match_interval"]
    return f"{summary['exact_match']:.0%} exact of {summary['scored']} (95 % interval {low:.0%} to {high:.0%})"


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise IncompleteError(
            f"cannot create the folder {out} ({error.strerror}): name another one with --out"
        ) from error


def _write_report(console: Console, results: Sequence[Mapping[str, Any]], out: Path) -> None:
    from delayed_vlm_ros.replay.report.page import write_report  # noqa: PLC0415

    try:
        page = write_report(results, out)
    except OSError as error:
        raise IncompleteError(
            f"cannot write the report to {out} ({error.strerror}): free disk space and run the command again; the "
            "results are kept"
        ) from error
    _print(console, f"report: {page}")


def _print(console: Console, text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)
