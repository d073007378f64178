"""The ``~/mark`` service: marking a kept pair, or removing its mark."""

from __future__ import annotations

from typing import Any

from delayed_vlm_ros.errors import MarksFullError, PairNotKeptError
from delayed_vlm_ros.memory import KeptPair
from delayed_vlm_ros.memory.marks import nearest_span
from delayed_vlm_ros.ros.scene_memory.camera_memory import CameraMemory
from delayed_vlm_ros.ros.services.requests import parse_stamp
from delayed_vlm_ros.time import seconds_of

NEAREST_WITHIN_SEC = 5.0
"""Maximum distance from a request's stamp to the selected pair, in seconds."""


def handle_mark(request: Any, camera: CameraMemory) -> KeptPair:
    """Set or remove the mark of a ``Mark`` request and return the pair after the change.

    Args:
        request: The request.
        camera: The camera of the request.

    Raises:
        BadRequestError: The stamp is invalid.
        MarkError: The pair is not kept, cannot be marked, or has no mark to remove.
    """
    memory = camera.frame_manager
    pair_id = request.id or _select_pair(request, camera).id
    if request.unmark:
        return memory.unmark(pair_id)
    try:
        return memory.mark(pair_id, request.label)
    except MarksFullError as error:
        raise MarksFullError(f"{error} (the parameter memory.marks.max)") from error


def _select_pair(request: Any, camera: CameraMemory) -> KeptPair:
    stamp = parse_stamp("stamp", request.stamp)
    snapshot = camera.frame_manager.snapshot()
    if not snapshot:
        raise PairNotKeptError(
            f"the memory of camera {camera.name} is empty: check that images arrive on {camera.topic}"
        )
    if stamp is None:
        return snapshot[-1]
    spans = [_span(kept, camera) for kept in snapshot]
    nearest = nearest_span(spans, stamp, within_sec=NEAREST_WITHIN_SEC)
    if nearest is None:
        raise PairNotKeptError(
            f"camera {camera.name} keeps no pair within {NEAREST_WITHIN_SEC:g} s of {stamp:.3f} s: its pairs are from "
            f"{spans[0][0]:.3f} s to {spans[-1][1]:.3f} s; use the id of a key frame"
        )
    return snapshot[nearest]


def _span(kept: KeptPair, camera: CameraMemory) -> tuple[float, float]:
    """Return first and last stamp of a pair on the camera's clock; the memory's own stamps may be ahead of it."""
    first, last = (seconds_of(camera.header_of(frame).stamp_ns) for frame in (kept.pair.first, kept.pair.last))
    return first, last
