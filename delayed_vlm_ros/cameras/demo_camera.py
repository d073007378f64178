"""demo_camera: publishes a synthetic room with coloured objects, to try the package without a robot."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from delayed_vlm_ros.ros.image_publisher import ImagePublisher
from delayed_vlm_ros.ros.log import LoggingNode
from delayed_vlm_ros.ros.parameters import declare, parameter, read
from delayed_vlm_ros.ros.process import run_node
from delayed_vlm_ros.scenes import Scene, render
from delayed_vlm_ros.scenes.story import story_scene


@dataclass(frozen=True)
class DemoCameraParameters:
    """Parameters of the ``demo_camera`` node."""

    rate: float = parameter(10.0, "rate of published images", unit="Hz", minimum=0.1, maximum=120.0)
    width: int = parameter(640, "image width", unit="pixels", minimum=16, maximum=4096)
    height: int = parameter(480, "image height", unit="pixels", minimum=16, maximum=4096)
    frame_id: str = parameter("demo_camera", "frame_id of the image headers")
    seed: int = parameter(0, "seed of the room; equal seeds create equal rooms", minimum=0, maximum=2**31 - 1)
    story: bool = parameter(
        default=False,
        description="show the demo's story of 30 seconds instead of a seeded room, starting at the first subscription",
    )


class DemoCamera(LoggingNode):
    """Publishes images of a synthetic room on ``image``.

    A seeded room starts with the node. The story starts at the first subscription, so the subscriber sees all of it.
    """

    def __init__(self) -> None:
        super().__init__("demo_camera")
        declare(self, DemoCameraParameters)
        self._settings = read(self, DemoCameraParameters)
        self._scene = story_scene() if self._settings.story else Scene.from_seed(self._settings.seed)
        self._images = ImagePublisher(self, self._settings.frame_id)
        self._start_time = None if self._settings.story else self.get_clock().now()
        self._timer = self.create_timer(1.0 / self._settings.rate, self._publish)
        room = "story" if self._settings.story else f"room {self._settings.seed}"
        self.get_logger().info(
            f"publishing the synthetic {room} on {self.resolve_topic_name('image')}: "
            f"{self._settings.width}x{self._settings.height} at {self._settings.rate:g} Hz"
        )

    def _publish(self) -> None:
        if self._start_time is None:
            if not self._images.has_subscribers:
                return
            self._start_time = self.get_clock().now()
        elapsed_sec = (self.get_clock().now() - self._start_time).nanoseconds * 1e-9
        # Simulated time jumps back when the simulation restarts.
        image = render(self._scene, max(0.0, elapsed_sec), self._settings.height, self._settings.width)
        self._images.publish(image)


def main(arguments: list[str] | None = None) -> int:
    """Run the node until it is stopped; return the exit code of the process."""
    return run_node(DemoCamera, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
