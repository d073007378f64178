"""bag_camera: a recording, played at the speed at which it was recorded, as an image topic and as the time."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from dataclasses import dataclass
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image

from delayed_vlm_ros.cameras.playback_clock import PlaybackClock
from delayed_vlm_ros.errors import DelayedVlmError, ImageError, RecordingError
from delayed_vlm_ros.replay.recordings import RecordedImage, Recording, open_recording
from delayed_vlm_ros.replay.recordings.recording import COMPRESSED_TYPE
from delayed_vlm_ros.ros.image_publisher import image_message
from delayed_vlm_ros.ros.parameters import declare, parameter, read
from delayed_vlm_ros.ros.process import run_node
from delayed_vlm_ros.ros.time import time_message

_DEPTH = 100  # images kept for a slow reliable subscriber: none of a recording shall be lost
_TICK_SEC = 0.02  # between two times told
_STANDING_TICK_SEC = 1.0  # the same after the end, for those who come then
_LEAD_SEC = 0.5  # how long the time stands at a new beginning, so that all have heard it before the first image comes
_FOLLOWING_SEC = 2.0  # how long a best-effort subscriber may take to see that it can be a reliable one
_LATE_SEC = 1.0  # playing this far behind gives up catching up
_JOIN_SEC = 0.5  # how long the end waits for a file that is being read
_LOG_EVERY_SEC = 5.0


@dataclass(frozen=True)
class BagCameraParameters:
    """What can be set on the bag camera."""

    bag: str = parameter(
        "", "recording: a ROS 2 bag (its folder, or a .mcap or .db3 file), a video file or a folder of images"
    )
    topic: str = parameter("", "which images of a bag; empty: those of its only topic with images")
    rate: float = parameter(1.0, "recorded seconds played in a second", minimum=0.01, maximum=100.0)
    loop: bool = parameter(default=False, description="begin again at the end: the time jumps back then")
    publish_clock: bool = parameter(
        default=True, description="publish the recording's time on /clock, for nodes with use_sim_time"
    )
    wait_for_subscriber: bool = parameter(default=True, description="begin to play once somebody subscribes")
    frame_id: str = parameter(
        "camera",
        "frame of the camera, for the headers of images that are not a bag's, whose messages stay as they are",
    )


class BagCamera(Node):
    """Publishes a recording's images with their own stamps, and their time on ``/clock``.

    A bag's messages go out as they are, compressed ones on ``image/compressed``. All is published by one thread, so
    that the time is told before the image that was taken then.
    """

    def __init__(self) -> None:
        """Open the recording and start to play it.

        Raises:
            RecordingError: It cannot be read, or has no such images.
            VideoSourceError: It is a video that cannot be read.
            ConfigurationError: A parameter has a value that cannot work.
        """
        super().__init__("bag_camera")
        declare(self, BagCameraParameters)
        self._settings = read(self, BagCameraParameters)
        if not self._settings.bag:
            raise RecordingError(
                "parameter bag is empty: set it to a bag's folder, for example with --ros-args -p bag:=my_bag"
            )
        recording = self._open()
        is_compressed = recording.type_name == COMPRESSED_TYPE
        # image_transport's rule, so that one remapping of image serves both.
        self._topic = self.resolve_topic_name("image") + ("/compressed" if is_compressed else "")
        self._images = self.create_publisher(
            CompressedImage if is_compressed else Image,
            self._topic,
            QoSProfile(depth=_DEPTH, reliability=ReliabilityPolicy.RELIABLE),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        self._clock_publisher = self.create_publisher(Clock, "/clock", 1) if self._settings.publish_clock else None
        self._time = PlaybackClock(self._settings.rate)
        self._heard = not self._settings.wait_for_subscriber
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(recording,), name="player", daemon=True)
        self.get_logger().info(self._described(recording, is_compressed=is_compressed))
        for warning in recording.warnings:
            self.get_logger().warning(warning)
        self._thread.start()

    def close(self) -> None:
        """Stop playing; returns within half a second."""
        self._stopping.set()
        self._thread.join(_JOIN_SEC)

    def _open(self) -> Recording:
        recording = open_recording(self._settings.bag, topic=self._settings.topic)
        if recording.image_count == 0:
            recording.close()
            raise RecordingError(f"{self._settings.bag} has no image on topic {recording.topic}: record it again")
        return recording

    def _run(self, recording: Recording) -> None:
        """Play until stopped or at the end, over and over where that is wanted; then tell the time that it stays."""
        try:
            while self._play(recording) and self._settings.loop and not self._stopping.is_set():
                self.get_logger().info(f"{self._settings.bag} begins again, and its time jumps back")
                recording = self._open()
        except DelayedVlmError as error:
            self.get_logger().error(f"playing ends: {error}")
        except Exception:  # noqa: BLE001  what reads bags has no common class
            self.get_logger().error(f"playing ends: {traceback.format_exc()}")
        self._time.stand()
        while not self._stopping.wait(_STANDING_TICK_SEC):
            self._tell_time()

    def _play(self, recording: Recording) -> int:
        """Publish a recording's images, each at its time, to the end or until stopped; gives how many."""
        count = 0
        self._time = PlaybackClock(self._settings.rate)
        with recording:
            for image in recording.images():
                try:
                    stamp_ns = image.stamp_ns or image.arrival_ns
                    message = self._message(image)
                except ImageError as error:
                    self.get_logger().warning(f"image left out: {error}", throttle_duration_sec=_LOG_EVERY_SEC)
                    continue
                if not self._wait_for(stamp_ns, image.arrival_ns):
                    return count
                self._images.publish(message)
                count += 1
        for warning in recording.warnings:
            self.get_logger().warning(warning)
        looping = "" if self._settings.loop else "; set the parameter loop to play it over and over"
        self.get_logger().info(f"{self._settings.bag} has ended after {count} images{looping}")
        return count

    def _message(self, image: RecordedImage) -> Any:
        if image.serialised:
            return image.serialised
        message = image_message(image.decode())
        message.header.stamp = time_message(image.stamp_ns)
        message.header.frame_id = self._settings.frame_id
        return message

    def _wait_for(self, stamp_ns: int, recorded_ns: int) -> bool:
        """Tell the time until an image is due; gives whether it is, and not the end."""
        if self._time.begins(stamp_ns, recorded_ns):
            if not (self._wait_for_subscriber() and self._tell_time_for(_LEAD_SEC)):
                return False
            self._time.run()
        behind = -self._time.seconds_until(recorded_ns)
        if behind > _LATE_SEC:
            self.get_logger().warning(
                f"{self._settings.bag} cannot be played so fast: playing it slower", throttle_duration_sec=60.0
            )
            self._time.delay(behind)
        if not self._tell_time_for(-behind):
            return False
        self._time.reach(stamp_ns, recorded_ns)
        self._tell_time()
        return True

    def _wait_for_subscriber(self) -> bool:
        """Tell the time until somebody listens, once; gives whether somebody does.

        One that is best effort becomes reliable when it has seen us, if it is of the kind that does, and would lose
        images meanwhile.
        """
        began: float | None = None
        while not self._heard:
            if not self._tell_time_for(_TICK_SEC):
                return False
            listens = self._images.get_subscription_count() > 0
            began = (began or time.monotonic()) if listens else None
            readers = self.get_subscriptions_info_by_topic(self._images.topic_name)
            reliable = all(reader.qos_profile.reliability == ReliabilityPolicy.RELIABLE for reader in readers)
            self._heard = began is not None and (reliable or time.monotonic() - began > _FOLLOWING_SEC)
        return True

    def _tell_time_for(self, seconds: float) -> bool:
        """Tell the time again and again for so long; gives whether the end has not come meanwhile."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._tell_time()
            if self._stopping.wait(min(left, _TICK_SEC)):
                return False
        return not self._stopping.is_set()

    def _tell_time(self) -> None:
        now_ns = self._time.now_ns()
        if self._clock_publisher is not None and now_ns:  # to nodes, 0 means that nobody has told them the time
            self._clock_publisher.publish(Clock(clock=time_message(now_ns)))

    def _described(self, recording: Recording, *, is_compressed: bool) -> str:
        count = "" if recording.image_count is None else f", {recording.image_count} images"
        source = f" of its topic {recording.topic}" if recording.topic else ""
        rate = f", {self._settings.rate:g} times as fast" if self._settings.rate != 1.0 else ""
        hint = " (scene_memory hears it with image_transport: compressed)" if is_compressed else ""
        begin = " once somebody subscribes" if self._settings.wait_for_subscriber else ""
        return (
            f"publishing the {recording.kind} {self._settings.bag}{source} on {self._topic}{hint}{begin}{count}{rate}"
        )


def main(arguments: list[str] | None = None) -> int:
    """Run the node until it is stopped; gives the process's exit code."""
    return run_node(BagCamera, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
