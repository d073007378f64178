"""A camera at 30 Hz in a room with one thing in it: parameters colour, shape, home, width, height."""

from __future__ import annotations

import array
import math
import signal

import rclpy
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image

from delayed_vlm_ros.simulation import Scene, render
from delayed_vlm_ros.simulation.scene import Episode

_RATE_HZ = 30.0
_PICTURES = 15  # with a noise of their own; shown again and again


class RoomCamera(Node):
    def __init__(self) -> None:
        super().__init__("room_camera")
        colour, shape = (self.declare_parameter(name, "red").value for name in ("colour", "shape"))
        home = self.declare_parameter("home", 0.5).value
        width, height = (self.declare_parameter(name, 320).value for name in ("width", "height"))
        scene = Scene.from_script(7, (Episode(1, 0.0, math.inf, colour, shape, home),))
        self._messages = [
            Image(
                height=height,
                width=width,
                encoding="rgb8",
                step=3 * width,
                data=array.array("B", render(scene, number / _RATE_HZ, height, width).tobytes()),
            )
            for number in range(_PICTURES)
        ]
        self._shown = 0
        self._publisher = self.create_publisher(Image, "image", 5)
        self.create_timer(1.0 / _RATE_HZ, self._show)

    def _show(self) -> None:
        message = self._messages[self._shown % _PICTURES]
        message.header.stamp = self.get_clock().now().to_msg()
        self._shown += 1
        self._publisher.publish(message)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # it is there to die
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    rclpy.spin(RoomCamera())
