"""Diagnostic statuses of the node, for ``/diagnostics``.

A status compares the present report with the one of a second ago. So it shows an event, such as a dropped image or a
failed question, once, and clears one second after the last event.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from delayed_vlm_ros.ros.output.node_report import (
    CameraReport,
    JournalReport,
    LifecycleReport,
    MemoryReport,
    ModelReport,
    NodeReport,
    PersistenceReport,
    QuestionReport,
)
from delayed_vlm_ros.ros.time import time_message
from delayed_vlm_ros.text import escaped
from delayed_vlm_ros.watches import Level as WatchLevel
from delayed_vlm_ros.watches import WatchStatus


class Level(IntEnum):
    """Severity, with the numbers of ``diagnostic_msgs/DiagnosticStatus``."""

    OK = 0
    WARN = 1
    ERROR = 2
    STALE = 3


@dataclass(frozen=True)
class Status:
    """One diagnostic status.

    Attributes:
        name: Name of the part, without the node's name.
        level: Severity.
        message: One sentence for people.
        hardware: Device of the part; empty for the node itself.
        values: Keys and values, with units.
    """

    name: str
    level: Level
    message: str
    hardware: str = ""
    values: tuple[tuple[str, str], ...] = ()


def node_statuses(report: NodeReport, previous: NodeReport | None) -> tuple[Status, ...]:
    """Return all statuses of the node.

    Args:
        report: Present state of the node.
        previous: State one second ago; None at the start.
    """
    cameras_before = {camera.name: camera for camera in previous.cameras} if previous else {}
    questions_before = previous.questions if previous else None
    return (
        lifecycle_status(report.lifecycle),
        *(camera_status(camera, cameras_before.get(camera.name), report.stale_after_sec) for camera in report.cameras),
        *(memory_status(memory) for memory in report.memories),
        model_status(report.model),
        question_status(report.questions, questions_before),
        *((persistence_status(report.persistence, report.watches_error),) if report.persistence else ()),
        *((journal_status(report.journal, previous.journal if previous else None),) if report.journal else ()),
        *(watch_status(watch, report.watches_unavailable) for watch in report.watches),
    )


def diagnostic_array(statuses: Sequence[Status], node_name: str, stamp_ns: int) -> DiagnosticArray:
    """Return the message for ``/diagnostics``.

    Args:
        statuses: The statuses.
        node_name: Prefix of every status name.
        stamp_ns: Time of publication, in nanoseconds.
    """
    array = DiagnosticArray()
    array.header.stamp = time_message(stamp_ns)
    array.status = [
        DiagnosticStatus(
            name=escaped(f"{node_name}: {status.name}"),
            level=bytes([status.level]),
            message=escaped(status.message),
            hardware_id=escaped(status.hardware or node_name),
            values=[KeyValue(key=key, value=escaped(value)) for key, value in status.values],
        )
        for status in statuses
    ]
    return array


def lifecycle_status(report: LifecycleReport) -> Status:
    """Return the lifecycle state, and why the node is not active."""
    if report.error:
        level, message = Level.ERROR, report.error
    elif report.namesakes:
        level = Level.WARN
        message = (
            f"{report.state}; another node has the same name, or one that was just killed is still in the graph: use "
            "different names or namespaces, or stop the other nodes"
        )
    elif report.state == "active":
        level, message = Level.OK, "active"
    else:
        level, message = Level.WARN, f"{report.state}: the node takes no images and answers no questions"
    return Status("lifecycle", level, message, values=(("state", report.state),))


def camera_status(report: CameraReport, previous: CameraReport | None, stale_after_sec: float) -> Status:
    """Return whether images arrive and can be used."""
    warnings = _camera_warnings(report, previous)
    if not report.receiving:
        level, message = Level.WARN, "not receiving: the node is not active"
    elif report.silent_sec is None:
        reason = report.image_topic_fault or "check that the camera publishes on it"
        level, message = Level.WARN, "; ".join((f"no image yet on {report.topic}: {reason}", *_pose_fault(report)))
    elif report.silent_sec > stale_after_sec:
        silence = f"no image for {report.silent_sec:.1f} s on {report.topic}: check the camera"
        level, message = Level.STALE, "; ".join((silence, *warnings))
    elif warnings:
        level, message = Level.WARN, "; ".join(warnings)
    else:
        level, message = Level.OK, f"{report.input_rate_hz:.1f} images per second"
    values = (
        ("topic", report.topic),
        ("images received", str(report.images_received)),
        ("images sampled", str(report.images_sampled)),
        ("images dropped", str(report.images_dropped)),
        ("images missed", str(report.images_missed)),
        ("images restamped", str(report.images_restamped)),
        ("last drop reason", report.last_drop_reason),
        ("time jumps", str(report.times_jumped)),
        ("last time jump", report.last_jump),
        ("poses received", str(report.poses_received)),
        ("poses unusable", str(report.poses_unusable)),
        ("frames without pose", str(report.frames_without_pose)),
        ("input rate", f"{report.input_rate_hz:.2f} Hz"),
        ("sampled rate", f"{report.sampled_rate_hz:.2f} Hz"),
        ("last image", "never" if report.silent_sec is None else f"{report.silent_sec:.2f} s ago"),
        ("converter", report.converter),
        *((("bits of 16-bit values", str(report.bit_depth)),) if report.bit_depth else ()),
        *_numbered("warnings", report.warnings),
    )
    return Status(f"camera {report.name}", level, message, hardware=report.frame_id or report.name, values=values)


def memory_status(report: MemoryReport) -> Status:
    """Return the contents of a memory."""
    kept = report.statistics
    message = f"{kept.unique_frames} frames kept" if kept.unique_frames else "empty"
    values = (
        ("total_frames_added", str(kept.total_frames_added)),
        ("star_memory_size", f"{kept.star_memory_size} frames"),
        ("stream_memory_size", f"{kept.stream_memory_size} frames"),
        ("unique_frames", f"{kept.unique_frames} frames"),
        ("overlap", f"{kept.overlap} frames"),
        ("compression_ratio", f"{kept.compression_ratio:.2f}"),
        ("pixel bytes", f"{kept.pixel_bytes} B"),
        ("feature bytes", f"{report.feature_bytes} B"),
        ("kv bytes", f"{report.kv_bytes} B"),
        ("budget", f"{report.budget_bytes} B" if report.budget_bytes else "none"),
        ("oldest frame", _age(report.oldest_age_sec)),
        ("newest frame", _age(report.newest_age_sec)),
    )
    return Status(f"memory {report.camera}", Level.OK, message, values=values)


def model_status(report: ModelReport) -> Status:
    """Return the state of the model."""
    if report.error:
        level, message = Level.ERROR, report.error
    elif report.idle_unloaded:
        level, message = Level.OK, "unloaded while idle: the next question loads it again"
    elif report.state != "ready":
        level, message = Level.WARN, f"{report.state}: {report.name}"
    elif report.warnings:
        level, message = Level.WARN, "; ".join(report.warnings)
    else:
        level, message = Level.OK, f"ready on {report.device}"
    values = (
        ("model", report.name),
        ("state", report.state),
        ("device", report.device),
        ("error", report.error),
        *_numbered("warnings", report.warnings),
    )
    return Status("model", level, message, hardware=report.device, values=values)


def question_status(report: QuestionReport, previous: QuestionReport | None) -> Status:
    """Return the state of the question queue."""
    failed = _since(report.failed, previous.failed if previous else 0)
    if failed > 0:
        level, message = Level.WARN, f"{failed} questions failed, last error: {report.last_error}"
    elif report.waiting and report.waiting >= report.queue_size:
        level, message = Level.WARN, f"queue full: {report.waiting} questions are waiting, new ones are refused"
    else:
        level, message = Level.OK, "answering" if report.running else "idle"
    values = (
        ("answered", str(report.answered)),
        ("failed", str(report.failed)),
        ("rejected", str(report.rejected)),
        ("cancelled", str(report.cancelled)),
        ("running", str(int(report.running))),
        ("waiting", f"{report.waiting} of {report.queue_size}"),
        ("last error", report.last_error),
        ("last total latency", f"{report.last_total_latency:.3f} s"),
        ("last time to first token", f"{report.last_time_to_first_token:.3f} s"),
    )
    return Status("questions", level, message, values=values)


def persistence_status(report: PersistenceReport, watches_error: str = "") -> Status:
    """Return whether key frames and standing questions are saved to disk.

    Args:
        report: State of the key-frame files.
        watches_error: Why standing questions could not be saved; empty if they could.
    """
    if report.error or watches_error:
        level, message = Level.WARN, report.error or watches_error
    elif report.not_replaced:
        level, message = Level.WARN, "; ".join(report.warnings)
    else:
        level, message = Level.OK, f"saving key frames to {report.folder}"
    values = (
        ("folder", report.folder),
        ("restored frames", str(report.restored_frames)),
        ("times written", str(report.times_written)),
        ("last file", f"{report.written_bytes} B"),
        ("last written", _age(report.written_ago_sec)),
        *_numbered("set aside", report.warnings),
    )
    return Status("persistence", level, message, values=values)


def journal_status(report: JournalReport, previous: JournalReport | None) -> Status:
    """Return whether evicted pairs get their lines in the journal.

    Args:
        report: Present state of the journal.
        previous: State one second ago; None at the start.
    """
    dropped = _since(report.dropped, previous.dropped if previous else 0)
    if report.error:
        level, message = Level.WARN, report.error
    elif report.warning and not report.written:
        level, message = Level.WARN, report.warning
    elif dropped > 0:
        level, message = Level.WARN, f"{dropped} evicted pairs get no line: the model or the disk is too slow"
    else:
        level, message = Level.OK, "1 line" if report.lines == 1 else f"{report.lines} lines"
    values = (
        ("lines", str(report.lines)),
        ("file", f"{report.file_bytes} B"),
        ("written", str(report.written)),
        ("waiting", str(report.waiting)),
        ("dropped", str(report.dropped)),
        ("device time", f"{report.device_sec:.1f} s"),
        ("device time per hour", f"{report.device_sec_per_hour:.1f} s/h"),
        ("error", report.error),
        ("set aside", report.warning),
        *_numbered("caption warnings", report.caption_warnings),
    )
    return Status("journal", level, message, values=values)


def watch_status(report: WatchStatus, unavailable: str) -> Status:
    """Return the state of a standing question.

    Args:
        report: The watch.
        unavailable: Why no watch can be checked; empty if they can.
    """
    state = report.state
    if state.level is WatchLevel.INACTIVE:
        level, message = Level.OK, f"inactive: {state.reason}"
    elif unavailable:
        level, message = Level.WARN, f"unknown: {unavailable}"
    elif report.is_overdue:
        level, message = Level.STALE, f"not checked for {report.checked_ago_sec or report.age_sec:.1f} s"
    elif state.level is WatchLevel.UNKNOWN:
        level, message = Level.WARN, f"unknown: {state.reason}"
    else:
        level = Level.WARN if report.warning else Level.OK
        message = "; ".join((state.level.name.lower(), *((report.warning,) if report.warning else ())))
    values = (
        ("question", report.watch.question),
        ("camera", report.watch.camera),
        ("probability of yes", "unknown" if state.p_yes is None else f"{state.p_yes:.3f}"),
        ("checks", str(report.checks)),
        ("last check", "never" if report.checked_ago_sec is None else f"{report.checked_ago_sec:.1f} s ago"),
        ("device time", f"{report.device_sec_per_hour:.1f} s/h"),
    )
    return Status(f"watch {report.watch.name}", level, message, values=values)


def _camera_warnings(report: CameraReport, previous: CameraReport | None) -> tuple[str, ...]:
    """Return the events since the previous report, and the warnings that persist."""
    dropped = _since(report.images_dropped, previous.images_dropped if previous else 0)
    jumped = _since(report.times_jumped, previous.times_jumped if previous else 0)
    return (
        *((f"{dropped} images dropped: {report.last_drop_reason}",) if dropped > 0 else ()),
        *((report.last_jump,) if jumped > 0 else ()),
        *report.input_warnings,
        *((report.image_topic_fault,) if report.image_topic_fault else ()),
        *_pose_fault(report),
    )


def _pose_fault(report: CameraReport) -> tuple[str, ...]:
    return (report.pose_topic_fault,) if report.pose_topic_fault else ()


def _since(count: int, before: int) -> int:
    """Return the increase of a count; a new configure sets it back to zero."""
    return count - before if count >= before else count


def _age(seconds: float | None) -> str:
    return "none" if seconds is None else f"{seconds:.2f} s old"


def _numbered(key: str, texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    return tuple((f"{key} {number}", text) for number, text in enumerate(texts, start=1))
