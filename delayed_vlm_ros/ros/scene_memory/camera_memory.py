"""One camera: from serialised image messages to its memory, with counters and warnings."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rclpy.impl.rcutils_logger import RcutilsLogger
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CompressedImage, Image

from delayed_vlm_ros.errors import ImageError, shortened
from delayed_vlm_ros.images.conversion import ImageConverter
from delayed_vlm_ros.ingest.ingestor import CONTINUES, SamplingIngestor
from delayed_vlm_ros.ingest.rate import RateWindow, SilenceWatch
from delayed_vlm_ros.memory import SmartFrameManager
from delayed_vlm_ros.memory.frame import Frame, KeptPair, RgbArray
from delayed_vlm_ros.ros.input.frame_headers import FrameHeader
from delayed_vlm_ros.ros.input.poses import PoseSource
from delayed_vlm_ros.ros.output.node_report import CameraReport
from delayed_vlm_ros.time import MAX_AHEAD_SEC, MAX_LATE_SEC, NANOSECONDS_PER_SECOND, read_stamp, steady_sec

MAX_FRAME_ID_CHARACTERS = 255
"""Longest frame_id that is kept with a frame and published in reports; longer ones are cut."""

_STAMPS_FROZEN = "stamps do not advance, arrival times are used instead: set header.stamp of every image in the driver"
_LOG_PERIOD_SEC = 5.0
_MAX_CLOCK_STOP_SEC = 2.0  # a simulation publishes its clock more often


class CameraMemory:
    """Adds the images of one camera to one memory and counts what arrives.

    One thread at a time calls ``receive``. The other methods are thread-safe.

    Args:
        name: The camera's name.
        topic: Resolved topic of its images.
        pose_topic: Resolved topic of its poses.
        message_type: ``Image`` or ``CompressedImage``.
        ingestor: Selects the images to sample and adds them to the memory.
        frame_manager: The memory.
        converter: Converts messages to RGB arrays.
        poses: Poses of the camera.
        now_ns: Returns the time of the node's clock, in nanoseconds.
        logger: The node's logger.
        steady: Steady clock, in seconds.
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
        poses: PoseSource,
        now_ns: Callable[[], int],
        logger: RcutilsLogger,
        steady: Callable[[], float] = steady_sec,
    ) -> None:
        self.name = name
        self.topic = topic
        self.pose_topic = pose_topic
        self.message_type = message_type
        self.frame_manager = frame_manager
        self.poses = poses
        self._ingestor = ingestor
        self._converter = converter
        self._now_ns = now_ns
        self._logger = logger
        self._steady = steady
        self._lock = threading.Lock()  # held while an image is added and while the memory is reset
        self._received = self._sampled = self._dropped = 0
        self._input_rate = RateWindow()
        self._silence = SilenceWatch(steady(), min_silence_sec=0.0)
        self._sampled_rate = RateWindow()
        self._last_arrival: float | None = None
        self._last_sampled_arrival = 0.0
        self._last_drop_reason = ""
        self._frame_id = ""
        self._times_jumped = 0
        self._last_jump = ""
        self._pending_clock_jump_sec: float | None = None
        self._clock_ns: int | None = None  # the node's clock at the newest message; 0 is unset, None before the first
        self._clock_changed = 0.0  # arrival of the first image at this time of the clock
        self._clock_stopped_sec = 0.0  # time for which images have arrived since
        self._ahead_of_clock_sec = 0.0  # stamp of the newest image, relative to the node's clock
        self._has_arrival_stamps = False  # some frames in the memory have arrival times as stamps

    def receive(self, serialised: bytes) -> None:
        """Count one serialised message, and add its image to the memory if it is due. Never raises."""
        arrival = self._steady()
        self._received += 1
        self._last_arrival = arrival
        self._input_rate.tick(arrival)
        self._silence.tick(arrival)
        try:
            if self._sample(serialised, arrival):
                self._sampled += 1
                self._sampled_rate.tick(arrival)
        except ImageError as error:
            self._drop(str(error))
        except Exception as error:  # noqa: BLE001  one bad message must not end the subscription
            self._drop(f"{type(error).__name__}: {error}")
            self._logger.error(
                f"camera {self.name}: adding an image failed: {traceback.format_exc()}",
                throttle_duration_sec=_LOG_PERIOD_SEC,
            )

    def _sample(self, serialised: bytes, arrival: float) -> bool:
        """Add the message's image if it is due. Return whether it was."""
        now_ns = self._now_ns()
        self._watch_clock(now_ns, arrival)
        stamp_ns = read_stamp(serialised)
        # While the clock is not set, arrival times must advance nevertheless.
        arrival_ns = now_ns or round(arrival * NANOSECONDS_PER_SECOND)
        were_frozen = self._ingestor.stamps_frozen
        stamp_ns = self._ingestor.usable_stamp(stamp_ns, arrival_ns)
        if self._ingestor.stamps_frozen and not were_frozen:
            self._logger.warning(f"camera {self.name}: {_STAMPS_FROZEN}", throttle_duration_sec=_LOG_PERIOD_SEC)
        self._ahead_of_clock_sec = (stamp_ns - now_ns) / NANOSECONDS_PER_SECOND
        with self._lock:
            self._apply_clock_jump()
            decision = self._ingestor.decide(stamp_ns, arrival, arrival_ns)
            if decision.jump_sec:
                self._report_jump(decision.jump_sec)
            if decision.jump_sec < 0 and self._ingestor.restart_on_jump:
                self._has_arrival_stamps = False
            self._has_arrival_stamps |= self._ingestor.stamps_missing or self._ingestor.stamps_frozen
            if not decision.is_due:
                return False
            message = self._deserialize(serialised)
            header = FrameHeader(stamp_ns, message.header.frame_id[:MAX_FRAME_ID_CHARACTERS])
            self._ingestor.add(self._convert(message), decision, header)
            self.poses.attach(header)
            self._frame_id = header.frame_id
            self._last_sampled_arrival = arrival
        return True

    def _watch_clock(self, now_ns: int, arrival: float) -> None:
        """Measure for how long the node's clock has not advanced while images arrive."""
        if now_ns != self._clock_ns:
            self._clock_ns, self._clock_changed = now_ns, arrival
        self._clock_stopped_sec = arrival - self._clock_changed

    def _convert(self, message: Any) -> RgbArray:
        bit_depth = self._converter.bit_depth
        bits = bit_depth.bits
        image = self._converter.convert(message)
        if bit_depth.bits != bits and not bit_depth.is_stated:
            self._logger.warning(
                f"camera {self.name}: 16-bit values seem to use {bit_depth.bits} bits and are scaled by them: set "
                "image_bit_depth if the camera has another depth"
            )
        if bit_depth.clips:
            self._logger.warning(
                f"camera {self.name}: 16-bit values larger than {bit_depth.bits} bits are clipped: correct "
                "image_bit_depth (16 for values in the high bits), or check the camera",
                throttle_duration_sec=_LOG_PERIOD_SEC,
            )
        return image

    def _deserialize(self, serialised: bytes) -> Any:
        try:
            return deserialize_message(serialised, self.message_type)
        except Exception as error:  # rclpy has no common class for the errors of an invalid message
            raise ImageError(
                f"cannot deserialize an image message of {len(serialised)} bytes ({type(error).__name__}: {error}): "
                "check the publisher"
            ) from error

    def _drop(self, reason: str) -> None:
        self._dropped += 1
        self._last_drop_reason = shortened(reason)
        self._logger.warning(
            f"camera {self.name}: image dropped: {self._last_drop_reason}", throttle_duration_sec=_LOG_PERIOD_SEC
        )

    def _report_jump(self, seconds: float) -> None:
        self._times_jumped += 1
        if seconds < 0:
            self.poses.reset()
            self._last_jump = f"stamps jumped back by {-seconds:.3f} s: {self._ingestor.backward_jump_effect}"
        else:
            self._last_jump = f"stamps jumped ahead by {seconds:.3f} s: {CONTINUES}"
        self._logger.warning(f"camera {self.name}: {self._last_jump}", throttle_duration_sec=_LOG_PERIOD_SEC)

    def handle_clock_jump(self, seconds: float) -> None:
        """Empty the memory after a jump of the node's simulated clock, if the memory restarts on time jumps.

        Never waits: while an image is being added, the memory is emptied at the next image instead. A memory that does
        not restart needs no action: the jump shows in the images' stamps.

        Args:
            seconds: Size of the jump in seconds; negative is backward.
        """
        if not self._ingestor.restart_on_jump:
            return
        self._pending_clock_jump_sec = seconds
        if self._lock.acquire(blocking=False):
            try:
                self._apply_clock_jump()
            finally:
                self._lock.release()

    def _apply_clock_jump(self) -> None:
        """Empty the memory once, for all clock jumps since the last call."""
        jump_sec, self._pending_clock_jump_sec = self._pending_clock_jump_sec, None
        if jump_sec is None or self.frame_manager.newest_stamp is None:
            return
        self._times_jumped += 1
        self.poses.reset()
        self._ingestor.reset()
        self._has_arrival_stamps = False
        self._last_jump = f"the clock jumped by {jump_sec:.3f} s: {self._ingestor.backward_jump_effect}"
        self._logger.warning(f"camera {self.name}: {self._last_jump}")

    def set_sample_rate(self, fps: float) -> None:
        """Change the number of frames to add per second."""
        with self._lock:
            self._ingestor.set_rate(fps)

    def restore(self, pairs: Sequence[KeptPair]) -> None:
        """Load key frames of an earlier run, in time order.

        Raises:
            ValueError: The memory is not empty.
        """
        with self._lock:
            self._ingestor.restore(pairs)

    def reset(self) -> None:
        """Drop all frames, and find the depth of 16-bit images again. The next image is due at any stamp."""
        with self._lock:
            self._ingestor.reset()
            self._converter.bit_depth.reset()
            self._has_arrival_stamps = False

    def header_of(self, frame: Frame) -> FrameHeader:
        """Return the header of one of this camera's frames."""
        header: FrameHeader = frame.source
        return header

    def age_sec(self, frame: Frame) -> float:
        """Return the age of one of this camera's frames in seconds; 0.0 if its stamp is ahead of the clock."""
        newest = self.frame_manager.newest_stamp
        is_comparable = not (self._ingestor.offset_sec or self._clock_fault)
        if is_comparable or newest is None:
            return max(0.0, (self._now_ns() - self.header_of(frame).stamp_ns) / NANOSECONDS_PER_SECOND)
        # Stamps jumped, or the clock is not set: older frames cannot be compared with the present clock.
        return max(0.0, newest - frame.stamp + self._steady() - self._last_sampled_arrival)

    @property
    def _clock_fault(self) -> str:
        """Why stamps cannot be compared with the node's clock; empty if they can."""
        if self._clock_ns is None:
            return ""
        remedy = "start the simulation, play the bag with --clock, or set use_sim_time to false"
        if self._clock_ns == 0:
            return f"nobody publishes /clock, but use_sim_time is set, so the node's clock is 0: {remedy}"
        if self._clock_stopped_sec > _MAX_CLOCK_STOP_SEC and self._ahead_of_clock_sec > MAX_AHEAD_SEC:
            return (
                f"/clock has stopped for {self._clock_stopped_sec:.0f} s, but images with newer stamps arrive: {remedy}"
            )
        return ""

    @property
    def input_warnings(self) -> Mapping[str, str]:
        """Return warnings about the images that arrive now, for the camera's operator, by kind."""
        found = self._stamp_warnings() | self._clock_warnings()
        if self.poses.warning:
            found["poses_missing"] = self.poses.warning
        return found

    def _stamp_warnings(self) -> dict[str, str]:
        """Return warnings about stamps that are missing or do not advance as arrival times do."""
        found: dict[str, str] = {}
        if self._ingestor.stamps_missing:
            found["stamps_missing"] = (
                "images have no stamps, arrival times are used instead: set header.stamp in the driver"
            )
        elif self._ingestor.stamps_frozen:
            found["stamps_frozen"] = _STAMPS_FROZEN
        share = self._ingestor.sampled_share
        if share is not None:
            found["stamps_slow"] = (
                f"only {share:.0%} of the images due by arrival time are also due by stamp, so the clock of the stamps "
                "is slow or coarse, or the delay grows: check header.stamp in the driver, and the network"
            )
        return found

    def _clock_warnings(self) -> dict[str, str]:
        """Return warnings about the node's clock, and about stamps that jumped or differ from it."""
        found: dict[str, str] = {}
        offset_sec = self._ingestor.offset_sec
        has_stamps = not (self._ingestor.stamps_missing or self._ingestor.stamps_frozen)
        if self._clock_fault:
            found["clock_unset" if not self._clock_ns else "clock_stopped"] = self._clock_fault
        if offset_sec and has_stamps:
            found["stamps_went_back" if offset_sec > 0 else "stamps_went_ahead"] = (
                f"stamps jumped {'back' if offset_sec > 0 else 'ahead'} by {abs(offset_sec):.3f} s and {CONTINUES}, so "
                "since and until refer to the memory's time: reset the memory to restart it"
            )
        ahead_sec = 0.0 if self._clock_fault else self._ahead_of_clock_sec
        if ahead_sec > MAX_AHEAD_SEC:
            found["stamps_ahead"] = (
                f"stamps are {ahead_sec:.3f} s ahead of the node's clock, so the ages of frames are wrong or refer to "
                "the memory's time: synchronise the clocks"
            )
        elif -ahead_sec > MAX_LATE_SEC and not offset_sec:  # after a jump, ages do not depend on the node's clock
            found["stamps_late"] = (
                f"stamps are {-ahead_sec:.3f} s older than the node's clock, so images arrive late or the ages of "
                "frames are wrong: synchronise the clocks; for a recording set use_sim_time"
            )
        return found

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return the warnings that answers about this camera carry, the input warnings included, with its name."""
        found = list(self.input_warnings.values())
        if self._has_arrival_stamps and not (self._ingestor.stamps_missing or self._ingestor.stamps_frozen):
            found.append("some frames have arrival times, because their images had no advancing stamps")
        general = [self._converter.fallback_reason] if self._converter.fallback_reason else []
        return (*(f"camera {self.name}: {warning}" for warning in found), *general)

    @property
    def last_drop_reason(self) -> str:
        """Why the last image was dropped; empty if none was."""
        return self._last_drop_reason

    @property
    def silent_sec(self) -> float | None:
        """Time since the last image, in seconds; None before the first."""
        last_arrival = self._last_arrival
        return None if last_arrival is None else self._steady() - last_arrival

    @property
    def unusually_silent_sec(self) -> float:
        """Time since the last image, in seconds, if it is long for a camera of this rate; 0.0 otherwise."""
        return self._silence.silent_sec(self._steady())

    def report(self, *, receiving: bool) -> CameraReport:
        """Return the camera's present state.

        Args:
            receiving: Whether the node takes images now.
        """
        now = self._steady()
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
            frames_without_pose=self.poses.frames_without_pose,
            input_rate_hz=self._input_rate.rate(now),
            sampled_rate_hz=self._sampled_rate.rate(now),
            silent_sec=self.silent_sec,
            converter=self._converter.name,
            input_warnings=tuple(self.input_warnings.values()),
            warnings=self.warnings,
            bit_depth=self._converter.bit_depth.bits,
        )
