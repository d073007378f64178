"""Lines of the journal as messages, and the node's report of the journal."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from geometry_msgs.msg import PoseStamped
from rclpy.serialization import serialize_message

from delayed_vlm_ros.errors import ConfigurationError
from delayed_vlm_ros.journal import JournalEntry, Pose, store
from delayed_vlm_ros.journal.captioner import Captioned
from delayed_vlm_ros.memory import Frame, FramePair, KeptPair, SmartFrameManager
from delayed_vlm_ros.ros.input.frame_headers import FrameHeader, TimedPose
from delayed_vlm_ros.ros.output.diagnostics import Level, journal_status
from delayed_vlm_ros.ros.output.journal_messages import journal_moment
from delayed_vlm_ros.ros.output.node_report import JournalReport
from delayed_vlm_ros.ros.scene_memory.journal import Journal, _entry_of
from delayed_vlm_ros.ros.scene_memory.parameters import SceneMemoryParameters, validate_parameters

FIRST_NS, SECOND_NS, POSE_NS = 1_800_000_000_123_456_789, 1_800_000_000_623_456_791, 1_800_000_000_100_000_003
POSE = Pose(POSE_NS, "map", (1.5, -2.0, 0.25), (0.0, 0.0, 0.6, 0.8))
ENTRY = JournalEntry(
    *(7, "front", "lens", FIRST_NS, SECOND_NS, 31, "a red\x1b box", "brief event", "keys", POSE, b"\xff\xd8"),
)
REPORT = JournalReport(
    lines=12,
    file_bytes=4096,
    waiting=3,
    written=5,
    dropped=2,
    device_sec=18.0,
    running_sec=7200.0,
    error="",
    warning="",
)


def pose_message():
    message = PoseStamped()
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(POSE_NS, 10**9)
    message.header.frame_id = "map"
    position, orientation = message.pose.position, message.pose.orientation
    position.x, position.y, position.z = POSE.position
    orientation.x, orientation.y, orientation.z, orientation.w = POSE.orientation
    return message


def captioned(*, has_pose=True, complete=True):
    pose = TimedPose(POSE_NS, serialize_message(pose_message())) if has_pose else None
    first = Frame(
        np.full((40, 600, 3), 200, np.uint8), 1.0, 1, 0.2, "", FrameHeader(FIRST_NS, "lens", nearest_pose=pose)
    )
    second = Frame(np.full((40, 600, 3), 10, np.uint8), 1.5, 2, 0.9, "scene change", FrameHeader(SECOND_NS, "lens 2"))
    pair = FramePair(31, first, second if complete else None)
    return Captioned("front", KeptPair(pair, in_star=True, in_stream=False, label="keys"), "a box")


def test_line_of_a_pair_has_the_stamps_as_published_the_pose_and_a_small_image():
    import cv2  # noqa: PLC0415

    entry = _entry_of(captioned())
    assert replace(entry, thumbnail=b"") == JournalEntry(
        0, "front", "lens", FIRST_NS, SECOND_NS, 31, "a box", "scene change", "keys", POSE
    )
    image = cv2.imdecode(np.frombuffer(entry.thumbnail, np.uint8), cv2.IMREAD_COLOR)
    assert image.shape[1] < 600
    assert image.mean() < 20  # of the more important frame


def test_line_of_a_single_frame_without_a_pose_ends_where_it_begins():
    entry = _entry_of(captioned(has_pose=False, complete=False))
    assert (entry.stamp_ns, entry.end_stamp_ns, entry.pose, entry.reason) == (FIRST_NS, FIRST_NS, None, "")


def test_every_field_of_a_line_is_in_its_message():
    message = journal_moment(ENTRY, score=0.75)
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == divmod(FIRST_NS, 10**9)
    assert (message.end_stamp.sec, message.end_stamp.nanosec) == divmod(SECOND_NS, 10**9)
    assert (message.header.frame_id, message.camera, message.id, message.journal_id) == ("lens", "front", 0, 7)
    assert (message.caption, message.reason, message.label) == ("a red\\x1b box", "brief event", "keys")
    assert (message.score, message.pose_valid, message.pose) == (0.75, True, pose_message())
    assert (message.thumbnail.format, bytes(message.thumbnail.data)) == ("jpeg", b"\xff\xd8")
    assert message.thumbnail.header == message.header


def test_line_without_pose_and_image_says_so():
    message = journal_moment(replace(ENTRY, pose=None, thumbnail=b""))
    assert (message.pose_valid, message.score, len(message.thumbnail.data)) == (False, 0.0, 0)


@pytest.mark.parametrize(
    ("changes", "before", "level", "named"),
    [
        ({}, REPORT, Level.OK, "12 lines"),
        ({}, None, Level.WARN, "2 evicted pairs get no line"),
        ({"dropped": 4}, REPORT, Level.WARN, "2 evicted pairs get no line"),
        ({"dropped": 0}, REPORT, Level.OK, "12 lines"),  # configured again
        ({"error": "disk full"}, REPORT, Level.WARN, "disk full"),
        ({"warning": "set aside", "written": 0}, REPORT, Level.WARN, "set aside"),
        ({"warning": "set aside"}, REPORT, Level.OK, "12 lines"),  # lines are written again
    ],
)
def test_status_tells_whether_evicted_pairs_get_lines(changes, before, level, named):
    status = journal_status(replace(REPORT, **changes), before)
    assert (status.name, status.level) == ("journal", level)
    assert named in status.message


def test_status_has_the_cost_in_seconds_per_hour():
    values = dict(journal_status(replace(REPORT, caption_warnings=("demo model",)), None).values)
    assert values["device time per hour"] == "9.0 s/h"
    assert (values["device time"], values["file"], values["waiting"]) == ("18.0 s", "4096 B", "3")
    assert values["caption warnings 1"] == "demo model"
    assert replace(REPORT, running_sec=0.0).device_sec_per_hour == 0.0


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"persistence_folder": ""}, r"journal.enabled needs persistence.folder"),
        ({"journal_question": "  "}, r"journal.question must be a question"),
    ],
)
def test_invalid_settings_are_refused(changes, named):
    valid = SceneMemoryParameters(journal_enabled=True, persistence_folder="/somewhere")
    validate_parameters(valid)
    with pytest.raises(ConfigurationError, match=named):
        validate_parameters(replace(valid, **changes))
    validate_parameters(replace(valid, **changes, journal_enabled=False))


def test_library_without_full_text_search_is_refused_at_configure(monkeypatch):
    monkeypatch.setattr(store, "_FTS", "fts99")
    parameters = SceneMemoryParameters(journal_enabled=True, persistence_folder="/somewhere")
    with pytest.raises(ConfigurationError, match="FTS5"):
        Journal(parameters, {}, SimpleNamespace(warning=print))


def test_refused_journal_asks_for_no_captions(tmp_path):
    # given a pair that the start evicts, before the folder is known to be in use
    memory = SmartFrameManager(4, 2)
    parameters = SceneMemoryParameters(journal_enabled=True, persistence_folder=str(tmp_path))
    warnings, wakes = [], []
    journal = Journal(
        parameters, {"camera": SimpleNamespace(frame_manager=memory)}, SimpleNamespace(warning=warnings.append)
    )
    journal.set_wake(lambda: wakes.append(1))

    def evict(begin):
        for number in range(begin, begin + 100):
            memory.add(np.random.default_rng(number).integers(0, 255, (28, 28, 3), np.uint8), float(number + 1))

    evict(0)
    assert journal.report().waiting > 0
    wakes.clear()

    # when
    journal.start("the folder is in use by another node")
    evict(100)

    # then
    report = journal.report()
    assert (report.waiting, report.dropped, wakes) == (0, 0, [])
    assert not journal.idle_task.needs_model()
    assert "in use by another node" in report.error
    assert warnings == [report.error]
