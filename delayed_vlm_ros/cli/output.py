"""Terminal output and JSON of the commands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table

from delayed_vlm_ros.cli import terminal
from delayed_vlm_ros.cli.terminal import literal
from delayed_vlm_ros.time import nanoseconds_of, seconds_of
from delayed_vlm_ros.web.formatting import clock

if TYPE_CHECKING:
    from diagnostic_msgs.msg import DiagnosticStatus

    from delayed_vlm_ros.action import AskScene as AskSceneAction
    from delayed_vlm_ros.demo.basic import Stage
    from delayed_vlm_ros.demo.run import DemoRun
    from delayed_vlm_ros.doctor.finding import Finding
    from delayed_vlm_ros.inference.request import Evidence
    from delayed_vlm_ros.msg import CameraAnswer, KeyFrame, MemoryStats, NodeStats
    from delayed_vlm_ros.replay.compare import Comparison
    from delayed_vlm_ros.replay.compare_server import ServerComparison

_STAGES = ("waiting for the model", "encoding frames", "answering")
_FINDING_STYLES = {"OK": "green", "WARN": "yellow", "ERROR": "bold red"}
_SHOWN_EVIDENCE = 3
_LEVELS = {0: "[green]OK   [/]", 1: "[yellow]WARN [/]", 2: "[red]ERROR[/]", 3: "[magenta]STALE[/]"}


def memory_line(statistics: MemoryStats, node: NodeStats) -> str:
    """Return one line on a memory that fills."""
    sizes = f"Stream {statistics.stream_memory_size} frames, Star {statistics.star_memory_size} frames"
    return f"memory: {sizes}, input {statistics.input_rate_hz:.0f} fps; model {node.model_state}"


@dataclass
class AnswerView:
    """Shows the answers of a session.

    A standing warning, which holds for all answers, is shown once, before the first answer.

    Attributes:
        console: Target console.
        verbose: Whether to show the cost of each answer.
    """

    console: Console
    verbose: bool = False
    _standing: set[str] = field(default_factory=set)

    def show_standing(self, warnings: Iterable[str], console: Console | None = None) -> None:
        """Show the standing warnings that have not been shown."""
        new = [warning for warning in warnings if warning not in self._standing]
        self._standing.update(new)
        show_warnings(console or self.console, new, indent="")

    def show_warnings(self, warnings: Iterable[str]) -> None:
        """Show the warnings of one answer, without the standing ones."""
        show_warnings(self.console, [warning for warning in warnings if warning not in self._standing])

    def show_response(self, question: str, response: Any, expected: str | None = None) -> None:
        """Show a question and its ``AskScene`` response.

        Args:
            question: Text of the question.
            response: Response of the service or result of the action. A failed one shows only the question.
            expected: Correct answer; None if unknown.
        """
        if response.success:
            if response.time_understood:
                _print_line(self.console, "T", response.time_understood)
            evidence = _evidence_text(response)
            self.show(question, response.answer, message_fields(response.metrics), expected, evidence)
        else:
            _print_line(self.console, "Q", question)

    def show(
        self,
        question: str,
        answer: str,
        metrics: Mapping[str, Any],
        expected: str | None = None,
        evidence: str = "",
    ) -> None:
        """Show a question, its answer and the warnings of the answer.

        Args:
            question: Text of the question.
            answer: Text of the answer.
            metrics: Metrics of the answer.
            expected: Correct answer; None if unknown.
            evidence: The frames that the answer rests on, as text; empty if they are not known.
        """
        _print_line(self.console, "Q", question)
        _print_line(self.console, "A", answer)
        if evidence:
            self.console.print(f"   [dim]rests on: {literal(evidence)}[/]", highlight=False, soft_wrap=True)
        if expected is not None:
            verdict = "[green]correct[/]" if answer == expected else f"[red]wrong[/], expected: {literal(expected)}"
            self.console.print(f"   {verdict}", highlight=False)
        if self.verbose:
            _show_cost(self.console, metrics)
        self.show_warnings(metrics["warnings"])


@contextmanager
def live_answer(console: Console) -> Iterator[Callable[[AskSceneAction.Feedback], None]]:
    """Show the progress of a question in the terminal; yield the function to call with each feedback."""
    with console.status(_STAGES[0]) as status:

        def show(feedback: AskSceneAction.Feedback) -> None:
            text = f"[bold]A:[/] {literal(one_line(feedback.text))}"
            status.update(text if feedback.text else _STAGES[feedback.stage])

        yield show


def show_stage(view: AnswerView, number: int, stage: Stage) -> None:
    """Show one stage of ``delayed-vlm basic``."""
    added = f", {stage.frames_added} frames added" if stage.frames_added else ""
    view.console.print(f"[bold]stage {number}: {stage.name}[/] ({stage.seconds:.2f} s{added})", highlight=False)
    if stage.answer is not None:
        answer = stage.answer
        view.show(answer.question, answer.answer, dict(answer.metrics), evidence=evidence_text(answer.evidence))


def show_comparison(view: AnswerView, comparison: Comparison | ServerComparison) -> None:
    """Show one question of ``delayed-vlm compare``."""
    console = view.console
    _print_line(console, "Q", comparison.question)
    table = Table(box=None, pad_edge=False)
    for heading in ("method", "answer", "time, s"):
        table.add_column(heading, overflow="fold")
    for method, answer, seconds in comparison.rows:
        table.add_row(method, literal(one_line(answer)), "" if seconds is None else f"{seconds:.3f}")
    console.print(table)
    same = ", identical" if comparison.is_identical else ""
    console.print(
        f"   length ratio {comparison.length_ratio:.2f}, similarity {comparison.similarity:.2f}{same}", highlight=False
    )
    view.show_warnings(comparison.metrics.warnings)


def show_frame_counts(console: Console, kept: int, all_frames: int, reference: str) -> None:
    """Show the number of frames of the reference, such as native inference, and of the delayed memory."""
    note = (
        ""
        if kept < all_frames
        else ": no frame was evicted, so both see the same frames. Lower --stream and --star to see a difference"
    )
    console.print(f"{reference}: {all_frames} frames, delayed: {kept} frames{note}", highlight=False, soft_wrap=True)


def show_statistics(console: Console, statistics: Mapping[str, Any]) -> None:
    """Show the statistics of a memory on one line."""
    console.print(f"memory: {_values(statistics)}", highlight=False, soft_wrap=True)


def show_camera_statistics(console: Console, camera: str, statistics: Mapping[str, Any]) -> None:
    """Show the numbers of a camera's ``MemoryStats`` on one line. Its texts are in the diagnostics."""
    numbers = {name: value for name, value in statistics.items() if isinstance(value, int | float)}
    console.print(f"[bold]memory of camera {literal(camera)}:[/] {_values(numbers)}", highlight=False, soft_wrap=True)


