"""Whatever a camera's memory keeps can be written to a key-frame file, read back, restored and published."""

import array
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Pose, PoseStamped, PoseWithCovariance, PoseWithCovarianceStamped
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from delayed_vlm_ros.errors import ImageError
from delayed_vlm_ros.images.conversion import make_converter
from delayed_vlm_ros.ingest.geometry import FrameGeometry
from delayed_vlm_ros.ingest.ingestor import SamplingIngestor
from delayed_vlm_ros.memory import SmartFrameManager
from delayed_vlm_ros.memory.limits import MAX_STAMP_SEC
from delayed_vlm_ros.ros.input.frame_headers import FrameHeader, header_from_dict, header_to_dict
from delayed_vlm_ros.ros.input.poses import PoseBuffer
from delayed_vlm_ros.ros.scene_memory.camera_memory import CameraMemory
from delayed_vlm_ros.ros.time import time_message
from delayed_vlm_ros.storage.file_format import StoredMemory, star_of
from delayed_vlm_ros.storage.folder import MemoryFolder
from delayed_vlm_ros.time import NANOSECONDS_PER_SECOND, nanoseconds_of

GEOMETRY = FrameGeometry(factor=2, min_pixels=4, max_pixels=400)
FIRST_NS = -(2**31) * NANOSECONDS_PER_SECOND
LAST_NS = (2**31 - 1) * NANOSECONDS_PER_SECOND + 2**32 - 1  # with more than a second of nanoseconds
DAY_SEC = 86_400
PIXELS = np.full((8, 8, 3), 90, np.uint8)
NAMED = b"lens"
FRAME_IDS = [NAMED, b"\xff\xfe\xc3(", "😀".encode(), b"\xed\xa0\x80x", b"\x1b[2J", b"a\0b\n"]  # of four bytes
EDGES_NS = [
    FIRST_NS,
    -NANOSECONDS_PER_SECOND,
    -1,
    1,
    1_700_000_000 * NANOSECONDS_PER_SECOND,
    LAST_NS - 4 * 10**9,
    LAST_NS,
]


@dataclass
class Camera:
    """A camera's memory with clocks of its own."""

    restarts: bool = False
    pose_type: type = PoseStamped
    now_ns: int = 1_700_000_000 * NANOSECONDS_PER_SECOND
    steady: float = 100.0
    errors: list[str] = field(default_factory=list)

    def __post_init__(self):
        self.manager = SmartFrameManager(6, 4)
        ingestor = SamplingIngestor(GEOMETRY, self.manager, 10.0, topic="/image", restart_on_jump=self.restarts)
        self.memory = CameraMemory(
            "front",
            "/image",
            "/pose",
            Image,
            ingestor=ingestor,
            frame_manager=self.manager,
            converter=make_converter(),
            poses=PoseBuffer(0.25, self.pose_type),
            now_ns=lambda: self.now_ns,
            logger=self,
            steady=lambda: self.steady,
        )

    def warning(self, *_, **__):
        pass

    def error(self, text, **_):
        self.errors.append(text)

    def wait(self, seconds):
        self.steady += seconds
        self.now_ns += round(seconds * NANOSECONDS_PER_SECOND)


