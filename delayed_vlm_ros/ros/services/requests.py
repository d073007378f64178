"""Parsing and validation of request messages: questions, cameras and stamps."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from builtin_interfaces.msg import Time

from delayed_vlm_ros.errors import BadRequestError, UnknownCameraError
from delayed_vlm_ros.inference.request import NOW_PAIRS, AskRequest, check_request
from delayed_vlm_ros.inference.time_words import read_time_words
from delayed_vlm_ros.ros.scene_memory.camera_memory import CameraMemory
from delayed_vlm_ros.ros.scene_memory.parameters import MAX_TIMEOUT_SEC, SceneMemoryParameters
from delayed_vlm_ros.time import NANOSECONDS_PER_SECOND, nanoseconds_of, seconds_of

ALL_CAMERAS = "*"
"""Camera name in a request that selects all cameras."""

MAX_ID_CHARACTERS = 255
"""Longest client id and request id; the full name of a node fits."""


def parse_question(message: Any, parameters: SceneMemoryParameters, now: float) -> AskRequest:
    """Return the question of an ``AskScene`` request or goal; zeros become the node's defaults.

    Args:
        message: Request or goal message.
        parameters: Current parameters of the node.
        now: Time of the node's clock, in seconds.

    Raises:
        BadRequestError: A field is invalid.
        DependencyError: The request sets ``parse_time``, and dateparser is not installed.
    """
    if len(message.question) > parameters.max_question_characters:
        raise BadRequestError(
            f"question too long ({len(message.question)} characters, limit {parameters.max_question_characters}): "
            "shorten it, or raise the parameter ask.max_question_characters"
        )
    if message.max_new_tokens > parameters.max_new_tokens_limit:
        raise BadRequestError(
            f"'max_new_tokens' must be at most {parameters.max_new_tokens_limit}, got {message.max_new_tokens}: lower "
            "it, or raise the parameter ask.max_new_tokens_limit"
        )
    for name in ("client_id", "request_id"):
        check_id(name, getattr(message, name))
    if message.scope not in (message.SCOPE_ALL, message.SCOPE_NOW):
        raise BadRequestError(f"'scope' must be 0 (all frames) or 1 (the newest frames), got {message.scope}")
    request = AskRequest(
        question=message.question,
        since=parse_stamp("since", message.since),
        until=parse_stamp("until", message.until),
        last_sec=message.last_sec or None,
        newest_pairs=NOW_PAIRS if message.scope == message.SCOPE_NOW else None,
        max_new_tokens=message.max_new_tokens or parameters.max_new_tokens,
        ranks_evidence=parameters.evidence_enabled,
    )
    check_request(request)
    return _with_time_words(request, now) if message.parse_time else request


def _with_time_words(request: AskRequest, now: float) -> AskRequest:
    if request.has_time_limit:
        raise BadRequestError("'parse_time' reads the limits from the question: leave out since, until and last_sec")
    words = read_time_words(request.question, now)
    return replace(request, since=words.since, until=words.until, time_words=words)


def choose_request_id(message: Any) -> str:
    """Return the id of an ``AskScene`` request or goal; a new one if the message has none or an invalid one."""
    return message.request_id if message.request_id and _is_id(message.request_id) else uuid.uuid4().hex[:12]


def check_id(name: str, value: str) -> None:
    """Check the id of a client or of a request.

    Raises:
        BadRequestError: The id is too long or not printable.
    """
    if not _is_id(value):
        raise BadRequestError(
            f"'{name}' must have at most {MAX_ID_CHARACTERS} printable characters, got {len(value)} characters"
        )


def _is_id(value: str) -> bool:
    return len(value) <= MAX_ID_CHARACTERS and value.isprintable()


def parse_timeout(message: Any, parameters: SceneMemoryParameters) -> float:
    """Return the deadline of an ``AskScene`` request or goal, in seconds from now; zero becomes the node's default.

    Raises:
        BadRequestError: The deadline is negative, not finite or too long.
    """
    timeout = float(message.timeout_sec)
    if not (math.isfinite(timeout) and 0 <= timeout <= MAX_TIMEOUT_SEC):
        raise BadRequestError(
            f"'timeout_sec' must be from 0 (the node's default) to {MAX_TIMEOUT_SEC:g} seconds, got {timeout}"
        )
    return timeout or parameters.timeout_sec


def parse_stamp(field: str, stamp: Time) -> float | None:
    """Return a stamp in seconds, equal to the float of a frame with the same stamp; None for a zero stamp.

    Args:
        field: Name of the message's field, for the error message.
        stamp: Stamp of the request.

    Raises:
        BadRequestError: The stamp is negative, or its nanoseconds are a second or more.
    """
    nanoseconds = nanoseconds_of(stamp)
    if nanoseconds < 0 or stamp.nanosec >= NANOSECONDS_PER_SECOND:
        raise BadRequestError(
            f"'{field}' must be a time after 1970 with less than 10⁹ ns, or zero, got {stamp.sec} s and "
            f"{stamp.nanosec} ns"
        )
    return seconds_of(nanoseconds) if nanoseconds else None


def select_cameras(cameras: Mapping[str, CameraMemory], name: str) -> tuple[CameraMemory, ...]:
    """Return the cameras that a request names.

    Args:
        cameras: Cameras by name; at least one.
        name: Camera name; empty: the first camera; ``ALL_CAMERAS``: all cameras.

    Raises:
        UnknownCameraError: No camera has this name.
    """
    return tuple(cameras.values()) if name == ALL_CAMERAS else (select_camera(cameras, name),)


def select_camera(cameras: Mapping[str, CameraMemory], name: str) -> CameraMemory:
    """Return the camera that a request names.

    Args:
        cameras: Cameras by name; at least one.
        name: Camera name; empty: the first camera.

    Raises:
        UnknownCameraError: No camera has this name.
    """
    if not name:
        return next(iter(cameras.values()))
    if name not in cameras:
        raise UnknownCameraError(
            f"unknown camera '{name}': the cameras are {', '.join(cameras)}; leave the name empty for the first one"
        )
    return cameras[name]


def select_camera_of_pair(cameras: Mapping[str, CameraMemory], name: str, pair_id: int) -> CameraMemory:
    """Return the camera of a request about one pair. Ids are unique in the node, so the id alone selects the camera.

    Args:
        cameras: Cameras by name; at least one.
        name: Camera name; empty: the camera that keeps the pair, or the first camera if none does.
        pair_id: Id of the pair; 0: the request has no id.

    Raises:
        UnknownCameraError: No camera has this name.
    """
    if not name and pair_id:
        for camera in cameras.values():
            if any(kept.id == pair_id for kept in camera.frame_manager.snapshot()):
                return camera
    return select_camera(cameras, name)
