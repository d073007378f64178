"""Contents of an export, read from a running ``scene_memory`` node."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from rclpy.qos import DurabilityPolicy, QoSProfile

from delayed_vlm_ros.action import AskScene
from delayed_vlm_ros.errors import ExportError
from delayed_vlm_ros.export.contents import (
    Evidence,
    ExportedAlert,
    ExportedAnswer,
    ExportedPair,
    JournalLine,
    LeftPair,
    PairImages,
    Pose,
    is_within,
)
from delayed_vlm_ros.msg import Alert, KeyFrame, KeyFrameArray
from delayed_vlm_ros.ros.client import SceneMemoryClient
from delayed_vlm_ros.ros.journal_client import JournalClient, to_journal_line
from delayed_vlm_ros.ros.services.journal_services import OFF
from delayed_vlm_ros.ros.services.requests import ALL_CAMERAS
from delayed_vlm_ros.ros.time import time_message
from delayed_vlm_ros.time import nanoseconds_of

MAX_LINES = 100_000
"""Largest number of lines of the journal in an export, the newest ones."""

_MAX_IDS = 4096  # in one request
_STAMPS_SEC = 2.0  # for messages that the node keeps for new subscribers
_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
_TIMEOUT_SEC = 30.0  # for 32 MB of images


def read_stamps(client: SceneMemoryClient) -> Mapping[int, int]:
    """Return the stamps of the kept pairs of all known cameras by id, in nanoseconds; what arrives within 2 s.

    Args:
        client: Client of the node.
    """
    cameras = list(client.statistics_by_camera)
    topics = [f"scene_memory/{camera}/key_frames" for camera in cameras if len(cameras) > 1]
    received: dict[str, KeyFrameArray] = {}
    subscriptions = [
        client.node.create_subscription(
            KeyFrameArray, topic, lambda message: received.update({message.camera: message}), _LATCHED
        )
        for topic in topics or ["scene_memory/key_frames"]
    ]
    client.wait_until(lambda: len(received) == len(subscriptions), _STAMPS_SEC)
    for subscription in subscriptions:
        client.node.destroy_subscription(subscription)
    return {
        int(frame.id): nanoseconds_of(frame.header.stamp)
        for message in received.values()
        for frame in message.key_frames
    }


def read_pairs(
    client: SceneMemoryClient,
    camera: str,
    limits_ns: tuple[int, int],
    stamps_ns: Mapping[int, int],
    interrupted: Callable[[], bool] = lambda: False,
) -> Iterator[PairImages | LeftPair]:
    """Yield all kept pairs with their images, a few at a time.

    Args:
        client: Client of the node.
        camera: Camera of the pairs; ``*``: all cameras.
        limits_ns: Earliest and latest stamp in nanoseconds; 0 for no limit.
        stamps_ns: Stamps of pairs by id, in nanoseconds. Pairs outside the limits are not read, and are not reported
            when they leave; a pair without a stamp may be within.
        interrupted: Returns whether to stop.

    Raises:
        ExportError: The node refuses the request, or the export was interrupted.
        NodeNotFoundError: The node is unreachable.
    """

    def may_be_within(pair_id: int) -> bool:
        return pair_id not in stamps_ns or is_within(stamps_ns[pair_id], limits_ns)

    response = client.get_frames(camera=camera, image_format="png", timeout_sec=_TIMEOUT_SEC)
    waiting: list[int] = []
    while True:
        if not response.success:
            raise ExportError(f"cannot read the frames: {response.error_msg}")
        for images in zip(response.key_frames, response.first_images, response.second_images, strict=True):
            if interrupted():
                raise ExportError("interrupted: nothing was written: start the export again")
            if is_within(nanoseconds_of(images[0].header.stamp), limits_ns):
                yield PairImages(to_pair(images[0]), bytes(images[1].data), bytes(images[2].data))
        yield from map(LeftPair, response.missing)
        asked, waiting = waiting[:_MAX_IDS], [*filter(may_be_within, response.left_out), *waiting[_MAX_IDS:]]
        if not waiting:
            return
        if asked and not (response.key_frames or response.missing):
            raise ExportError(
                f"the node returned none of {len(asked)} frames: read its log, then start the export again"
            )
        response = client.get_frames(waiting[:_MAX_IDS], camera=ALL_CAMERAS, timeout_sec=_TIMEOUT_SEC)


def read_lines(
    journal: JournalClient, camera: str, limits_ns: tuple[int, int]
) -> tuple[tuple[JournalLine, ...], tuple[str, ...]]:
    """Return the newest lines of the journal, oldest first, and what limits them; nothing without a journal.

    Args:
        journal: Client of the journal.
        camera: Camera of the lines; ``*``: all cameras.
        limits_ns: Earliest and latest stamp in nanoseconds; 0 for no limit.

    Raises:
        ExportError: The node refuses the request.
        NodeNotFoundError: The node is unreachable.
    """
    lines: list[JournalLine] = []
    warnings: dict[str, None] = {}
    lines_left = 0
    for response in journal.pages(MAX_LINES, camera=camera, since_ns=limits_ns[0], until_ns=limits_ns[1]):
        if not response.success:
            raise ExportError(f"cannot read the journal: {response.error_msg}")
        lines += map(to_journal_line, response.lines)
        warnings.update(dict.fromkeys(warning for warning in response.warnings if warning != OFF))
        lines_left = response.lines_left
    if lines_left:
        warnings[f"{lines_left} older lines of the journal are missing: export a shorter time"] = None
    return tuple(sorted(lines, key=lambda line: (line.stamp_ns, line.id))), tuple(warnings)


def read_answers(
    client: SceneMemoryClient,
    questions: Iterable[str],
    camera: str,
    limits_ns: tuple[int, int],
    timeout_sec: float,
    interrupted: Callable[[], bool] = lambda: False,
) -> tuple[ExportedAnswer, ...]:
    """Ask questions about the exported time and cameras. An answer that fails has its error.

    Args:
        client: Client of the node.
        questions: The questions.
        camera: Camera of the questions; empty or ``*``: all cameras.
        limits_ns: Earliest and latest stamp in nanoseconds; 0 for no limit.
        timeout_sec: Deadline of each question, in seconds.
        interrupted: Returns whether to stop.

    Raises:
        NodeNotFoundError: The node is unreachable, or was restarted.
        AskTimeoutError: No result arrived.
    """
    answers = []
    for question in questions:
        goal = goal_of(question, camera, limits_ns, timeout_sec)
        result = client.stream(goal, lambda _: None, cancelled=interrupted)
        answers.append(to_answer(goal, result, _now_ns(client, result)))
    return tuple(answers)


def _now_ns(client: SceneMemoryClient, result: AskScene.Result) -> int:
    """Return the node's time, which it reports once a second; not before the newest frame of an answer."""
    statistics = client.node_statistics
    now_ns = nanoseconds_of(statistics.header.stamp) if statistics is not None else 0
    return max(now_ns, nanoseconds_of(result.snapshot_stamp))


