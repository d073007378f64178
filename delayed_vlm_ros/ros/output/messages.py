"""Conversions from this package's objects to its ROS messages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from builtin_interfaces.msg import Time

from delayed_vlm_ros import errors, msg
from delayed_vlm_ros.action import AskScene as AskSceneAction
from delayed_vlm_ros.inference.metrics import AskMetrics
from delayed_vlm_ros.inference.progress import Progress
from delayed_vlm_ros.memory import KeptPair, Snapshot
from delayed_vlm_ros.ros.output.node_report import CameraReport, MemoryReport, NodeReport
from delayed_vlm_ros.ros.scene_memory.camera_memory import CameraMemory
from delayed_vlm_ros.ros.scene_memory.parameters import MAX_QUESTION_CHARACTERS
from delayed_vlm_ros.ros.services.multi_camera_ask import Answer, CameraAnswer, CameraFailure
from delayed_vlm_ros.ros.time import time_message
from delayed_vlm_ros.text import escaped
from delayed_vlm_ros.time import nanoseconds_of
from delayed_vlm_ros.watches import Alert, Edge, Gate, Level, Watch, WatchStatus


def error_code(error: Exception) -> int:
    """Return the interface's code for an error; INTERNAL for errors of other packages."""
    return int(error.error_code if isinstance(error, errors.DelayedVlmError) else errors.ErrorCode.INTERNAL)


def error_text(error: Exception) -> str:
    """Return the error message for the client; an error of another package is reported as an internal error."""
    text = errors.shortened(escaped(str(error)))
    if isinstance(error, errors.DelayedVlmError):
        return text
    return f"internal error, {type(error).__name__}: {text}. The node's log has the traceback: retry, or report it"


def key_frame(kept: KeptPair, camera: CameraMemory, relevance: float = 0.0) -> msg.KeyFrame:
    """Return the message of a kept pair.

    Args:
        kept: The pair.
        camera: Its camera.
        relevance: Share of an answer that rests on it, 0..1; 0 outside evidence.
    """
    first, last = (camera.header_of(frame) for frame in (kept.pair.first, kept.pair.last))
    frame = msg.KeyFrame(
        end_stamp=time_message(last.stamp_ns),
        id=kept.id,
        camera=camera.name,
        importance=float(kept.importance),
        relevance=float(relevance),
        reason=kept.reason,
        in_star=kept.in_star,
        in_stream=kept.in_stream,
        marked=kept.marked,
        label=kept.label,
    )
    frame.header.stamp = time_message(first.stamp_ns)
    frame.header.frame_id = first.frame_id
    pose = first.pose
    if pose is not None:
        frame.pose_valid, frame.pose = True, pose
    return frame


def key_frame_array(snapshot: Snapshot, camera: CameraMemory) -> msg.KeyFrameArray:
    """Return the message of all kept pairs of a camera."""
    array = msg.KeyFrameArray(camera=camera.name, key_frames=[key_frame(kept, camera) for kept in snapshot])
    if array.key_frames:
        array.header.stamp = array.key_frames[-1].end_stamp
        array.header.frame_id = array.key_frames[-1].header.frame_id
    return array


def ask_metrics(metrics: AskMetrics, queue_latency: float, warnings: Sequence[str]) -> msg.AskMetrics:
    """Return the metrics of an answer.

    Args:
        metrics: Measurements and warnings of the engine.
        queue_latency: Seconds from the arrival of the request until the worker took it.
        warnings: Warnings of the node.
    """
    return msg.AskMetrics(
        total_latency=float(metrics.total_latency),
        queue_latency=float(queue_latency),
        encoding_latency=float(metrics.encoding_latency or 0.0),
        generation_latency=float(metrics.generation_latency),
        time_to_first_token=float(metrics.time_to_first_token),
        frames_encoded=metrics.frames_encoded,
        frames_reused=metrics.frames_reused,
        visual_tokens=metrics.visual_tokens,
        kv_cache_length=metrics.kv_cache_length,
        kv_tokens_reused=metrics.kv_tokens_reused,
        answer_tokens=metrics.answer_tokens,
        video_grid_thw=[int(size) for size in metrics.video_grid_thw],
        bytes_sent=metrics.bytes_sent,
        finish_reason=metrics.finish_reason,
        exact=bool(metrics.exact),
        warnings=[escaped(warning) for warning in (*metrics.warnings, *warnings)],
    )