def stamp_of(stamp_ns, *, spill):
    """Return a stamp, perhaps with more than a second of nanoseconds."""
    seconds = min(stamp_ns // NANOSECONDS_PER_SECOND, 2**31 - 1)
    if spill and seconds > -(2**31):
        seconds -= 1
    return Time(sec=seconds, nanosec=min(stamp_ns - seconds * NANOSECONDS_PER_SECOND, 2**32 - 1))


def image(stamp, shade, frame_id):
    message = Image(height=8, width=8, encoding="rgb8", step=24, data=array.array("B", [shade]) * 192)
    message.header = Header(stamp=stamp, frame_id=NAMED.decode())
    return serialize_message(message).replace(NAMED, frame_id, 1)


def pose(pose_type, stamp, frame_id):
    header, at = Header(stamp=stamp, frame_id=NAMED.decode()), Pose(position=Point(x=float("nan")))
    message = PoseStamped(header=header, pose=at)
    if pose_type is PoseWithCovarianceStamped:
        message = PoseWithCovarianceStamped(header=header, pose=PoseWithCovariance(pose=at))
    return serialize_message(message).replace(NAMED, frame_id, 1)


@contextmanager
def saved(manager) -> Iterator[tuple[StoredMemory, StoredMemory]]:
    """Save the Star memory of a manager; yield it and what the next start reads."""
    memory = StoredMemory("front", GEOMETRY, star_of(manager.snapshot()))
    with tempfile.TemporaryDirectory() as path:
        for act in ("save", "load"):
            folder = MemoryFolder(path, header_to_dict, header_from_dict)
            try:
                if act == "save":
                    folder.save(memory)
                else:
                    loaded = folder.load("front", lambda _: "")
            finally:
                folder.close()
        assert not loaded.warning
        yield memory, loaded.memory


def contents(pairs):
    return [
        (
            *(kept.id, kept.marked, kept.label, kept.deferred_score, kept.deferred_reason, kept.content_key),
            *((one.stamp, one.number, one.importance, one.reason) for one in kept.pair.present_frames),
            *(header_to_dict(one.source) for one in kept.pair.present_frames),
        )
        for kept in pairs
    ]


SEGMENTS = st.lists(
    st.tuples(
        st.sampled_from(EDGES_NS) | st.integers(FIRST_NS, LAST_NS),
        st.sampled_from([0, 1, 10**8, 3 * 10**8, 10**9]) | st.integers(-(10**9), 10**10),  # step
        st.integers(1, 6),
        st.booleans(),
        st.sampled_from(FRAME_IDS),
        st.sampled_from([0.0, 0.1, 1.0, 3600.0]),
        st.integers(0, 255),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    segments=SEGMENTS,
    restarts=st.booleans(),
    pose_type=st.sampled_from([PoseStamped, PoseWithCovarianceStamped]),
    label=st.text(st.characters(), max_size=20),
)
def test_every_history_that_is_kept_is_read_back_and_restored_equal(segments, restarts, pose_type, label):
    # given images and poses with any stamps, names and poses
    camera = Camera(restarts, pose_type)
    for first_ns, step_ns, count, spill, frame_id, pause, shade in segments:
        for number in range(count):
            stamp = stamp_of(min(max(first_ns + number * step_ns, FIRST_NS), LAST_NS), spill=spill)
            camera.memory.poses.receive(pose(pose_type, stamp, frame_id))
            camera.memory.receive(image(stamp, (shade + 90 * number) % 256, frame_id))
            camera.wait(pause)
    kept = camera.manager.snapshot()
    if kept and label.isprintable():
        camera.manager.mark(kept[-1].id, label)
    assert camera.errors == []
    # when
    with saved(camera.manager) as (memory, read):
        # then
        assert contents(read.pairs) == contents(memory.pairs)
        again = Camera(restarts, pose_type)
        again.memory.restore(read.pairs)
        assert contents(star_of(again.manager.snapshot())) == contents(memory.pairs)
    # and its stamps fit into messages
    for pair in kept:
        header = pair.pair.first.source
        assert nanoseconds_of(time_message(header.stamp_ns)) == header.stamp_ns


@pytest.mark.parametrize("ahead_sec", [-1_600_000_000, 3600, 20])
@pytest.mark.heavy
def test_flapping_clock_of_a_day_is_kept_and_read_back(ahead_sec):
    # given a camera whose stamps change between two clocks every five images
    manager = SmartFrameManager(6, 4)
    ingestor = SamplingIngestor(GEOMETRY, manager, 0.01, topic="/image", restart_on_jump=False)
    camera = Camera()
    for number in range(DAY_SEC // 8):
        camera.wait(8.0)
        ahead_ns = ahead_sec * NANOSECONDS_PER_SECOND * (number // 5 % 2)
        try:
            decision = ingestor.decide(camera.now_ns + ahead_ns, camera.steady, camera.now_ns)
        except ImageError:
            continue  # an outlier
        if decision.is_due:
            ingestor.add(PIXELS, decision, FrameHeader(camera.now_ns + ahead_ns, "lens"))
    # then the memory's time is of the order of the time that has passed, and is written and read back
    passed = manager.newest_stamp - 1_700_000_000
    assert 0.5 * DAY_SEC < passed < 10 * DAY_SEC
    manager.mark(manager.snapshot()[-1].id, "newest")
    with saved(manager) as (memory, read):
        assert contents(read.pairs) == contents(memory.pairs)
        assert len(read.pairs) > 1


@pytest.mark.parametrize("stamp", [float("nan"), float("inf"), -1e300, MAX_STAMP_SEC * 1.001])
def test_stamp_that_no_file_can_hold_is_refused_by_the_memory(stamp):
    manager = SmartFrameManager(6, 4)
    with pytest.raises(ImageError, match="stamp"):
        manager.add(PIXELS, stamp)
    assert manager.snapshot() == ()


@pytest.mark.parametrize("nanoseconds", [-(2**63), FIRST_NS - 1, FIRST_NS, -1, 0, LAST_NS, LAST_NS + 1, 2**63 - 1])
def test_time_beyond_the_message_becomes_the_nearest_that_it_holds(nanoseconds):
    assert nanoseconds_of(time_message(nanoseconds)) == min(max(nanoseconds, FIRST_NS), LAST_NS)
