"""A 30 Hz camera in a room with one object: parameters colour, shape, home, width and height.

Its parameter ``fault`` can change while it runs: ``corrupt`` (one image in ten is cut short), ``no stamps``, ``back``
(stamps one hour in the past), ``future`` (stamps one day ahead), ``frozen`` (the stamp of when the fault began),
``slow`` (a clock at a tenth of the speed), or empty.
"""

from __future__ import annotations

import array
import math
import signal

import rclpy
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from delayed_vlm_ros.scenes import Scene, render
from delayed_vlm_ros.scenes.scene import Episode

_RATE_HZ = 30.0
_IMAGES = 15  # with different noise; published in a loop
_SHIFTS = {"back": Duration(seconds=-3600), "future": Duration(seconds=86400)}
_SPEEDS = {"frozen": 0.0, "slow": 0.1}  # of the camera's clock


def room_images(colour: str, shape: str, home: float, width: int, height: int) -> list[Image]:
    """Return images of the room without stamps."""
    scene = Scene.from_script(7, (Episode(1, 0.0, math.inf, colour, shape, home),))
    return [
        Image(
            height=height,
            width=width,
            encoding="rgb8",
            step=3 * width,
            data=array.array("B", render(scene, number / _RATE_HZ, height, width).tobytes()),
        )
        for number in range(_IMAGES)
    ]


class RoomCamera(Node):
    def __init__(self) -> None:
        super().__init__("room_camera")
        colour, shape = (self.declare_parameter(name, "red").value for name in ("colour", "shape"))
        home = self.declare_parameter("home", 0.5).value
        width, height = (self.declare_parameter(name, 320).value for name in ("width", "height"))
        self.declare_parameter("fault", "")
        self._messages = room_images(colour, shape, home, width, height)
        self._shown = 0
        self._fault_since = self.get_clock().now()
        self._publisher = self.create_publisher(Image, "image", 5)
        self.create_timer(1.0 / _RATE_HZ, self._show)

    def _show(self) -> None:
        fault = self.get_parameter("fault").value
        message = self._messages[self._shown % _IMAGES]
        now = self.get_clock().now()
        if not fault:
            self._fault_since = now
        stamp = now + _SHIFTS.get(fault, Duration())
        if fault in _SPEEDS:
            passed = (now - self._fault_since).nanoseconds
            stamp = self._fault_since + Duration(nanoseconds=int(passed * _SPEEDS[fault]))
        message.header = Header() if fault == "no stamps" else Header(stamp=stamp.to_msg())
        self._shown += 1
        if fault == "corrupt" and self._shown % 10 == 0:
            message = Image(header=message.header, height=message.height, width=message.width, encoding="rgb8", step=1)
        self._publisher.publish(message)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # tests kill it
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    rclpy.spin(RoomCamera())
