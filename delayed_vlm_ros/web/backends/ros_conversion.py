"""Conversion of ROS messages to the objects of the page."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus

from delayed_vlm_ros.action import AskScene
from delayed_vlm_ros.images.messages import CompressedMessage
from delayed_vlm_ros.images.validation import validate_compressed
from delayed_vlm_ros.msg import Alert, KeyFrame, MemoryStats, Moment, SceneAnswer, WatchState
from delayed_vlm_ros.ros.journal_client import to_journal_line
from delayed_vlm_ros.ros.services.watch_requests import as_decimal
from delayed_vlm_ros.ros.time import time_message
from delayed_vlm_ros.srv import FindMoments
from delayed_vlm_ros.time import nanoseconds_of
from delayed_vlm_ros.watches import Level as WatchLevel
from delayed_vlm_ros.watches import Watch
from delayed_vlm_ros.web.backend import (
    AnswerCost,
    AnsweredQuestion,
    AskOutcome,
    CameraState,
    Diagnostic,
    EvidenceFrame,
    FoundMoment,
    KeptFrame,
    KeptFrameImages,
    Level,
    MemoryCounts,
    Question,
    SearchOutcome,
    WatchAlert,
    WatchedQuestion,
)

_LEVELS = {
    DiagnosticStatus.OK: Level.OK,
    DiagnosticStatus.WARN: Level.WARN,
    DiagnosticStatus.ERROR: Level.ERROR,
    DiagnosticStatus.STALE: Level.STALE,
}


def to_kept_images(first: CompressedMessage, second: CompressedMessage) -> KeptFrameImages:
    """Return the images of a kept pair, which a browser decodes.

    Raises:
        ImageError: An image is no JPEG or PNG, or too large.
    """
    for message in (first, second):
        if len(message.data):
            validate_compressed(message)
    return KeptFrameImages(bytes(first.data), bytes(second.data))


def to_goal(question: Question) -> AskScene.Goal:
    """Return the goal of a question; the node's defaults apply to its deadline and length."""
    return AskScene.Goal(
        question=question.text,
        camera=question.camera,
        last_sec=question.last_sec,
        since=time_message(question.since_ns),
        until=time_message(question.until_ns),
        include_frames=True,
    )


def to_outcome(result: Any) -> AskOutcome:
    """Return the outcome of a successful action result."""
    metrics = result.metrics
    return AskOutcome(
        answer=result.answer,
        frames_used=tuple(to_kept_frame(frame) for frame in result.frames_used),
        cost=AnswerCost(
            metrics.time_to_first_token, metrics.total_latency, metrics.frames_encoded, metrics.frames_reused
        ),
        warnings=tuple(metrics.warnings),
        evidence=tuple(EvidenceFrame(to_kept_frame(frame), float(frame.relevance)) for frame in result.evidence),
    )


def to_answered_question(message: SceneAnswer, stamp_ns: int) -> AnsweredQuestion:
    """Return the question of a message with its answer.

    Args:
        message: The message.
        stamp_ns: Time of the answer, in nanoseconds; the message has only the stamp of the newest frame.
    """
    return AnsweredQuestion(
        id=message.request_id,
        stamp_ns=stamp_ns,
        camera=message.camera,
        question=message.question,
        answer=message.answer,
        error=message.error_msg,
        frame_ids=tuple(int(frame_id) for frame_id in message.frame_ids),
        evidence=tuple(EvidenceFrame(to_kept_frame(frame), float(frame.relevance)) for frame in message.evidence),
        warnings=tuple(message.metrics.warnings),
    )


def to_search_outcome(response: FindMoments.Response, kept: Mapping[int, KeptFrame]) -> SearchOutcome:
    """Return the result of a ``FindMoments`` response.

    Args:
        response: A successful response.
        kept: Pairs that are kept now, by id.

    Raises:
        ImageError: A thumbnail is no JPEG or PNG, or too large.
    """
    return SearchOutcome(
        tuple(_to_found_moment(moment, kept) for moment in response.moments),
        response.pairs_searched,
        int(response.journal_lines_searched),
        tuple(response.warnings),
    )