def show_diagnostics(console: Console, diagnostics: Sequence[DiagnosticStatus]) -> None:
    """Show diagnostic statuses: level, name and message on one line, the values below."""
    console.print("[bold]/diagnostics[/]")
    for status in diagnostics:
        console.print(f"{_LEVELS[_level(status)]} {literal(status.name)}: {literal(status.message)}", highlight=False)
        values = [f"{pair.key} {pair.value}" for pair in status.values if pair.value]
        console.print(Padding(f"[dim]{literal('; '.join(values))}[/]", (0, 0, 0, 3)), highlight=False)


def show_findings(findings: Sequence[Finding]) -> None:
    """Print one line for each finding of a check; in a terminal, continued lines are indented."""
    console = terminal.console()
    if not console.is_terminal:
        terminal.write("\n".join(one.line for one in findings))
        return
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for one in findings:
        style = _FINDING_STYLES[one.level.name]
        text = f"{one.text}: {one.remedy}" if one.remedy else one.text
        table.add_row(f"[{style}]{one.level.name}[/]", f"[bold]{literal(one.subject)}:[/] {literal(text)}")
    console.print(table, highlight=False)


def demo_json(run: DemoRun) -> dict[str, Any]:
    """Return the object that ``delayed-vlm demo --json`` prints."""
    return {
        "asks": [
            {"question": question, "answer": response.answer, "metrics": message_fields(response.metrics)}
            for question, response in run.responses
        ],
        "statistics": message_fields(run.statistics) if run.statistics is not None else {},
        "node_statistics": message_fields(run.node_statistics) if run.node_statistics is not None else {},
        "diagnostics": diagnostics_json(run.diagnostics),
        "exit_codes": run.exit_codes,
    }


def response_json(response: Any) -> dict[str, Any]:
    """Return the object that ``delayed-vlm ask --json`` prints for an ``AskScene`` response."""
    frames = [
        {"id": frame.id, "stamp": frame.header.stamp.sec + frame.header.stamp.nanosec / 1e9, "reason": frame.reason}
        for frame in response.frames_used
    ]
    return {
        "success": response.success,
        "error": response.error_msg,
        "request_id": response.request_id,
        "answer": response.answer,
        "time_understood": response.time_understood,
        "camera_answers": [_camera_answer_json(answer) for answer in response.camera_answers],
        "newest_frame_age_sec": response.newest_frame_age_sec,
        "frames_used": frames,
        "evidence": [_evidence_json(frame) for frame in response.evidence],
        "evidence_pose": _position_json(response.evidence_pose) if response.evidence_pose_valid else None,
        "metrics": message_fields(response.metrics),
    }


