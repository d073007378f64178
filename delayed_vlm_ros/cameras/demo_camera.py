"""demo_camera: a camera in a synthetic room with coloured objects, for trying things out without a robot."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from rclpy.node import Node

from delayed_vlm_ros.ros.image_publisher import ImagePublisher
from delayed_vlm_ros.ros.parameters import declare, parameter, read
from delayed_vlm_ros.ros.process import run_node
from delayed_vlm_ros.scenes import Scene, render
from delayed_vlm_ros.scenes.story import story_scene


@dataclass(frozen=True)
class DemoCameraParameters:
    """What can be set on the demo camera."""

    rate: float = parameter(10.0, "images published per second", unit="Hz", minimum=0.1, maximum=120.0)
    width: int = parameter(640, "columns of the image", unit="pixels", minimum=16, maximum=4096)
    height: int = parameter(480, "rows of the image", unit="pixels", minimum=16, maximum=4096)
    frame_id: str = parameter("demo_camera", "frame of the camera, for the messages' headers")
    seed: int = parameter(0, "which room: the same number gives the same objects", minimum=0, maximum=2**31 - 1)
    story: bool = parameter(
        default=False, description="show the demo's story of half a minute, in its own room, once somebody subscribes"
    )


class DemoCamera(Node):
    """Publishes images of ``simulation``'s room on ``image``.

    The room's time begins when the node starts, a story's when somebody has subscribed: nobody misses its beginning.
    """

    def __init__(self) -> None:
        super().__init__("demo_camera")
        declare(self, DemoCameraParameters)
        self._settings = read(self, DemoCameraParameters)
        self._scene = story_scene() if self._settings.story else Scene.from_seed(self._settings.seed)
        self._images = ImagePublisher(self, self._settings.frame_id)
        self._started = None if self._settings.story else self.get_clock().now()
        self._timer = self.create_timer(1.0 / self._settings.rate, self._publish)
        what = "story" if self._settings.story else f"room {self._settings.seed}"
        self.get_logger().info(
            f"publishing the synthetic {what} on {self.resolve_topic_name('image')}: "
            f"{self._settings.width}x{self._settings.height} at {self._settings.rate:g} Hz"
        )

    def _publish(self) -> None:
        if self._started is None:
            if not self._images.is_watched:
                return
            self._started = self.get_clock().now()
        elapsed = (self.get_clock().now() - self._started).nanoseconds * 1e-9
        # Simulated time may jump back, when somebody restarts the simulation.
        image = render(self._scene, max(0.0, elapsed), self._settings.height, self._settings.width)
        self._images.publish(image)


def main(arguments: list[str] | None = None) -> int:
    """Run the node until it is stopped; gives the process's exit code."""
    return run_node(DemoCamera, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