def _to_found_moment(moment: Moment, kept: Mapping[int, KeptFrame]) -> FoundMoment:
    return FoundMoment(
        moment.score,
        nanoseconds_of(moment.header.stamp),
        nanoseconds_of(moment.end_stamp),
        kept.get(moment.id),
        to_journal_line(moment) if moment.journal_id else None,
        to_kept_images(moment.thumbnail, moment.thumbnail).first,
    )


def to_kept_frame(frame: KeyFrame) -> KeptFrame:
    """Return the pair of a key-frame message."""
    return KeptFrame(
        id=int(frame.id),
        camera=frame.camera,
        stamp_ns=nanoseconds_of(frame.header.stamp),
        end_stamp_ns=nanoseconds_of(frame.end_stamp),
        importance=float(frame.importance),
        reason=frame.reason,
        in_star=frame.in_star,
        in_stream=frame.in_stream,
        marked=frame.marked,
        label=frame.label,
    )


def to_diagnostic(status: DiagnosticStatus, prefix: str) -> Diagnostic:
    """Return a status without the prefix of its name."""
    level = _LEVELS.get(status.level, Level.ERROR)
    return Diagnostic(status.name.removeprefix(prefix), level, status.message)


def to_camera_state(
    name: str, topic: str, statistics: MemoryStats | None, frames: tuple[KeptFrame, ...]
) -> CameraState:
    """Return the state of a camera.

    Args:
        name: Name of the camera.
        topic: Image topic of the camera.
        statistics: Newest statistics message of the camera; None before the first.
        frames: Kept pairs, oldest first.
    """
    if statistics is None:
        return CameraState(name, topic, frames=frames)
    age_sec = statistics.newest_frame_age_sec
    return CameraState(
        name=name,
        topic=topic,
        input_rate_hz=statistics.input_rate_hz,
        sampled_rate_hz=statistics.sampled_rate_hz,
        dropped=statistics.images_dropped,
        newest_age_sec=age_sec if age_sec >= 0 else None,
        counts=MemoryCounts(
            added=statistics.total_frames_added,
            unique=statistics.unique_frames,
            star=statistics.star_memory_size,
            stream=statistics.stream_memory_size,
            compression_ratio=statistics.compression_ratio,
            pixel_bytes=statistics.pixel_bytes,
            feature_bytes=statistics.feature_bytes,
            kv_bytes=statistics.kv_bytes,
            budget_bytes=statistics.budget_bytes,
        ),
        frames=frames,
    )


def to_watched_question(state: WatchState) -> WatchedQuestion:
    """Return the standing question of a message."""
    settings = state.settings
    watch = Watch(
        name=settings.name,
        question=settings.question,
        camera=settings.camera,
        last_sec=as_decimal(max(0.0, settings.last_sec)),
        period_sec=as_decimal(settings.period_sec),
        threshold=as_decimal(settings.threshold),
    )
    return WatchedQuestion(
        watch=watch,
        level=WatchLevel(state.level),
        since_ns=nanoseconds_of(state.since),
        p_yes=None if math.isnan(state.p_yes) else float(state.p_yes),
        reason=state.reason,
        warning=state.warning,
        device_sec_per_hour=float(state.device_sec_per_hour),
    )


def to_watch_alert(alert: Alert) -> WatchAlert:
    """Return the alert of a message."""
    return WatchAlert(
        id=int(alert.id),
        watch=alert.watch,
        question=alert.question,
        camera=alert.camera,
        is_rising=alert.edge == Alert.RISING,
        p_yes=float(alert.p_yes),
        stamp_ns=nanoseconds_of(alert.header.stamp),
        evidence=tuple(to_kept_frame(frame) for frame in alert.evidence),
    )
