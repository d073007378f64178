"""Conversion of ROS messages to results of tools."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote, unquote

from delayed_vlm_ros.agents.results import (
    Alert,
    Answer,
    CameraAnswer,
    CameraStatus,
    Cost,
    Diagnostic,
    EvidenceFrame,
    FoundMoment,
    FoundMoments,
    FrameReference,
    KeyFrame,
    ModelStatus,
    Position,
    WatchInfo,
)
from delayed_vlm_ros.agents.times import format_time
from delayed_vlm_ros.inference.moments import does_fit
from delayed_vlm_ros.ros.services.watch_requests import as_decimal
from delayed_vlm_ros.time import nanoseconds_of
from delayed_vlm_ros.watches import Level

ALERTS_URI = "scene://alerts"
"""Resource with the newest alerts of all watches."""

WATCHES_URI = "scene://watches"
"""Resource with the states of all watches."""

_RISING = 1  # as in Alert.msg
_LEVELS = ("OK", "WARN", "ERROR", "STALE")  # of DiagnosticStatus


def watch_alerts_uri(watch: str) -> str:
    """Return the resource with the alerts of one watch."""
    return f"{ALERTS_URI}/{quote(watch, safe='')}"


def watch_of_uri(uri: str) -> str | None:
    """Return the watch whose alerts a resource has; None for another resource."""
    prefix = f"{ALERTS_URI}/"
    return unquote(uri.removeprefix(prefix)) if uri.startswith(prefix) else None


def to_found_moments(response: Any) -> FoundMoments:
    """Return the moments of a successful ``FindMoments`` response."""
    return FoundMoments(
        moments=[_to_found_moment(moment) for moment in response.moments],
        question=response.question,
        key_frames_searched=response.pairs_searched,
        journal_lines_searched=response.journal_lines_searched,
        warnings=list(response.warnings),
    )


def _to_found_moment(moment: Any) -> FoundMoment:
    return FoundMoment(
        score=as_decimal(moment.score),
        fits=does_fit(moment.score, is_journal_line=bool(moment.journal_id)),
        camera=moment.camera,
        time=format_time(nanoseconds_of(moment.header.stamp)),
        end_time=format_time(nanoseconds_of(moment.end_stamp)),
        key_frame_id=moment.id or None,
        caption=moment.caption,
        reason=moment.reason,
        label=moment.label,
        position=_to_position(moment),
    )


def to_answer(response: Any) -> Answer:
    """Return the answer of a successful ``AskScene`` result."""
    metrics = response.metrics
    return Answer(
        answer=response.answer,
        warnings=list(metrics.warnings),
        exact=metrics.exact,
        finish_reason=metrics.finish_reason,
        key_frames=[to_reference(frame) for frame in response.frames_used],
        evidence=[_to_evidence(frame) for frame in response.evidence],
        camera_answers=[_to_camera_answer(one) for one in response.camera_answers],
        newest_frame_time=format_time(nanoseconds_of(response.snapshot_stamp)),
        newest_frame_age_sec=as_decimal(response.newest_frame_age_sec),
        request_id=response.request_id,
        cost=Cost(
            total_sec=as_decimal(metrics.total_latency),
            queue_sec=as_decimal(metrics.queue_latency),
            first_token_sec=as_decimal(metrics.time_to_first_token),
            frames_encoded=metrics.frames_encoded,
            frames_reused=metrics.frames_reused,
            answer_tokens=metrics.answer_tokens,
        ),
    )


def _to_evidence(frame: Any) -> EvidenceFrame:
    return EvidenceFrame(
        **to_reference(frame).model_dump(), relevance=as_decimal(frame.relevance), position=_to_position(frame)
    )


def _to_camera_answer(answer: Any) -> CameraAnswer:
    return CameraAnswer(
        camera=answer.camera, answer=answer.answer, error=answer.error_msg, warnings=list(answer.metrics.warnings)
    )


def to_reference(frame: Any) -> FrameReference:
    """Return id, camera and time of a ``KeyFrame`` message."""
    return FrameReference(id=int(frame.id), camera=frame.camera, time=format_time(nanoseconds_of(frame.header.stamp)))


def to_key_frame(frame: Any) -> KeyFrame:
    """Return a ``KeyFrame`` message."""
    return KeyFrame(
        id=int(frame.id),
        camera=frame.camera,
        time=format_time(nanoseconds_of(frame.header.stamp)),
        end_time=format_time(nanoseconds_of(frame.end_stamp)),
        importance=as_decimal(frame.importance),
        reason=frame.reason,
        lasting=frame.in_star,
        marked=frame.marked,
        label=frame.label,
        position=_to_position(frame),
    )


def _to_position(message: Any) -> Position | None:
    """Return the position in a message with ``pose`` and ``pose_valid``."""
    if not message.pose_valid:
        return None
    at, turn = message.pose.pose.position, message.pose.pose.orientation
    heading = math.atan2(2 * (turn.w * turn.z + turn.x * turn.y), 1 - 2 * (turn.y**2 + turn.z**2))
    return Position(
        frame_id=message.pose.header.frame_id,
        x_m=at.x,
        y_m=at.y,
        z_m=at.z,
        heading_deg=round(math.degrees(heading), 1),
    )


def to_watch_info(state: Any) -> WatchInfo:
    """Return a ``WatchState`` message."""
    settings = state.settings
    return WatchInfo(
        name=settings.name,
        question=settings.question,
        camera=settings.camera,
        level=Level(state.level).name.lower(),
        since=format_time(nanoseconds_of(state.since)),
        p_yes=None if math.isnan(state.p_yes) else as_decimal(state.p_yes),
        reason=state.reason,
        warning=state.warning,
        last_sec=as_decimal(max(0.0, settings.last_sec)),
        period_sec=as_decimal(settings.period_sec),
        checks=state.checks,
        checked_ago_sec=_age(state.checked_ago_sec),
        device_sec_per_hour=as_decimal(state.device_sec_per_hour),
        alerts_uri=watch_alerts_uri(settings.name),
    )


def to_alert(alert: Any) -> Alert:
    """Return an ``Alert`` message."""
    return Alert(
        id=int(alert.id),
        watch=alert.watch,
        question=alert.question,
        camera=alert.camera,
        answer="yes" if alert.edge == _RISING else "no",
        p_yes=as_decimal(alert.p_yes),
        time=format_time(nanoseconds_of(alert.header.stamp)),
        first_seen=format_time(nanoseconds_of(alert.first_stamp)),
        key_frames=[to_reference(frame) for frame in alert.evidence],
        position=_to_position(alert),
        warnings=list(alert.metrics.warnings),
    )


def to_camera_status(name: str, topic: str, statistics: Any) -> CameraStatus:
    """Return the state of a camera.

    Args:
        name: Name of the camera.
        topic: Its image topic.
        statistics: Its newest ``MemoryStats`` message; None before the first.
    """
    if statistics is None:
        return CameraStatus(
            name=name,
            topic=topic,
            input_rate_hz=0.0,
            newest_frame_age_sec=None,
            oldest_frame_age_sec=None,
            kept_frames=0,
            frames_seen=0,
            memory_bytes=0,
            warnings=["no report about this camera has arrived: see the diagnostics, then call status again"],
        )
    return CameraStatus(
        name=name,
        topic=topic,
        input_rate_hz=as_decimal(statistics.input_rate_hz),
        newest_frame_age_sec=_age(statistics.newest_frame_age_sec),
        oldest_frame_age_sec=_age(statistics.oldest_frame_age_sec),
        kept_frames=statistics.unique_frames,
        frames_seen=statistics.total_frames_added,
        memory_bytes=statistics.pixel_bytes + statistics.feature_bytes + statistics.kv_bytes,
        warnings=list(statistics.warnings),
    )


def to_model_status(node: Any) -> ModelStatus:
    """Return the state of the model in a ``NodeStats`` message."""
    return ModelStatus(
        name=node.model,
        state=node.model_state,
        device=node.device,
        questions_running=node.questions_running,
        questions_waiting=node.questions_waiting,
        questions_answered=node.questions_answered,
        questions_failed=node.questions_failed,
        last_error=node.last_error,
        warnings=list(node.warnings),
    )


def to_diagnostics(statuses: Iterable[Any], prefix: str) -> list[Diagnostic]:
    """Return ``DiagnosticStatus`` messages without the prefix of their names."""
    return [
        Diagnostic(name=status.name.removeprefix(prefix), level=_level_name(status.level), message=status.message)
        for status in statuses
    ]


def _level_name(level: Any) -> str:
    return _LEVELS[level[0] if isinstance(level, bytes) else int(level)]  # rclpy represents a byte field as bytes


def within(frames: Sequence[Any], since_ns: int, until_ns: int, last_sec: float) -> list[Any]:
    """Return the ``KeyFrame`` messages that lie completely within the time limits.

    Args:
        frames: Messages of one camera, oldest first.
        since_ns: Earliest time in nanoseconds; 0 for no limit.
        until_ns: Latest time in nanoseconds; 0 for no limit.
        last_sec: Seconds before the newest frame; 0 for no limit.
    """
    if frames and last_sec:
        since_ns = max(since_ns, nanoseconds_of(frames[-1].end_stamp) - round(last_sec * 1e9))
    return [
        frame
        for frame in frames
        if nanoseconds_of(frame.header.stamp) >= since_ns
        and (not until_ns or nanoseconds_of(frame.end_stamp) <= until_ns)
    ]


def _age(seconds: float) -> float | None:
    return None if seconds < 0 else as_decimal(seconds)
