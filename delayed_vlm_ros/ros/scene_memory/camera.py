"""One camera: from its serialised image messages to its memory, with the counters that go with it."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from rclpy.impl.rcutils_logger import RcutilsLogger
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CompressedImage, Image

from delayed_vlm_ros.errors import ImageError, shortened
from delayed_vlm_ros.images.conversion import ImageConverter
from delayed_vlm_ros.ingest.ingestor import SamplingIngestor
from delayed_vlm_ros.ingest.rate import RateWindow
from delayed_vlm_ros.memory import SmartFrameManager
from delayed_vlm_ros.memory.frame import Frame, KeptPair
from delayed_vlm_ros.ros.input.frame_headers import FrameHeader
from delayed_vlm_ros.ros.input.poses import PoseBuffer
from delayed_vlm_ros.ros.output.reports import CameraReport
from delayed_vlm_ros.time import NANOSECONDS_PER_SECOND, read_stamp

MAX_FRAME_ID_CHARACTERS = 255
"""What is kept of a frame_id: it is kept with every frame, and told with every report."""

_LOG_EVERY_SEC = 5.0
_AHEAD_SEC = 5.0  # clocks of two machines may differ a little
_BEHIND_SEC = 10.0  # and images may arrive late, from a network camera or on a busy machine


class CameraMemory:
    """Feeds one camera's messages to one memory and counts what comes of them.

    ``receive`` is called from one thread at a time; the rest may be called from any.

    Args:
        name: The camera's name.
        topic: Where its messages come from.
        pose_topic: Where its poses come from.
        message_type: ``Image`` or ``CompressedImage``.
        ingestor: Chooses the messages to remember, and brings their images into the memory.
        frame_manager: The memory.
        converter: Makes images of messages.
        poses: Where the camera was.
        now_ns: The node's clock, in nanoseconds.
        logger: Where dropped images are told, now and then.
    """

    def __init__(
        self,
        name: str,
        topic: str,
        pose_topic: str,
        message_type: type[Image | CompressedImage],
        *,
        ingestor: SamplingIngestor,
        frame_manager: SmartFrameManager,
        converter: ImageConverter,
        poses: PoseBuffer,
        now_ns: Callable[[], int],
        logger: RcutilsLogger,
    ) -> None:
        self.name = name
        self.topic = topic
        self.pose_topic = pose_topic
        self.message_type = message_type
        self.frame_manager = frame_manager
        self._ingestor = ingestor
        self._converter = converter
        self.poses = poses
        self._newest_arrival = 0.0
        self._times_jumped = 0
        self._last_jump = ""
        self._now_ns = now_ns
        self._logger = logger
        self._clock_jump_sec: float | None = None  # one of the node's clock, not acted on yet
        self._adding = threading.Lock()  # between images and a reset
        self._frame_id = ""
        self._input_rate = RateWindow()
        self._sampled_rate = RateWindow()
        self._received = self._sampled = self._dropped = 0
        self._last_drop_reason = ""
        self._last_arrival: float | None = None
        self._clock_unset = False  # at the newest image
        self._stamps_made_up = False  # of some since the memory began
        self._ahead_of_clock_sec = 0.0  # the newest image's stamp

    def receive(self, serialised: bytes) -> None:
        """Take one serialised message; never raises. Most are only counted: few are due to be remembered."""
        arrival = time.monotonic()
        self._received += 1
        self._last_arrival = arrival
        self._input_rate.tick(arrival)
        try:
            if self._remember(serialised, arrival):
                self._sampled += 1
                self._sampled_rate.tick(arrival)
        except ImageError as error:
            self._drop(str(error))
        except Exception as error:  # noqa: BLE001  one bad message must not end the subscription
            self._drop(f"{type(error).__name__}: {error}")
            self._logger.error(traceback.format_exc(), throttle_duration_sec=_LOG_EVERY_SEC)  # noqa: TRY400  ROS's logger

    def _remember(self, serialised: bytes, arrival: float) -> bool:
        """Remember the message's image if it is due; gives whether it was."""
        stamp_ns = read_stamp(serialised)
        now_ns = self._now_ns()
        self._clock_unset = now_ns == 0
        stood_still = self._ingestor.stamps_frozen
        stamp_ns = self._ingestor.usable_stamp(stamp_ns, now_ns)
        if self._ingestor.stamps_frozen and not stood_still:
            self._logger.warning(self._still_fault, throttle_duration_sec=_LOG_EVERY_SEC)
        self._ahead_of_clock_sec = (stamp_ns - now_ns) / NANOSECONDS_PER_SECOND
        with self._adding:
            self._follow_clock()
            # After it: a clock that has jumped begins another memory, to which this image belongs.
            self._stamps_made_up |= self._ingestor.stamps_missing or self._ingestor.stamps_frozen
            decision = self._ingestor.decide(stamp_ns, arrival, now_ns)
            if decision.jump_sec:
                self._tell_jump(decision.jump_sec)
            if not decision.is_due:
                return False
            message = self._deserialise(serialised)
            header = FrameHeader(stamp_ns, message.header.frame_id[:MAX_FRAME_ID_CHARACTERS])
            self.poses.attach(header)
            self._ingestor.add(self._converter.convert(message), decision, header)
            self._frame_id = header.frame_id
            self._newest_arrival = arrival
        return True

    def _tell_jump(self, seconds: float) -> None:
        """Say that the images' time has jumped."""
        self._times_jumped += 1
        if seconds < 0:
            self.poses.reset()
            self._last_jump = f"time has gone back by {-seconds:.3f} s: {self._ingestor.backward_jump_effect}"
        else:
            self._last_jump = f"time has jumped ahead by {seconds:.3f} s: what is kept stays"
        message = f"camera {self.name}: {self._last_jump}"
        self._logger.warning(message, throttle_duration_sec=_LOG_EVERY_SEC)

    def sample_at(self, fps: float) -> None:
        """Remember so many frames per second from now on."""
        with self._adding:
            self._ingestor.set_rate(fps)

    def clock_jumped(self, seconds: float) -> None:
        """Hear that the node's clock, a simulated one, has jumped by so many seconds, ahead or back.

        Never waits for an image at work: the memory then begins anew at the next one. Where the memory goes on there
        is nothing to do: ahead, time has a gap, and back, the images will tell.
        """
        if not self._ingestor.restart_on_jump:
            return
        self._clock_jump_sec = seconds
        if self._adding.acquire(blocking=False):
            try:
                self._follow_clock()
            finally:
                self._adding.release()

    def _follow_clock(self) -> None:
        """Begin anew if the clock has jumped since this was called last, once however often it has."""
        jump_sec, self._clock_jump_sec = self._clock_jump_sec, None
        if jump_sec is None or self.frame_manager.newest_stamp is None:
            return
        self._times_jumped += 1
        self.poses.reset()
        self._ingestor.reset()
        self._stamps_made_up = False
        self._last_jump = f"the clock has jumped by {jump_sec:.3f} s: its memory begins anew, without marks"
        message = f"camera {self.name}: {self._last_jump}"
        self._logger.warning(message)

    def _deserialise(self, serialised: bytes) -> Any:
        try:
            return deserialize_message(serialised, self.message_type)
        except Exception as error:  # rclpy has no common class for what a damaged message can cause
            raise ImageError(
                f"an image message of {len(serialised)} bytes cannot be read ({type(error).__name__}: {error}): "
                "check the publisher"
            ) from error

    def _drop(self, reason: str) -> None:
        self._dropped += 1
        self._last_drop_reason = shortened(reason)
        message = f"camera {self.name}: image dropped: {self._last_drop_reason}"
        self._logger.warning(message, throttle_duration_sec=_LOG_EVERY_SEC)

    def header_of(self, frame: Frame) -> FrameHeader:
        """What the message of one of its frames said."""
        header: FrameHeader = frame.source
        return header

    def age_sec(self, frame: Frame) -> float:
        """Age of one of its frames, in seconds; 0.0 for a stamp ahead of the clock."""
        newest = self.frame_manager.newest_stamp
        if not self._ingestor.offset_sec or newest is None:
            return max(0.0, (self._now_ns() - self.header_of(frame).stamp_ns) / NANOSECONDS_PER_SECOND)
        # The clock has been set back: stamps of before say nothing against it.
        return max(0.0, newest - frame.stamp + time.monotonic() - self._newest_arrival)

    @property
    def _still_fault(self) -> str:
        return (
            f"camera {self.name}: its stamps do not advance: the times of arrival are used; set header.stamp of each "
            "image in its driver"
        )

    @property
    def faults(self) -> tuple[str, ...]:
        """Standing faults that the camera's operator should mend."""
        found = []
        if self._ingestor.stamps_missing:
            found.append(
                f"camera {self.name} without time stamps: the times of arrival are used; set header.stamp in its driver"
            )
        elif self._ingestor.stamps_frozen:
            found.append(self._still_fault)
        share = self._ingestor.sampled_share
        if share is not None:
            found.append(
                f"camera {self.name}: of the images due by their times of arrival, only {share:.0%} are due by their "
                "stamps: the stamps' clock is slow or coarse, or images arrive ever later; check header.stamp in its "
                "driver, and the network"
            )
        if self._clock_unset:
            found.append(
                f"camera {self.name}: this node's clock stands at 0, as use_sim_time is set and nobody publishes "
                "/clock: start the simulation, play the bag with --clock, or set use_sim_time to false"
            )
        elif self._ahead_of_clock_sec > _AHEAD_SEC:
            found.append(
                f"camera {self.name}: its stamps are {self._ahead_of_clock_sec:.3f} s ahead of this node's clock, so "
                "ages of frames mean nothing: set the clocks by each other"
            )
        # Once time has gone back, ages are those of the memory's own time.
        if -self._ahead_of_clock_sec > _BEHIND_SEC and not self._ingestor.offset_sec:
            found.append(
                f"camera {self.name}: its stamps are {-self._ahead_of_clock_sec:.3f} s behind this node's clock, so "
                "its images arrive late or ages of frames mean nothing: set the clocks by each other; a recording "
                "needs use_sim_time"
            )
        if self._ingestor.offset_sec:
            found.append(
                f"camera {self.name}: time has gone back by {self._ingestor.offset_sec:.3f} s, and the memory goes on "
                "as if no time had passed: since and until count on its time; reset the memory to begin anew"
            )
        return tuple(found)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Standing ways in which answers about this camera's frames are less than they should be."""
        found = list(self.faults)
        if self._stamps_made_up and not (self._ingestor.stamps_missing or self._ingestor.stamps_frozen):
            found.append(
                f"camera {self.name}: images came without time stamps that advance for a while; those have the times "
                "of arrival"
            )
        if self._converter.fallback_reason:
            found.append(self._converter.fallback_reason)
        return tuple(found)

    @property
    def last_drop_reason(self) -> str:
        """Why the last image was dropped; empty when none was."""
        return self._last_drop_reason

    def restore(self, pairs: Sequence[KeptPair]) -> None:
        """Take in the key frames of an earlier run, in time order.

        Raises:
            ValueError: The memory is not empty.
        """
        with self._adding:
            self._ingestor.restore(pairs)

    def reset(self) -> None:
        """Forget all frames; the next image is remembered, whatever its stamp."""
        with self._adding:
            self._ingestor.reset()
            self._stamps_made_up = False

    def report(self, *, receiving: bool) -> CameraReport:
        """What arrives, now. ``receiving``: whether the node takes images at all."""
        now = time.monotonic()
        return CameraReport(
            name=self.name,
            topic=self.topic,
            frame_id=self._frame_id,
            receiving=receiving,
            images_received=self._received,
            images_sampled=self._sampled,
            images_dropped=self._dropped,
            images_missed=self._ingestor.images_missed,
            images_restamped=self._ingestor.images_restamped,
            last_drop_reason=self._last_drop_reason,
            times_jumped=self._times_jumped,
            last_jump=self._last_jump,
            poses_received=self.poses.received,
            poses_unusable=self.poses.unusable,
            input_rate_hz=self._input_rate.rate(now),
            sampled_rate_hz=self._sampled_rate.rate(now),
            silent_sec=None if self._last_arrival is None else now - self._last_arrival,
            converter=self._converter.name,
            faults=self.faults,
            warnings=self.warnings,
        )