def _evidence_json(frame: KeyFrame) -> dict[str, Any]:
    stamp = seconds_of(nanoseconds_of(frame.header.stamp))
    return {"id": frame.id, "camera": frame.camera, "stamp": stamp, "relevance": round(frame.relevance, 4)}


def _evidence_text(response: Any) -> str:
    """Return the best frames of a response, with the camera's position at the first one if it is known."""
    best = response.evidence[:_SHOWN_EVIDENCE]
    is_of_several = len({frame.camera for frame in response.evidence}) > 1
    names = [f"{frame.camera} " if is_of_several else "" for frame in best]
    frames = ", ".join(
        f"{name}{clock(nanoseconds_of(frame.header.stamp))} ({frame.relevance:.0%})"
        for name, frame in zip(names, best, strict=True)
    )
    if not (best and response.evidence_pose_valid):
        return frames
    at = response.evidence_pose.pose.position
    return f"{frames}; the first at x {at.x:.2f}, y {at.y:.2f} m in {response.evidence_pose.header.frame_id}"


def _position_json(stamped: Any) -> dict[str, Any]:
    at = stamped.pose.position
    return {"frame_id": stamped.header.frame_id, "x": at.x, "y": at.y, "z": at.z}


def evidence_text(evidence: Sequence[Evidence]) -> str:
    """Return the best frames of an answer with their stamps."""
    return ", ".join(f"{one.kept.stamps[0]:.1f} s ({one.relevance:.0%})" for one in evidence[:_SHOWN_EVIDENCE])


def _camera_answer_json(answer: CameraAnswer) -> dict[str, Any]:
    return {**message_fields(answer), "metrics": message_fields(answer.metrics)}


def diagnostics_json(statuses: Sequence[DiagnosticStatus]) -> list[dict[str, Any]]:
    """Return diagnostic statuses as JSON objects."""
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
    """Return the fields of a ROS message by name, without nested messages."""
    fields = {name: getattr(message, name) for name in message.get_fields_and_field_types()}
    return {name: _plain(value) for name, value in fields.items() if not hasattr(value, "get_fields_and_field_types")}


def one_line(text: str) -> str:
    """Return the text with each run of whitespace replaced by one space."""
    return " ".join(text.split())


def _show_cost(console: Console, metrics: Mapping[str, Any]) -> None:
    encoding = metrics.get("encoding_latency", 0.0)
    encoded = f" in {encoding:.3f} s" if encoding else ""
    times = (
        f"time to first token {metrics['time_to_first_token']:.3f} s, total {metrics['total_latency']:.3f} s, "
        f"{metrics['answer_tokens']} tokens"
    )
    work = (
        f"{metrics['frames_encoded']} frames encoded{encoded}, {metrics['frames_reused']} reused; "
        f"{metrics['visual_tokens']} visual tokens, KV cache {metrics['kv_cache_length']} "
        f"({metrics['kv_tokens_reused']} reused); exact: {str(metrics['exact']).lower()}"
    )
    if metrics.get("bytes_sent"):
        work = f"{work}; {metrics['bytes_sent']} bytes sent"
    for line in (times, work):
        console.print(f"   {line}", highlight=False, soft_wrap=True)


def show_warnings(console: Console, warnings: Iterable[str], indent: str = "   ") -> None:
    """Show warnings, one on a line."""
    for warning in warnings:
        console.print(f"{indent}[yellow]warning:[/] {literal(warning)}", highlight=False, soft_wrap=True)


def _print_line(console: Console, letter: str, text: str) -> None:
    console.print(f"[bold]{letter}:[/] {literal(one_line(text))}", highlight=False, soft_wrap=True)


def _values(numbers: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.2f}" if isinstance(value, float) else f"{name} {value}" for name, value in numbers.items()
    )


def _level(status: DiagnosticStatus) -> int:
    level = status.level
    return level[0] if isinstance(level, bytes) else int(level)  # rclpy represents a byte field as bytes


def _plain(value: Any) -> Any:
    if isinstance(value, str | bool | int | float):
        return value
    return [_plain(item) for item in value]
