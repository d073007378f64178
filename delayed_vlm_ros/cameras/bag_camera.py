"""bag_camera: publishes a recording at its recorded speed, as an image topic and as the time on ``/clock``."""

from __future__ import annotations

import sys
import time
import traceback
from dataclasses import dataclass
from typing import Any

from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image

from delayed_vlm_ros.cameras.playback_clock import PlaybackClock
from delayed_vlm_ros.errors import DelayedVlmError, ImageError, RecordingError
from delayed_vlm_ros.images.messages import COMPRESSED_TYPE
from delayed_vlm_ros.images.player import Player
from delayed_vlm_ros.replay.recordings import RecordedImage, Recording, open_recording
from delayed_vlm_ros.ros.image_publisher import image_message
from delayed_vlm_ros.ros.log import LoggingNode
from delayed_vlm_ros.ros.parameters import declare, parameter, read
from delayed_vlm_ros.ros.process import run_node
from delayed_vlm_ros.ros.time import time_message

_DEPTH = 100  # images queued for a slow reliable subscriber, so that none of a recording is lost
_POLL_SEC = 0.02
_ENDED_CLOCK_PERIOD_SEC = 1.0  # after the end the clock is published at this period, for nodes that start then
_LEAD_SEC = 0.5  # a new timeline is published this long before its first image, so that all nodes have its time
_RELIABLE_TIMEOUT_SEC = 2.0  # a best-effort subscriber may switch to reliable within this time
_LOG_PERIOD_SEC = 5.0


@dataclass(frozen=True)
class BagCameraParameters:
    """Parameters of the ``bag_camera`` node."""

    bag: str = parameter(
        "", "path of the recording: a ROS 2 bag (its folder, or a .mcap or .db3 file), a video file or an image folder"
    )
    topic: str = parameter("", "image topic of the bag; empty for the only image topic")
    rate: float = parameter(1.0, "playback speed relative to real time", minimum=0.01, maximum=100.0)
    loop: bool = parameter(default=False, description="repeat the recording at its end; its time jumps back then")
    publish_clock: bool = parameter(
        default=True, description="publish the recording's time on /clock, for nodes with use_sim_time"
    )
    wait_for_subscriber: bool = parameter(default=True, description="start playing at the first subscription")
    frame_id: str = parameter("camera", "frame_id of the image headers; messages of a bag keep their own")