def goal_of(question: str, camera: str, limits_ns: tuple[int, int], timeout_sec: float) -> AskScene.Goal:
    """Return the goal of a question about the exported time and cameras; no camera: all of them."""
    since_ns, until_ns = limits_ns
    return AskScene.Goal(
        question=question,
        camera=camera or ALL_CAMERAS,
        since=time_message(since_ns),
        until=time_message(until_ns),
        timeout_sec=timeout_sec,
    )


def to_answer(goal: AskScene.Goal, result: AskScene.Result, stamp_ns: int) -> ExportedAnswer:
    """Return the answer of a result. If only one camera was asked, its name is not part of the text.

    Args:
        goal: The question.
        result: Its result.
        stamp_ns: Time of the answer in nanoseconds.
    """
    parts = result.camera_answers
    camera, answer = (parts[0].camera, parts[0].answer) if len(parts) == 1 else (goal.camera, result.answer)
    return ExportedAnswer(
        stamp_ns=stamp_ns,
        camera=camera,
        question=goal.question,
        answer=answer,
        error=result.error_msg,
        pair_ids=tuple(map(int, result.frame_ids)),
        evidence=tuple(
            Evidence(int(frame.id), nanoseconds_of(frame.header.stamp), float(frame.relevance))
            for frame in result.evidence
        ),
        warnings=tuple(result.metrics.warnings),
    )


def to_alerts(alerts: Sequence[Alert], camera: str, limits_ns: tuple[int, int]) -> tuple[ExportedAlert, ...]:
    """Return the alerts of a camera (``*``: of all) within limits, oldest first."""
    found = [
        ExportedAlert(
            stamp_ns=nanoseconds_of(alert.header.stamp),
            camera=alert.camera,
            watch=alert.watch,
            question=alert.question,
            is_rising=alert.edge == Alert.RISING,
            p_yes=float(alert.p_yes),
            pair_ids=tuple(int(frame.id) for frame in alert.evidence),
        )
        for alert in alerts
        if camera in (ALL_CAMERAS, alert.camera)
    ]
    return tuple(sorted((one for one in found if is_within(one.stamp_ns, limits_ns)), key=lambda one: one.stamp_ns))


def to_pair(frame: KeyFrame) -> ExportedPair:
    """Return the pair of a message."""
    return ExportedPair(
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
        pose=_to_pose(frame.pose) if frame.pose_valid else None,
    )


def _to_pose(stamped: Any) -> Pose:
    position, orientation = stamped.pose.position, stamped.pose.orientation
    return Pose(
        stamped.header.frame_id,
        (position.x, position.y, position.z),
        (orientation.x, orientation.y, orientation.z, orientation.w),
    )
