"""video_camera: a video file, played at its true speed, or a camera device, as an image topic."""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import dataclass

from rclpy.node import Node

from delayed_vlm_ros.errors import VideoSourceError
from delayed_vlm_ros.images.video import VideoSource, open_video
from delayed_vlm_ros.ros.image_publisher import ImagePublisher
from delayed_vlm_ros.ros.parameters import declare, parameter, read
from delayed_vlm_ros.ros.process import run_node

_RETRY_SEC = 2.0  # pause before a source that failed is opened again
_LATE_SEC = 1.0  # playback this far behind gives up catching up
_JOIN_SEC = 0.5  # how long the end waits for a camera driver that is in the middle of a read


@dataclass(frozen=True)
class VideoCameraParameters:
    """What can be set on the video camera."""

    video: str = parameter("", "video file, or camera device: its number or a path such as /dev/video0")
    rate: float = parameter(
        0.0,
        "images published per second at most, the others are skipped; 0 takes the source's own rate",
        unit="Hz",
        minimum=0.0,
        maximum=240.0,
    )
    loop: bool = parameter(False, "begin again at the end of the file")  # noqa: FBT003  a default, not a switch
    frame_id: str = parameter("camera", "frame of the camera, for the messages' headers")


class VideoCamera(Node):
    """Publishes a video's images on ``image``, stamped with the node's clock.

    The source is read in a thread of its own: a camera's read blocks until its next image, and images that nobody
    fetches grow old in the driver's queue.
    """

    def __init__(self) -> None:
        """Open the source and start to play it.

        Raises:
            VideoSourceError: The source cannot be opened or holds no image.
            ConfigurationError: A parameter has a value that cannot work.
        """
        super().__init__("video_camera")
        declare(self, VideoCameraParameters)
        self._settings = read(self, VideoCameraParameters)
        if not self._settings.video:
            raise VideoSourceError(
                "parameter video is empty: set it to a video file or a camera device, "
                "for example with --ros-args -p video:=/dev/video0"
            )
        source = open_video(self._settings.video)
        self._images = ImagePublisher(self, self._settings.frame_id)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(source,), name="video reader", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop playing; returns within half a second, whatever the camera's driver does."""
        self._stopping.set()
        self._thread.join(_JOIN_SEC)

    def _run(self, source: VideoSource | None) -> None:
        """Play until stopped or at the end; open the source again when it fails, and for every round of a loop."""
        failing = False
        while not self._stopping.is_set():
            try:
                with source or open_video(self._settings.video) as opened:
                    if source is not None or failing:
                        self.get_logger().info(self._described(opened))
                    failing = False
                    self._play(opened)
            except VideoSourceError as error:
                if not failing:
                    self.get_logger().error(f"{error}. Trying again every {_RETRY_SEC:g} s")
                failing = True
                self._stopping.wait(_RETRY_SEC)
            else:
                if not (self._settings.loop or self._stopping.is_set()):
                    self.get_logger().info(
                        f"{self._settings.video} has ended; set the parameter loop to play it over and over"
                    )
                    return
            source = None

    def _play(self, source: VideoSource) -> None:
        """Publish the source's images, a file's each at its time; returns at the file's end or when stopped."""
        began = time.monotonic()
        stamp = 0.0
        for frame in source.frames(self._settings.rate or None):
            if source.is_device:
                if self._stopping.is_set():
                    return
            else:
                stamp = frame.stamp
                behind = time.monotonic() - began - stamp
                if behind > _LATE_SEC:
                    self.get_logger().warning(
                        f"{source.name} cannot be decoded as fast as it plays: playing it slower than life",
                        throttle_duration_sec=60.0,
                    )
                    began += behind
                if self._stopping.wait(max(0.0, -behind)):
                    return
            self._images.publish(frame.image)
        # The last image stands for one period too, so that a loop keeps its rhythm.
        self._stopping.wait(max(0.0, began + stamp + 1.0 / (source.frames_per_second or 1.0) - time.monotonic()))

    def _described(self, source: VideoSource) -> str:
        own_rate = f"{source.frames_per_second:.4g}" if source.frames_per_second else "its own"
        length = f", {source.duration_sec:.1f} s" if source.duration_sec else ""
        kind = "camera device" if source.is_device else "video file"
        most = f", published at {self._settings.rate:g} Hz at most" if self._settings.rate else ""
        topic = self.resolve_topic_name("image")
        return f"publishing the {kind} {source.name} on {topic} ({own_rate} Hz{length}{most})"


def main(arguments: list[str] | None = None) -> int:
    """Run the node until it is stopped; gives the process's exit code."""
    return run_node(VideoCamera, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