def alert_message(alert: Alert, camera: CameraMemory, alert_id: int) -> msg.Alert:
    """Return the message of an alert.

    Args:
        alert: The alert.
        camera: Camera of the watch.
        alert_id: Id of the alert; 0 for the alert of a goal.
    """
    first = camera.header_of(alert.evidence[0].pair.last)
    newest = camera.header_of(alert.evidence[-1].pair.last)
    message = msg.Alert(
        id=alert_id,
        watch=alert.watch.name,
        question=alert.watch.question,
        camera=camera.name,
        edge=msg.Alert.RISING if alert.edge is Edge.RISING else msg.Alert.FALLING,
        p_yes=float(alert.p_yes),
        first_stamp=time_message(first.stamp_ns),
        evidence=[key_frame(kept, camera) for kept in alert.evidence],
        metrics=ask_metrics(alert.metrics, 0.0, camera.warnings),
    )
    message.header.stamp, message.header.frame_id = time_message(newest.stamp_ns), newest.frame_id
    if first.pose is not None:
        message.pose_valid, message.pose = True, first.pose
    return message


def watch_settings(watch: Watch) -> msg.WatchSettings:
    """Return the message of a watch's settings; sent as a request, it makes the same watch."""
    last_sec = watch.last_sec or -1.0  # zero would be the default
    return msg.WatchSettings(**{**vars(watch), "last_sec": last_sec, "gate": tuple(Gate).index(watch.gate)})


def watch_state(status: WatchStatus, camera: CameraMemory, *, unavailable: str = "") -> msg.WatchState:
    """Return the message of a watch with its state.

    Args:
        status: The watch.
        camera: Its camera.
        unavailable: Why no watch can be checked; empty if they can.
    """
    state, watch = status.state, status.watch
    level, reason = state.level, state.reason
    if unavailable and level is not Level.INACTIVE:
        level, reason = Level.UNKNOWN, unavailable
    return msg.WatchState(
        settings=watch_settings(watch),
        level=int(level),
        since=time_message(camera.header_of(status.since.pair.last).stamp_ns if status.since else 0),
        p_yes=math.nan if state.p_yes is None else state.p_yes,
        reason=escaped(errors.shortened(reason)),
        warning=status.warning,
        checks=status.checks,
        checked_ago_sec=_or_minus_one(status.checked_ago_sec),
        interval_sec=_or_minus_one(status.interval_sec),
        device_sec_per_hour=float(status.device_sec_per_hour),
    )


def _or_minus_one(seconds: float | None) -> float:
    return -1.0 if seconds is None else float(seconds)


def fill_answer(response: Any, answer: Answer, *, include_frames: bool) -> None:
    """Fill an ``AskScene`` response, or an action result, which has the same fields, with an answer.

    Args:
        response: An empty response.
        answer: The answer, or the errors of all cameras.
        include_frames: Whether to fill ``frames_used``.
    """
    if answer.is_of_all:
        response.camera_answers = camera_answers(answer)
    if answer.error is not None:
        fill_error(response, answer.error)
        return
    response.success = True
    response.error_code = int(errors.ErrorCode.NONE)
    response.answer = answer.text
    response.time_understood = answer.time_words.text if answer.time_words is not None else ""
    used = [(kept, part.camera) for part in answer.parts for kept in part.result.frames_used]
    response.frame_ids = [kept.id for kept, _ in used]
    response.frames_used = [key_frame(kept, camera) for kept, camera in used] if include_frames else []
    _fill_evidence(response, answer)
    response.snapshot_stamp = time_message(answer.newest_header.stamp_ns)
    response.newest_frame_age_sec = float(answer.newest_frame_age_sec)
    response.metrics = ask_metrics(answer.metrics, answer.queue_latency, answer.warnings)


def _fill_evidence(response: Any, answer: Answer) -> None:
    """Fill the evidence of an ``AskScene`` response, with its span in time and the pose of the best pair.

    With several cameras there is no such pose: the cameras may have different answers. Each key frame has its own.
    """
    frames = [key_frame(one.kept, camera, one.relevance) for one, camera in answer.evidence]
    response.evidence = frames
    if not frames:
        return
    first = min(frames, key=lambda frame: nanoseconds_of(frame.header.stamp))
    last = max(frames, key=lambda frame: nanoseconds_of(frame.end_stamp))
    response.evidence_span = [first.header.stamp, last.end_stamp]
    if len(answer.parts) == 1:
        response.evidence_pose_valid, response.evidence_pose = frames[0].pose_valid, frames[0].pose


def camera_answers(answer: Answer) -> list[msg.CameraAnswer]:
    """Return one message for each camera of an answer: those that answered first, then those that could not."""
    answered = [_camera_answer(part, answer.queue_latency) for part in answer.parts]
    return [*answered, *map(_camera_error, answer.failures)]


