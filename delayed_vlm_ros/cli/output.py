"""How the command line shows things to people, and the JSON it gives to scripts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

if TYPE_CHECKING:
    from delayed_vlm_ros.demo.basic import AskRecord, Stage
    from delayed_vlm_ros.replay.compare import Comparison

_STAGES = ("waiting for the model", "looking at what the camera saw", "answering")
_LEVELS = {0: "[green]OK   [/]", 1: "[yellow]WARN [/]", 2: "[red]ERROR[/]", 3: "[magenta]STALE[/]"}


def filling(statistics: Any) -> str:
    """One line on a memory that fills, from its ``MemoryStats``."""
    rate = f"{statistics.input_rate_hz:.0f} Hz in"
    kept = f"Stream {statistics.stream_memory_size}, Star {statistics.star_memory_size}"
    return f"memory: {kept}, {rate}; model {statistics.model_state}"


def show_response(console: Console, question: str, response: Any, truth: str | None = None) -> None:
    """A question and its ``AskScene`` response: Q and A on a line each, below whether it is right, and the metrics."""
    if response.success:
        _show_ask(console, question, response.answer, message_fields(response.metrics), truth)
    else:  # the demo ends here, and says why
        _print_line(console, "Q", question)


@contextmanager
def growing_answer(console: Console) -> Iterator[Callable[[Any], None]]:
    """Shows an ``AskScene`` action's feedback, in a terminal, until the answer is there; gives what to call with it."""
    with console.status(_STAGES[0]) as status:

        def show(feedback: Any) -> None:
            said = f"[bold]A:[/] {escape(one_line(feedback.text))}"
            status.update(said if feedback.text else _STAGES[feedback.stage])

        yield show


def show_stage(console: Console, number: int, stage: Stage) -> None:
    """One stage of ``delayed-vlm basic``."""
    added = f", {stage.frames_added} frames added" if stage.frames_added else ""
    console.print(f"[bold]stage {number}: {stage.name}[/] ({stage.seconds:.2f} s{added})", highlight=False)
    if stage.ask is not None:
        _show_record(console, stage.ask)


def show_comparison(console: Console, comparison: Comparison) -> None:
    """One question of ``delayed-vlm compare``."""
    _print_line(console, "Q", comparison.question)
    table = Table(box=None, pad_edge=False)
    for heading in ("", "answer", "seconds"):
        table.add_column(heading, overflow="fold")
    table.add_row(
        "native, positions of true time", escape(one_line(comparison.native)), f"{comparison.native_seconds:.3f}"
    )
    table.add_row("delayed", escape(one_line(comparison.delayed)), f"{comparison.delayed_seconds:.3f}")
    table.add_row("native, library's own positions", escape(one_line(comparison.native_stock)), "")
    console.print(table)
    same = ", identical" if comparison.native == comparison.delayed else ""
    console.print(
        f"   length ratio {comparison.length_ratio:.2f}, similarity {comparison.similarity:.2f}{same}", highlight=False
    )
    _show_degraded(console, comparison.metrics.warnings)


def show_kept(console: Console, kept: int, all_frames: int) -> None:
    """How many frames the two sides of a comparison see."""
    note = (
        ""
        if kept < all_frames
        else ": memory dropped none, so both see the same. Lower --stream and --star to see a loss"
    )
    console.print(f"native sees {all_frames} frames, delayed the {kept} kept{note}", highlight=False, soft_wrap=True)


def show_statistics(console: Console, statistics: Mapping[str, Any]) -> None:
    """The memory's statistics on one line."""
    words = [
        f"{name} {value:.2f}" if isinstance(value, float) else f"{name} {value}" for name, value in statistics.items()
    ]
    console.print("memory: " + ", ".join(words), highlight=False, soft_wrap=True)


def show_camera_statistics(console: Console, camera: str, statistics: Mapping[str, Any]) -> None:
    """The numbers of a camera's ``MemoryStats`` on one line; the words are in the diagnostics."""
    words = [
        f"{name} {value:.2f}" if isinstance(value, float) else f"{name} {value}"
        for name, value in statistics.items()
        if isinstance(value, int | float)
    ]
    console.print(f"[bold]memory of camera {escape(camera)}:[/] {', '.join(words)}", highlight=False, soft_wrap=True)