class BagCamera(LoggingNode):
    """Publishes the images of a recording with their own stamps, and its time on ``/clock``.

    Messages of a bag are published unchanged, compressed ones on ``image/compressed``. One thread publishes everything,
    so the time of an image always precedes the image.

    Raises:
        RecordingError: The recording cannot be read, or has no such images.
        VideoSourceError: The recording is a video that cannot be read.
        ConfigurationError: A parameter is invalid.
    """

    def __init__(self) -> None:
        super().__init__("bag_camera")
        declare(self, BagCameraParameters)
        self._settings = read(self, BagCameraParameters)
        if not self._settings.bag:
            raise RecordingError(
                "parameter 'bag' is empty: set the path of a recording, for example with --ros-args -p bag:=my_bag"
            )
        recording = self._open()
        is_compressed = recording.type_name == COMPRESSED_TYPE
        # The naming rule of image_transport: one remapping of image serves both.
        self._topic = self.resolve_topic_name("image") + ("/compressed" if is_compressed else "")
        self._images = self.create_publisher(
            CompressedImage if is_compressed else Image,
            self._topic,
            QoSProfile(depth=_DEPTH, reliability=ReliabilityPolicy.RELIABLE),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        self._clock_publisher = self.create_publisher(Clock, "/clock", 1) if self._settings.publish_clock else None
        self._playback_clock = PlaybackClock(self._settings.rate)
        self._has_subscriber = not self._settings.wait_for_subscriber
        self._player = Player(
            recording,
            self._play,
            reopen=self._reopen,
            loop=self._settings.loop,
            on_late=self._log_late,
            on_finish=self._finish,
        )
        self._log_recording(recording, is_compressed=is_compressed)
        self._player.start()

    def close(self) -> None:
        """Stop playing; return within half a second."""
        self._player.close()

    def _open(self) -> Recording:
        recording = open_recording(self._settings.bag, topic=self._settings.topic)
        if recording.image_count == 0:
            recording.close()
            raise RecordingError(f"{self._settings.bag} has no images on topic {recording.topic}: record it again")
        return recording

    def _reopen(self) -> Recording:
        self.get_logger().info(f"{self._settings.bag} starts again, and its time jumps back")
        return self._open()

    def _play(self, recording: Recording) -> int:
        """Publish each image at its time; return the number of images."""
        count = 0
        self._playback_clock = PlaybackClock(self._settings.rate)
        for image in recording.images():
            try:
                stamp_ns = image.stamp_ns or image.arrival_ns
                message = self._message(image)
            except ImageError as error:
                self.get_logger().warning(f"skipping an image: {error}", throttle_duration_sec=_LOG_PERIOD_SEC)
                continue
            if not self._wait_until(stamp_ns, image.arrival_ns):
                return count
            self._images.publish(message)
            count += 1
        self._log_warnings(recording)
        hint = "" if self._settings.loop else "; set the parameter 'loop' to repeat it"
        self.get_logger().info(f"{self._settings.bag} has ended after {count} images{hint}")
        return count

    def _message(self, image: RecordedImage) -> Any:
        if image.serialised:
            return image.serialised
        message = image_message(image.decode())
        message.header.stamp = time_message(image.stamp_ns)
        message.header.frame_id = self._settings.frame_id
        return message

    def _wait_until(self, stamp_ns: int, recorded_ns: int) -> bool:
        """Publish the clock until an image is due; return False if the node is closing."""
        if self._playback_clock.begins_timeline(stamp_ns, recorded_ns):
            if not (self._wait_for_subscriber() and self._player.wait(_LEAD_SEC, self._publish_clock)):
                return False
            self._playback_clock.resume()
        if not self._player.wait_until(self._playback_clock, recorded_ns, self._publish_clock):
            return False
        self._playback_clock.set_to(stamp_ns, recorded_ns)
        self._publish_clock()
        return True

    def _wait_for_subscriber(self) -> bool:
        """Publish the clock until there is a subscriber; return False if the node is closing.

        A best-effort subscription may be replaced by a reliable one when it discovers this publisher. It would lose
        images in between, so wait for that.
        """
        subscribed_at: float | None = None
        while not self._has_subscriber:
            if not self._player.wait(_POLL_SEC, self._publish_clock):
                return False
            is_subscribed = self._images.get_subscription_count() > 0
            subscribed_at = (subscribed_at or time.monotonic()) if is_subscribed else None
            subscriptions = self.get_subscriptions_info_by_topic(self._images.topic_name)
            are_reliable = all(one.qos_profile.reliability == ReliabilityPolicy.RELIABLE for one in subscriptions)
            self._has_subscriber = subscribed_at is not None and (
                are_reliable or time.monotonic() - subscribed_at > _RELIABLE_TIMEOUT_SEC
            )
        return True

    def _publish_clock(self) -> None:
        now_ns = self._playback_clock.now_ns()
        if self._clock_publisher is not None and now_ns:  # nodes read 0 as "no time received"
            self._clock_publisher.publish(Clock(clock=time_message(now_ns)))

    def _finish(self, error: Exception | None) -> None:
        """Log an error, then publish the time of the end until the node closes."""
        if error is not None:
            reason = error if isinstance(error, DelayedVlmError) else "".join(traceback.format_exception(error))
            self.get_logger().error(f"{self._settings.bag} stopped playing: {reason}")
        self._playback_clock.pause()
        while self._player.wait(_ENDED_CLOCK_PERIOD_SEC):
            self._publish_clock()

    def _log_recording(self, recording: Recording, *, is_compressed: bool) -> None:
        count = "" if recording.image_count is None else f", {recording.image_count} images"
        source = f", topic {recording.topic}," if recording.topic else ""
        rate = f", at {self._settings.rate:g} times its speed" if self._settings.rate != 1.0 else ""
        hint = " (set image_transport: compressed in scene_memory)" if is_compressed else ""
        start = ", from the first subscription" if self._settings.wait_for_subscriber else ""
        self.get_logger().info(
            f"publishing the {recording.kind} {self._settings.bag}{source} on {self._topic}{hint}{start}{count}{rate}"
        )
        self._log_warnings(recording)

    def _log_warnings(self, recording: Recording) -> None:
        for warning in recording.warnings:
            self.get_logger().warning(warning)

    def _log_late(self) -> None:
        self.get_logger().warning(
            f"{self._settings.bag} cannot be read at the set rate: playing it at reduced speed",
            throttle_duration_sec=60.0,
        )


def main(arguments: list[str] | None = None) -> int:
    """Run the node until it is stopped; return the exit code of the process."""
    return run_node(BagCamera, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