def _camera_answer(part: CameraAnswer, queue_latency: float) -> msg.CameraAnswer:
    return msg.CameraAnswer(
        camera=part.camera.name,
        success=True,
        answer=part.result.answer,
        frame_ids=[kept.id for kept in part.result.frames_used],
        snapshot_stamp=time_message(part.newest_header.stamp_ns),
        newest_frame_age_sec=float(part.newest_frame_age_sec),
        metrics=ask_metrics(part.result.metrics, queue_latency, part.camera.warnings),
    )


def _camera_error(failure: CameraFailure) -> msg.CameraAnswer:
    return msg.CameraAnswer(
        camera=failure.camera.name, error_code=error_code(failure.error), error_msg=error_text(failure.error)
    )


def fill_error(response: Any, error: Exception) -> None:
    """Fill an ``AskScene`` response, or an action result, with an error."""
    response.success = False
    response.error_code = error_code(error)
    response.error_msg = error_text(error)


def feedback(progress: Progress) -> AskSceneAction.Feedback:
    """Return the action's feedback, whose stages have the same numbers."""
    return AskSceneAction.Feedback(stage=int(progress.stage), text=progress.text, answer_tokens=progress.answer_tokens)


def scene_answer(request: Any, response: Any, answer: Answer | None) -> msg.SceneAnswer:
    """Return a question with its response, for ``~/answers``.

    Args:
        request: The request or goal.
        response: Its filled response or result.
        answer: The answer; None after an error.
    """
    published = msg.SceneAnswer(
        request_id=response.request_id,
        camera=errors.shortened(request.camera),
        question=errors.shortened(request.question, MAX_QUESTION_CHARACTERS),
        success=response.success,
        error_code=response.error_code,
        error_msg=response.error_msg,
        answer=response.answer,
        frame_ids=response.frame_ids,
        camera_answers=response.camera_answers,
        evidence=response.evidence,
        metrics=response.metrics,
    )
    published.header.stamp = response.snapshot_stamp
    if answer is not None and answer.parts:
        published.camera = request.camera or answer.parts[0].camera.name
        published.header.frame_id = answer.newest_header.frame_id
    return published


def memory_stats(camera: CameraReport, memory: MemoryReport, stamp: Time) -> msg.MemoryStats:
    """Return the statistics message of one camera, with ``stamp`` in its header."""
    kept = memory.statistics
    stats = msg.MemoryStats(
        camera=camera.name,
        total_frames_added=kept.total_frames_added,
        star_memory_size=kept.star_memory_size,
        stream_memory_size=kept.stream_memory_size,
        unique_frames=kept.unique_frames,
        overlap=kept.overlap,
        compression_ratio=float(kept.compression_ratio),
        pixel_bytes=kept.pixel_bytes,
        feature_bytes=memory.feature_bytes,
        kv_bytes=memory.kv_bytes,
        budget_bytes=memory.budget_bytes,
        oldest_frame_age_sec=_age(memory.oldest_age_sec),
        newest_frame_age_sec=_age(memory.newest_age_sec),
        input_rate_hz=float(camera.input_rate_hz),
        sampled_rate_hz=float(camera.sampled_rate_hz),
        images_received=camera.images_received,
        images_sampled=camera.images_sampled,
        images_dropped=camera.images_dropped,
        images_missed=camera.images_missed,
        images_restamped=camera.images_restamped,
        frames_without_pose=camera.frames_without_pose,
        last_drop_reason=escaped(camera.last_drop_reason),
        warnings=list(map(escaped, camera.warnings)),
    )
    stats.header.stamp = stamp
    stats.header.frame_id = camera.frame_id
    return stats


def node_stats(report: NodeReport, stamp: Time) -> msg.NodeStats:
    """Return the statistics message of the node, with ``stamp`` in its header."""
    model, questions = report.model, report.questions
    stats = msg.NodeStats(
        model=escaped(model.name),
        model_state=model.state,
        device=model.device,
        questions_answered=questions.answered,
        questions_failed=questions.failed,
        questions_rejected=questions.rejected,
        questions_cancelled=questions.cancelled,
        questions_running=int(questions.running),
        questions_waiting=questions.waiting,
        last_total_latency=float(questions.last_total_latency),
        last_time_to_first_token=float(questions.last_time_to_first_token),
        last_error=escaped(questions.last_error),
        warnings=list(map(escaped, model.warnings)),
    )
    stats.header.stamp = stamp
    return stats


def _age(seconds: float | None) -> float:
    return -1.0 if seconds is None else float(seconds)
