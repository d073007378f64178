"""One camera: from its serialised image messages to its memory, with the counters that go with it."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from geometry_msgs.msg import PoseStamped
from rclpy.impl.rcutils_logger import RcutilsLogger
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CompressedImage, Image

from delayed_vlm_ros.errors import PictureError
from delayed_vlm_ros.memory import FrameSampler, SmartFrameManager
from delayed_vlm_ros.memory.intake import FrameIntake
from delayed_vlm_ros.memory.stamp_watch import StampWatch
from delayed_vlm_ros.nodes.conversion import PictureConverter
from delayed_vlm_ros.nodes.poses import PoseTrack
from delayed_vlm_ros.nodes.rates import RateWindow
from delayed_vlm_ros.nodes.reports import CameraReport
from delayed_vlm_ros.nodes.stamps import NANOSECONDS_PER_SECOND, read_stamp, seconds_of

_LOG_EVERY_SEC = 5.0
# Headers of frames that are no longer kept may come to this many before they are cleared away.
_SPARE_HEADERS = 200


@dataclass(frozen=True)
class FrameHeader:
    """What a frame's message said of when and where, exactly, and where the camera was, if that is known."""

    stamp_ns: int
    frame_id: str
    pose: PoseStamped | None = None


class CameraMemory:
    """Feeds one camera's messages to one memory and counts what comes of them.

    ``receive`` is called from one thread at a time; the rest may be called from any.

    Args:
        name: The camera's name.
        topic: Where its messages come from.
        pose_topic: Where its poses come from.
        message_type: ``Image`` or ``CompressedImage``.
        intake: The memory's entrance.
        frame_manager: The memory.
        sampler: Chooses the messages to remember.
        converter: Makes pictures of messages.
        poses: Where the camera was.
        restarts: Whether the memory begins anew when time jumps; else it goes on as if no time had passed.
        now_ns: The node's clock, in nanoseconds.
        logger: Where dropped pictures are told, now and then.
    """

    def __init__(
        self,
        name: str,
        topic: str,
        pose_topic: str,
        message_type: type[Image | CompressedImage],
        *,
        intake: FrameIntake,
        frame_manager: SmartFrameManager,
        sampler: FrameSampler,
        converter: PictureConverter,
        poses: PoseTrack,
        restarts: bool,
        now_ns: Callable[[], int],
        logger: RcutilsLogger,
    ) -> None:
        self.name = name
        self.topic = topic
        self.pose_topic = pose_topic
        self.message_type = message_type
        self.frame_manager = frame_manager
        self._intake = intake
        self._sampler = sampler
        self._converter = converter
        self.poses = poses
        self._restarts = restarts
        self._stamps = StampWatch()
        self._shift_ns = 0  # from the messages' time to the memory's
        self._times_jumped = 0
        self._jumped_back_sec = 0.0
        self._now_ns = now_ns
        self._logger = logger
        self._adding = threading.Lock()  # between pictures and a reset
        self._headers: dict[float, FrameHeader] = {}
        self._poses_to_come: list[float] = []  # stamps of frames so new that a nearer pose may still come
        self._most_headers = _SPARE_HEADERS
        self._frame_id = ""
        self._input_rate = RateWindow()
        self._sampled_rate = RateWindow()
        self._received = self._sampled = self._dropped = 0
        self._last_drop_reason = ""
        self._last_arrival: float | None = None
        self._stamps_missing = False

    def receive(self, serialised: bytes) -> None:
        """Take one serialised message; never raises. Most are only counted: few are due to be remembered."""
        arrival = time.monotonic()
        self._received += 1
        self._last_arrival = arrival
        self._input_rate.tick(arrival)
        try:
            if self._remember(serialised):
                self._sampled += 1
                self._sampled_rate.tick(arrival)
        except PictureError as error:
            self._drop(str(error))
        except Exception as error:  # noqa: BLE001  one bad message must not end the subscription
            self._drop(f"{type(error).__name__}: {error}")
            self._logger.error(traceback.format_exc(), throttle_duration_sec=_LOG_EVERY_SEC)  # noqa: TRY400  ROS's logger

    def _remember(self, serialised: bytes) -> bool:
        """Remember the message's picture if it is due; gives whether it was."""
        stamp_ns = read_stamp(serialised)
        if stamp_ns == 0:
            self._stamps_missing = True
            stamp_ns = self._now_ns()
        with self._adding:
            back = self._stamps.went_back(seconds_of(stamp_ns + self._shift_ns))
            if back is not None:
                self._go_back(back)
            stamp = seconds_of(stamp_ns + self._shift_ns)
            if not self._sampler.accept(stamp):
                return False
            message = self._deserialise(serialised)
            self._intake.add(self._converter.convert(message), stamp)
            self._frame_id = message.header.frame_id
            self._headers[stamp] = FrameHeader(stamp_ns, self._frame_id)
            self._poses_to_come.append(stamp)
            self._settle_poses(stamp_ns)
            self._forget_old_headers()
        return True

    def _settle_poses(self, newest_ns: int) -> None:
        """Give the frames for which no nearer pose can come any more the nearest there is."""
        waiting = [stamp for stamp in self._poses_to_come if stamp in self._headers]
        due = {stamp for stamp in waiting if newest_ns - self._headers[stamp].stamp_ns > 2 * self.poses.limit_ns}
        for stamp in due:
            header = self._headers[stamp]
            self._headers[stamp] = replace(header, pose=self.poses.nearest(header.stamp_ns))
        self._poses_to_come = [stamp for stamp in waiting if stamp not in due]

    def _go_back(self, back_sec: float) -> None:
        """Do what is to be done when the pictures' time has gone back."""
        self._times_jumped += 1
        if self._restarts:
            self._forget()
            outcome = "its memory begins anew"
        else:
            self._jumped_back_sec += back_sec
            # The newest stamp seen becomes the present one; the sampler's next slot comes a period later.
            self._shift_ns += round(back_sec * NANOSECONDS_PER_SECOND)
            self._stamps.reset()
            outcome = "its memory goes on as if no time had passed"
        message = f"camera {self.name}: time has gone back by {back_sec:.3f} s: {outcome}"
        self._logger.warning(message)

    def sample_at(self, fps: float) -> None:
        """Remember so many frames per second from now on."""
        sampler = FrameSampler(fps)
        with self._adding:
            self._sampler = sampler

    def clock_jumped(self, seconds: float) -> None:
        """Hear that the node's clock, a simulated one, has jumped by so many seconds, ahead or back.

        Where the memory goes on there is nothing to do: ahead, time has a gap, and back, the pictures will tell.
        """
        with self._adding:
            # From nothing to the first time told is no jump to speak of.
            if not self._restarts or self.frame_manager.newest_stamp is None:
                return
            self._times_jumped += 1
            self._forget()
        message = f"camera {self.name}: the clock has jumped by {seconds:.3f} s: its memory begins anew"
        self._logger.warning(message)

    def _deserialise(self, serialised: bytes) -> Any:
        try:
            return deserialize_message(serialised, self.message_type)
        except Exception as error:  # rclpy has no common class for what a damaged message can cause
            raise PictureError(
                f"an image message of {len(serialised)} bytes cannot be read ({type(error).__name__}: {error}): "
                "check the publisher"
            ) from error

    def _drop(self, reason: str) -> None:
        self._dropped += 1
        self._last_drop_reason = reason
        message = f"camera {self.name}: picture dropped: {reason}"
        self._logger.warning(message, throttle_duration_sec=_LOG_EVERY_SEC)

    def _forget_old_headers(self) -> None:
        if len(self._headers) <= self._most_headers:
            return
        kept = {stamp for pair in self.frame_manager.snapshot() for stamp in pair.stamps}
        self._headers = {stamp: header for stamp, header in self._headers.items() if stamp in kept}
        self._most_headers = len(self._headers) + _SPARE_HEADERS

    def header_of(self, stamp: float) -> FrameHeader:
        """What the message of the frame with this stamp said.

        Args:
            stamp: A frame's stamp as the memory has it, in seconds.
        """
        # A frame forgotten meanwhile still has its stamp, to a quarter of a microsecond.
        header = self._headers.get(stamp) or FrameHeader(round(stamp * 1e9) - self._shift_ns, self._frame_id)
        if stamp in self._poses_to_come:
            return replace(header, pose=self.poses.nearest(header.stamp_ns))
        return header

    @property
    def faults(self) -> tuple[str, ...]:
        """Standing faults that the camera's operator should mend."""
        found = []
        if self._stamps_missing:
            found.append(
                f"camera {self.name} without time stamps: the times of arrival are used; set header.stamp in its driver"
            )
        if self._jumped_back_sec:
            found.append(
                f"camera {self.name}: time has gone back by {self._jumped_back_sec:.3f} s, and the memory goes on as "
                "if no time had passed: since and until count on its time; reset the memory to begin anew"
            )
        return tuple(found)

    @property
    def degraded(self) -> tuple[str, ...]:
        """Standing ways in which answers about this camera's frames are less than they should be."""
        return (*self.faults, self._converter.notice) if self._converter.notice else self.faults

    @property
    def last_drop_reason(self) -> str:
        """Why the last picture was dropped; empty when none was."""
        return self._last_drop_reason

    def reset(self) -> None:
        """Forget all frames; the next picture is remembered, whatever its stamp."""
        with self._adding:
            self._forget()

    def _forget(self) -> None:
        self._intake.reset()
        self._sampler.reset()
        self._stamps.reset()
        self._headers = {}
        self._poses_to_come = []
        self._shift_ns = 0
        self._jumped_back_sec = 0.0

    def report(self, *, receiving: bool) -> CameraReport:
        """What arrives, now. ``receiving``: whether the node takes pictures at all."""
        now = time.monotonic()
        return CameraReport(
            name=self.name,
            topic=self.topic,
            frame_id=self._frame_id,
            receiving=receiving,
            images_received=self._received,
            images_sampled=self._sampled,
            images_dropped=self._dropped,
            last_drop_reason=self._last_drop_reason,
            times_jumped=self._times_jumped,
            input_rate_hz=self._input_rate.rate(now),
            sampled_rate_hz=self._sampled_rate.rate(now),
            silent_sec=None if self._last_arrival is None else now - self._last_arrival,
            converter=self._converter.name,
            faults=self.faults,
            degraded=self.degraded,
        )
