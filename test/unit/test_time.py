import struct
import time

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from builtin_interfaces.msg import Time
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, Image

from delayed_vlm_ros.errors import ImageError
from delayed_vlm_ros.ros.time import time_message
from delayed_vlm_ros.time import nanoseconds_of, read_stamp, seconds_of, steady_sec

STAMPS = [Time(), Time(sec=1), Time(sec=1_800_000_000, nanosec=999_999_999), Time(sec=-3, nanosec=5)]


@pytest.mark.parametrize("stamp", STAMPS)
@pytest.mark.parametrize("message_type", [Image, CompressedImage])
def test_read_stamp_returns_the_stamp_of_a_serialised_message(message_type, stamp):
    message = message_type()
    message.header.stamp = stamp
    message.header.frame_id = "a name of some length"
    assert read_stamp(serialize_message(message)) == nanoseconds_of(stamp)


@pytest.mark.parametrize(("encoding", "order"), [(0, ">"), (1, "<"), (6, ">"), (7, "<")])
def test_read_stamp_supports_both_byte_orders(encoding, order):
    serialised = struct.pack(">HH", encoding, 0) + struct.pack(f"{order}iI", -7, 12) + bytes(20)
    assert read_stamp(serialised) == -7_000_000_000 + 12


@pytest.mark.parametrize(
    ("serialised", "named"),
    [(b"", "0 bytes"), (bytes(11), "11 bytes"), (b"\xca\xfe" + bytes(20), "0xcafe")],
)
def test_read_stamp_rejects_other_bytes(serialised, named):
    with pytest.raises(ImageError, match=named):
        read_stamp(serialised)


@pytest.mark.parametrize("stamp", STAMPS)
def test_time_message_and_nanoseconds_of_are_inverse(stamp):
    assert time_message(nanoseconds_of(stamp)) == stamp


def test_seconds_of_preserves_the_order_of_stamps():
    base = 1_800_000_000_123_456_789
    seconds = [seconds_of(base + step) for step in range(2000)]
    assert seconds == sorted(seconds)
    assert all(abs(value * 10**9 - (base + step)) < 1000 for step, value in enumerate(seconds))


def test_steady_time_is_monotonic_time_where_the_system_has_no_boot_clock(monkeypatch):
    monkeypatch.delattr(time, "CLOCK_BOOTTIME", raising=False)
    before = time.monotonic()
    assert before <= steady_sec() <= time.monotonic()
