"""``delayed-vlm replay`` and ``delayed-vlm record-scene``: evaluate on recordings, and make one to begin with."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from delayed_vlm_ros.errors import IncompleteError, QuestionsError
from delayed_vlm_ros.memory import MemoryConfig

if TYPE_CHECKING:
    from delayed_vlm_ros.replay.job import ReplayJob
    from delayed_vlm_ros.replay.question_file import TimedQuestion
    from delayed_vlm_ros.replay.runner import ReplaySettings

_METHODS = "delayed,delayed_uncached,native_kept,native_all,newest_4"


def replay(
    recordings: Annotated[
        list[Path] | None, typer.Argument(help="Bags (folder, .mcap or .db3), video files, or folders of images.")
    ] = None,
    topic: Annotated[str, typer.Option(help="The images' topic in bags; needed where there are several.")] = "",
    questions: Annotated[
        Path | None, typer.Option(help="The file of questions.  [default: questions.yaml in each bag's folder]")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the report and the results.")] = Path("replay"),
    make_questions: Annotated[
        bool, typer.Option("--make-questions", help="Write a file of questions with comments to --questions, and end.")
    ] = False,
    model: Annotated[
        str, typer.Option(help="A checkpoint's folder, a name on the model hub, 'demo', or 'auto'.")
    ] = "auto",
    device: Annotated[str, typer.Option(help="Where the model runs: auto, cpu, cuda, cuda:1.")] = "auto",
    methods: Annotated[
        str, typer.Option(help=f"Ways of answering, with commas between: {_METHODS.replace(',', ', ')}.")
    ] = _METHODS,
    star: Annotated[int, typer.Option(help="Key frames over the whole past, in frames.", min=0)] = 20,
    stream: Annotated[int, typer.Option(help="Newest frames, in frames.", min=2)] = 20,
    importance_threshold: Annotated[
        float, typer.Option(help="Importance from which a frame is a key frame.", min=0.0, max=1.0)
    ] = 0.6,
    sample_fps: Annotated[float, typer.Option(help="Frames remembered per second.", min=0.01, max=60.0)] = 2.0,
    max_pixels: Annotated[int, typer.Option(help="Largest height × width of a remembered frame.", min=784)] = 200_704,
    eviction_chunk: Annotated[
        int, typer.Option(help="Frames that leave a full memory at once; -1: a third of the smaller memory.", min=-1)
    ] = -1,
    on_time_jump: Annotated[
        str, typer.Option(help="When time goes back: 'continue' the memory, or 'restart' it.")
    ] = "continue",
    max_new_tokens: Annotated[int, typer.Option(help="Length limit of an answer, in tokens.", min=1)] = 128,
    image_rate: Annotated[
        float, typer.Option(help="Images per second of a folder whose files are not named by their times.", min=0.01)
    ] = 2.0,
    workers: Annotated[
        int, typer.Option(help="Processes, each with the model; recordings are spread over them.", min=1)
    ] = 1,
    ray: Annotated[str, typer.Option(help="Spread recordings over a Ray cluster: its address, or 'local'.")] = "",
    fresh: Annotated[bool, typer.Option("--fresh", help="Make results again that are there already.")] = False,
) -> None:
    """Replay recordings through the memory, ask each question at its time, compare with native inference."""
    from delayed_vlm_ros.replay import question_file  # noqa: PLC0415

    if make_questions:
        _make_questions(questions or Path(question_file.FILE_NAME))
        return
    if not recordings:
        raise typer.BadParameter("name a bag, a video file or a folder of images", param_hint="RECORDINGS")
    different = {recording.resolve(): recording for recording in recordings}
    asked = [_questions_of(recording, questions) for recording in different.values()]  # before seconds go into imports

    from delayed_vlm_ros.inference.local.models.checkpoint import resolve_checkpoint  # noqa: PLC0415
    from delayed_vlm_ros.replay.runner import CONTINUE, RESTART, ReplaySettings  # noqa: PLC0415

    chosen = tuple(name.strip() for name in methods.split(",") if name.strip())
    _check_choice("--methods", chosen, _METHODS.split(","))
    _check_choice("--on-time-jump", (on_time_jump,), (CONTINUE, RESTART))
    settings = ReplaySettings(
        model=model,
        device=device,
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
    resolve_checkpoint(model, device=device)
    _make_folder(out)
    jobs = _jobs(tuple(different), asked, settings, out, topic, image_rate)
    _evaluate(jobs, out, workers=workers, ray=ray, fresh=fresh)


def record_scene(
    seed: Annotated[int, typer.Option(help="Which room; held-out ones begin at 3000000.", min=0)],
    out: Annotated[Path, typer.Option(help="The bag's folder; it must not be there yet.")],
    seconds: Annotated[float, typer.Option(help="How long.", min=1.0)] = 60.0,
    rate: Annotated[float, typer.Option(help="Images per second.", min=0.1, max=240.0)] = 10.0,
    width: Annotated[int, typer.Option(help="Columns of an image.", min=16)] = 320,
    height: Annotated[int, typer.Option(help="Rows of an image.", min=16)] = 240,
    storage: Annotated[str, typer.Option(help="mcap or sqlite3.")] = "mcap",
    compressed: Annotated[bool, typer.Option("--compressed", help="JPEG images in place of raw ones.")] = False,
    questions: Annotated[int, typer.Option(help="How many questions with right answers.", min=1)] = 12,
) -> None:
    """Record a synthetic scene as a bag, with questions about it and their right answers in its questions.yaml."""
    from delayed_vlm_ros.demo.record_scene import STORAGES, SceneRecording  # noqa: PLC0415
    from delayed_vlm_ros.demo.record_scene import record_scene as record  # noqa: PLC0415
    from delayed_vlm_ros.replay.progress import ReplayProgress  # noqa: PLC0415

    _check_choice("--storage", (storage,), tuple(STORAGES))
    wanted = SceneRecording(seed, seconds, rate, height, width, storage, compressed, questions)
    console = Console()
    with ReplayProgress(console) as progress:
        task = progress.begin(out.name, max(1, round(seconds * rate)))
        count = record(out, wanted, lambda written: progress.update(task, written, 0))
    console.print(f"{out}: {count} images, and questions in questions.yaml", highlight=False, soft_wrap=True)
    console.print(f"Now: delayed-vlm replay {out}", highlight=False, soft_wrap=True)


def _make_questions(file: Path) -> None:
    from delayed_vlm_ros.replay.question_file import template  # noqa: PLC0415

    if file.exists():
        raise QuestionsError(f"{file} is there already: name another file with --questions, or remove it")
    try:
        file.write_text(template(), encoding="utf-8")
    except OSError as error:
        raise QuestionsError(f"{file} cannot be written ({error.strerror})") from error
    sys.stdout.write(f"{file}: edit it, then run: delayed-vlm replay BAG --questions {file}\n")


def _questions_of(recording: Path, questions: Path | None) -> tuple[TimedQuestion, ...]:
    """The questions to a recording: those of the file given, else of its own."""
    from delayed_vlm_ros.replay.question_file import FILE_NAME, read_questions  # noqa: PLC0415
    from delayed_vlm_ros.replay.recordings.opening import check_exists  # noqa: PLC0415

    check_exists(recording)
    if questions is not None:
        return read_questions(questions)
    own = (recording if recording.is_dir() else recording.parent) / FILE_NAME
    if not own.is_file():
        raise QuestionsError(
            f"there are no questions to {recording} (no {own}): name a file with --questions; "
            "'delayed-vlm replay --make-questions' writes one to begin with"
        )
    return read_questions(own)


def _check_choice(option: str, chosen: Sequence[str], choices: Sequence[str]) -> None:
    unknown = [name for name in chosen if name not in choices]
    if unknown or not chosen:
        told = (
            f"'{', '.join(unknown)}' is none of {', '.join(choices)}"
            if unknown
            else f"name some of {', '.join(choices)}"
        )
        raise typer.BadParameter(told, param_hint=option)


def _jobs(
    recordings: Sequence[Path],
    asked: Sequence[tuple[TimedQuestion, ...]],
    settings: ReplaySettings,
    out: Path,
    topic: str,
    image_rate: float,
) -> list[ReplayJob]:
    """A job for each recording, each with a folder of its own."""
    from delayed_vlm_ros.replay.job import ReplayJob  # noqa: PLC0415

    jobs: list[ReplayJob] = []
    for path, questions in zip(recordings, asked, strict=True):
        path = path.resolve()  # noqa: PLW2901
        name = path.name if path.is_dir() else path.stem
        taken = {Path(job.folder).name for job in jobs}
        names = (name, *(f"{name}~{number}" for number in range(2, len(jobs) + 2)))
        folder = out.resolve() / next(one for one in names if one not in taken)
        jobs.append(ReplayJob(str(path), str(folder), questions, settings, topic, image_rate))
    return jobs


def _evaluate(jobs: Sequence[ReplayJob], out: Path, *, workers: int, ray: str, fresh: bool) -> None:
    # Packages that only the end needs, or only Ray: when one is missing, an hour of evaluation must not be lost first.
    from delayed_vlm_ros.replay.job import failed_result, finished_result  # noqa: PLC0415
    from delayed_vlm_ros.replay.report import page  # noqa: F401, PLC0415

    if ray:
        import_module("ray")

    console = Console()
    results: dict[str, Mapping[str, Any]] = {}
    for job in jobs:
        found = None if fresh else finished_result(job)
        if found is not None:
            results[job.folder] = found
            console.print(f"{job.name}: evaluated before, not again (--fresh does)", highlight=False, soft_wrap=True)
            _tell(console, job, found)
    left = [job for job in jobs if job.folder not in results]
    try:
        for job, result in _finished(left, console, workers=workers, ray=ray):
            results[job.folder] = result
            _tell(console, job, result)
    finally:
        # Whatever ends it: what is done can be looked at.
        missing = [job for job in jobs if job.folder not in results]
        if missing:
            told = f"interrupted: {len(results)} of {len(jobs)} recordings evaluated; run it again for the rest"
            console.print(f"[red]{told}[/]", highlight=False, soft_wrap=True)
        lacking = {job.folder: failed_result(job, "not evaluated: interrupted before") for job in missing}
        _write_report(console, [{**results, **lacking}[job.folder] for job in jobs], out)
    incomplete = [job.name for job in jobs if not results[job.folder]["complete"]]
    if incomplete:
        raise IncompleteError(f"not complete: {', '.join(incomplete)}; the report says why")


def _finished(
    jobs: Sequence[ReplayJob], console: Console, *, workers: int, ray: str
) -> Iterator[tuple[ReplayJob, Mapping[str, Any]]]:
    from delayed_vlm_ros.replay import executor  # noqa: PLC0415
    from delayed_vlm_ros.replay.job import image_count  # noqa: PLC0415
    from delayed_vlm_ros.replay.progress import ReplayProgress  # noqa: PLC0415

    if not jobs:
        return
    with ReplayProgress(console) as progress:
        if ray or workers > 1:
            whole = progress.begin("recordings", len(jobs))
            spread = executor.on_ray(jobs, ray, workers) if ray else executor.in_processes(jobs, workers)
            for number, finished in enumerate(spread, start=1):
                progress.update(whole, number, 0)
                yield finished
            return
        tasks = {}

        def told(job: ReplayJob, now: Any) -> None:
            if job.folder not in tasks:
                tasks[job.folder] = progress.begin(job.name, image_count(job), len(job.questions))
            progress.update(tasks[job.folder], now.images, now.asked)

        for job, result in executor.one_by_one(jobs, told):
            if job.folder in tasks:
                progress.end(tasks[job.folder])
            yield job, result


def _tell(console: Console, job: ReplayJob, result: Mapping[str, Any]) -> None:
    """A recording's result in a few lines."""
    if result["failed"]:
        console.print(f"[red]{escape(job.name)}:[/] {escape(result['problems'][0])}", highlight=False, soft_wrap=True)
        return
    recording = result["recording"]
    console.print(
        f"[bold]{escape(job.name)}[/]: {recording['images']} images in {recording['duration_sec']:.0f} s, "
        f"{recording['sampled']} sampled, {len(result['questions'])} questions, "
        f"{result['seconds']:.1f} s",
        highlight=False,
        soft_wrap=True,
    )
    for problem in result["problems"]:
        console.print(f"  [yellow]{escape(problem)}[/]", highlight=False, soft_wrap=True)
    for method, one in result["summary"].items():
        right = "" if one["exact_match"] is None else f"{one['exact_match']:.0%} right of {one['judged']}"
        first = "" if one["first_token_sec"] is None else f"first token {one['first_token_sec']:.3f} s"
        console.print(f"  {method:18} {right:18} {first}", highlight=False)


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise IncompleteError(
            f"the folder {out} cannot be made ({error.strerror}): name another one with --out"
        ) from error


def _write_report(console: Console, results: Sequence[Mapping[str, Any]], out: Path) -> None:
    from delayed_vlm_ros.replay.report.page import write_report  # noqa: PLC0415

    try:
        page = write_report(results, out)
    except OSError as error:
        raise IncompleteError(
            f"the report cannot be written to {out} ({error.strerror}): make room there, and run the command again; "
            "what has been evaluated is kept"
        ) from error
    console.print(f"report: {page}", highlight=False, soft_wrap=True)