def show_diagnostics(console: Console, diagnostics: Sequence[Any]) -> None:
    """The statuses of ``/diagnostics``, once: level, name and message on a line, the values below."""
    console.print("[bold]/diagnostics[/]")
    for status in diagnostics:
        console.print(f"{_LEVELS[_level(status)]} {escape(status.name)}: {escape(status.message)}", highlight=False)
        values = [f"{pair.key} {pair.value}" for pair in status.values if pair.value]
        console.print(Padding(f"[dim]{escape('; '.join(values))}[/]", (0, 0, 0, 3)), highlight=False)


def demo_json(run: Any) -> dict[str, Any]:
    """A ``DemoRun`` for scripts."""
    return {
        "asks": [
            {"question": asked, "answer": response.answer, "metrics": message_fields(response.metrics)}
            for asked, response in run.responses
        ],
        "statistics": message_fields(run.statistics) if run.statistics is not None else {},
        "diagnostics": diagnostics_json(run.diagnostics),
        "exit_codes": run.exit_codes,
    }


def response_json(response: Any) -> dict[str, Any]:
    """An ``AskScene`` response for scripts."""
    frames = [
        {"id": frame.id, "stamp": frame.header.stamp.sec + frame.header.stamp.nanosec / 1e9, "reason": frame.reason}
        for frame in response.frames_used
    ]
    return {
        "success": response.success,
        "error": response.error_msg,
        "answer": response.answer,
        "newest_frame_age_sec": response.newest_frame_age_sec,
        "frames_used": frames,
        "metrics": message_fields(response.metrics),
    }


def diagnostics_json(statuses: Sequence[Any]) -> list[dict[str, Any]]:
    """The statuses of ``/diagnostics`` for scripts."""
    return [
        {
            "name": status.name,
            "level": _level(status),
            "message": status.message,
            "values": {pair.key: pair.value for pair in status.values},
        }
        for status in statuses
    ]


def message_fields(message: Any) -> dict[str, Any]:
    """The plain fields of a ROS message; nested messages are left out."""
    fields = {name: getattr(message, name) for name in message.get_fields_and_field_types()}
    return {name: _plain(value) for name, value in fields.items() if not hasattr(value, "get_fields_and_field_types")}


def one_line(text: str) -> str:
    """Text on one line, for a terminal."""
    return " ".join(text.split())


def _show_record(console: Console, record: AskRecord) -> None:
    _show_ask(console, record.question, record.answer, dict(record.metrics))


def _show_ask(
    console: Console, question: str, answer: str, metrics: Mapping[str, Any], truth: str | None = None
) -> None:
    _print_line(console, "Q", question)
    _print_line(console, "A", answer)
    if truth is not None:
        verdict = "[green]right[/]" if answer == truth else f"[red]wrong[/], it is: {escape(truth)}"
        console.print(f"   {verdict}", highlight=False)
    encoding = metrics.get("encoding_latency", 0.0)
    encoded = f" in {encoding:.3f} s" if encoding else ""
    times = (
        f"first token {metrics['time_to_first_token']:.3f} s, whole answer {metrics['total_latency']:.3f} s, "
        f"{metrics['answer_tokens']} tokens"
    )
    work = (
        f"{metrics['frames_encoded']} frames encoded{encoded}, {metrics['frames_reused']} re-used; "
        f"{metrics['visual_tokens']} visual tokens, KV cache {metrics['kv_cache_length']} "
        f"({metrics['kv_tokens_reused']} re-used); exact: {str(metrics['exact']).lower()}"
    )
    for line in (times, work):
        console.print(f"   {line}", highlight=False, soft_wrap=True)
    _show_degraded(console, metrics["warnings"])


def _show_degraded(console: Console, notes: Sequence[str]) -> None:
    for note in notes:
        console.print(f"   [yellow]warnings:[/] {escape(note)}", highlight=False, soft_wrap=True)


def _print_line(console: Console, letter: str, text: str) -> None:
    console.print(f"[bold]{letter}:[/] {escape(one_line(text))}", highlight=False, soft_wrap=True)


def _level(status: Any) -> int:
    """The status's level; rclpy gives a ``byte`` field as ``bytes``."""
    level = status.level
    return level[0] if isinstance(level, bytes) else int(level)


def _plain(value: Any) -> Any:
    if isinstance(value, str | bool | int | float):
        return value
    return [_plain(item) for item in value]
