"""video_camera: publishes a video file at its own speed, or a camera device, as an image topic."""

from __future__ import annotations

import sys
import traceback
from dataclasses import dataclass

from delayed_vlm_ros.errors import DelayedVlmError, VideoSourceError, without_credentials
from delayed_vlm_ros.images.video import VideoSource
from delayed_vlm_ros.images.video_player import RETRY_SEC, VideoPlayer
from delayed_vlm_ros.ros.image_publisher import ImagePublisher
from delayed_vlm_ros.ros.log import LoggingNode
from delayed_vlm_ros.ros.parameters import declare, parameter, read
from delayed_vlm_ros.ros.process import run_node


@dataclass(frozen=True)
class VideoCameraParameters:
    """Parameters of the ``video_camera`` node."""

    video: str = parameter(
        "", "path of a video file, a camera device (number or path), or a stream such as rtsp://host/path"
    )
    rate: float = parameter(
        0.0,
        "maximum rate of published images, the others are skipped; 0 for the source's own rate",
        unit="Hz",
        minimum=0.0,
        maximum=240.0,
    )
    loop: bool = parameter(False, "repeat the file at its end")  # noqa: FBT003  a default, not a switch
    frame_id: str = parameter("camera", "frame_id of the image headers")


class VideoCamera(LoggingNode):
    """Publishes the images of a video on ``image``, stamped with the node's clock.

    Raises:
        VideoSourceError: The source cannot be opened or has no image.
        ConfigurationError: A parameter is invalid.
    """

    def __init__(self) -> None:
        super().__init__("video_camera")
        declare(self, VideoCameraParameters)
        self._settings = read(self, VideoCameraParameters)
        if not self._settings.video:
            raise VideoSourceError(
                "parameter 'video' is empty: set a video file or a camera device, for example with "
                "--ros-args -p video:=/dev/video0"
            )
        self._name = without_credentials(self._settings.video)
        images = ImagePublisher(self, self._settings.frame_id)
        self._player = VideoPlayer(
            self._settings.video,
            images.publish,
            loop=self._settings.loop,
            max_rate=self._settings.rate,
            on_open=self._log_source,
            on_retry=self._log_retry,
            on_late=self._log_late,
            on_finish=self._log_finish,
        )
        self._player.start()

    def close(self) -> None:
        """Stop playing; return within half a second, even if the camera's driver blocks."""
        self._player.close()

    def _log_source(self, source: VideoSource) -> None:
        rate = f"{source.frames_per_second:.4g} Hz" if source.frames_per_second else "unknown rate"
        duration = f", {source.duration_sec:.1f} s" if source.duration_sec else ""
        limit = f", at most {self._settings.rate:g} Hz published" if self._settings.rate else ""
        topic = self.resolve_topic_name("image")
        self.get_logger().info(f"publishing the {source.kind} {source.name} on {topic} ({rate}{duration}{limit})")

    def _log_retry(self, error: Exception) -> None:
        self.get_logger().error(f"{error}; retrying every {RETRY_SEC:g} s")

    def _log_late(self) -> None:
        self.get_logger().warning(
            f"{self._name} decodes slower than it plays: playing it at reduced speed",
            throttle_duration_sec=60.0,
        )

    def _log_finish(self, error: Exception | None) -> None:
        if error is None:
            self.get_logger().info(f"{self._name} has ended; set the parameter 'loop' to repeat it")
        else:
            reason = error if isinstance(error, DelayedVlmError) else "".join(traceback.format_exception(error))
            self.get_logger().error(f"{self._name} stopped playing: {reason}")


def main(arguments: list[str] | None = None) -> int:
    """Run the node until it is stopped; return the exit code of the process."""
    return run_node(VideoCamera, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
