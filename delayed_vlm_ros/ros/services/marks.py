"""Requests to mark a moment, or to take its mark off."""

from __future__ import annotations

from typing import Any

from delayed_vlm_ros.errors import MarksFullError, PairNotKeptError
from delayed_vlm_ros.memory import KeptPair
from delayed_vlm_ros.memory.marks import nearest_span
from delayed_vlm_ros.ros.scene_memory.camera import CameraMemory
from delayed_vlm_ros.ros.services.requests import parse_stamp
from delayed_vlm_ros.time import seconds_of

NEAREST_WITHIN_SEC = 5.0
"""How far a kept pair may be from the stamp that a request names, in seconds."""


def mark(request: Any, camera: CameraMemory) -> KeptPair:
    """Do what a ``Mark`` request says.

    Args:
        request: It.
        camera: The camera that it means.

    Returns:
        The pair as it is now.

    Raises:
        BadRequestError: Its stamp is no time.
        MarkError: There is no such pair, it may not be marked, or it is not marked.
    """
    memory = camera.frame_manager
    pair_id = request.id or _pair_at(request, camera).id
    if request.unmark:
        return memory.unmark(pair_id)
    try:
        return memory.mark(pair_id, request.label)
    except MarksFullError as error:
        raise MarksFullError(f"{error} (the parameter memory.marks.max)") from error


def _pair_at(request: Any, camera: CameraMemory) -> KeptPair:
    stamp = parse_stamp("stamp", request.stamp)
    snapshot = camera.frame_manager.snapshot()
    if not snapshot:
        raise PairNotKeptError(
            f"camera {camera.name} has nothing in its memory: check that images arrive on {camera.topic}"
        )
    if stamp is None:
        return snapshot[-1]
    spans = [_span(kept, camera) for kept in snapshot]
    nearest = nearest_span(spans, stamp, within_sec=NEAREST_WITHIN_SEC)
    if nearest is None:
        raise PairNotKeptError(
            f"no pair within {NEAREST_WITHIN_SEC:g} s of {stamp:.3f} s is kept by camera {camera.name}: what it keeps "
            f"begins at {spans[0][0]:.3f} s and ends at {spans[-1][1]:.3f} s; take a key frame's id"
        )
    return snapshot[nearest]


def _span(kept: KeptPair, camera: CameraMemory) -> tuple[float, float]:
    """When a pair was taken, on its camera's clock; the memory's own stamps may be ahead of that."""
    first, last = (seconds_of(camera.header_of(frame).stamp_ns) for frame in (kept.pair.first, kept.pair.last))
    return first, last
