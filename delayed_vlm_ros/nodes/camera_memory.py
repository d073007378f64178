"""One camera: from its serialised image messages to its memory, with the counters that go with it."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rclpy.impl.rcutils_logger import RcutilsLogger
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CompressedImage, Image

from delayed_vlm_ros.errors import PictureError
from delayed_vlm_ros.memory import FrameSampler, SmartFrameManager
from delayed_vlm_ros.memory.intake import FrameIntake
from delayed_vlm_ros.nodes.conversion import PictureConverter
from delayed_vlm_ros.nodes.rates import RateWindow
from delayed_vlm_ros.nodes.reports import CameraReport
from delayed_vlm_ros.nodes.stamps import read_stamp, seconds_of

_LOG_EVERY_SEC = 5.0
# Headers of frames that are no longer kept may come to this many before they are cleared away.
_SPARE_HEADERS = 200


@dataclass(frozen=True)
class FrameHeader:
    """What a frame's message said of when and where, exactly."""

    stamp_ns: int
    frame_id: str


class CameraMemory:
    """Feeds one camera's messages to one memory and counts what comes of them.

    ``receive`` is called from one thread at a time; the rest may be called from any.

    Args:
        name: The camera's name.
        topic: Where its messages come from, for people.
        message_type: ``Image`` or ``CompressedImage``.
        intake: The memory's entrance.
        frame_manager: The memory.
        sampler: Chooses the messages to remember.
        converter: Makes pictures of messages.
        now_ns: The node's clock, in nanoseconds.
        logger: Where dropped pictures are told, now and then.
    """

    def __init__(
        self,
        name: str,
        topic: str,
        message_type: type[Image | CompressedImage],
        *,
        intake: FrameIntake,
        frame_manager: SmartFrameManager,
        sampler: FrameSampler,
        converter: PictureConverter,
        now_ns: Callable[[], int],
        logger: RcutilsLogger,
    ) -> None:
        self.name = name
        self.topic = topic
        self.message_type = message_type
        self.frame_manager = frame_manager
        self._intake = intake
        self._sampler = sampler
        self._converter = converter
        self._now_ns = now_ns
        self._logger = logger
        self._adding = threading.Lock()  # between pictures and a reset
        self._headers: dict[float, FrameHeader] = {}
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
        stamp = seconds_of(stamp_ns)
        with self._adding:
            if not self._sampler.accept(stamp):
                return False
            message = self._deserialise(serialised)
            self._intake.add(self._converter.convert(message), stamp)
            self._frame_id = message.header.frame_id
            self._headers[stamp] = FrameHeader(stamp_ns, self._frame_id)
            self._forget_old_headers()
        return True

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
        return self._headers.get(stamp) or FrameHeader(round(stamp * 1e9), self._frame_id)

    @property
    def faults(self) -> tuple[str, ...]:
        """Standing faults that the camera's operator should mend."""
        if not self._stamps_missing:
            return ()
        return (
            f"camera {self.name} without time stamps: the times of arrival are used; set header.stamp in its driver",
        )

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
            self._intake.reset()
            self._sampler.reset()
            self._headers = {}

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
            input_rate_hz=self._input_rate.rate(now),
            sampled_rate_hz=self._sampled_rate.rate(now),
            silent_sec=None if self._last_arrival is None else now - self._last_arrival,
            converter=self._converter.name,
            faults=self.faults,
            degraded=self.degraded,
        )
