"""What the statuses make of two reports in a row, of several faults at once, and of a node without cameras."""

from dataclasses import replace

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.serialization import deserialize_message, serialize_message

from delayed_vlm_ros.memory import MemoryStatistics
from delayed_vlm_ros.ros.output.diagnostics import (
    Level,
    ask_status,
    camera_status,
    diagnostic_array,
    lifecycle_status,
    model_status,
    statuses,
)
from delayed_vlm_ros.ros.output.reports import (
    NO_ASKS,
    AskReport,
    CameraReport,
    LifecycleReport,
    MemoryReport,
    ModelReport,
    NodeReport,
)

CAMERA = CameraReport(
    name="front",
    topic="/robot/image",
    frame_id="lens",
    receiving=True,
    images_received=90,
    images_sampled=6,
    images_dropped=3,
    images_missed=5,
    images_restamped=6,
    last_drop_reason="step is 3",
    times_jumped=1,
    last_jump="time has gone back",
    poses_received=70,
    poses_unusable=1,
    input_rate_hz=29.97,
    sampled_rate_hz=2.0,
    silent_sec=0.03,
    converter="rosbags-image",
    faults=(),
    warnings=("no cv_bridge",),
)
MEMORY = MemoryReport("front", MemoryStatistics(60, 8, 20, 24, 4, 2.5, 12345), 1000, 2000, 100.0, 0.5)
MODEL = ModelReport("qwen", "ready", "cuda:0", "", ())
ASKS = AskReport(
    served=5,
    failed=2,
    running=False,
    waiting=0,
    queue_size=8,
    last_error="BusyError: full",
    last_total_latency=1.25,
    last_time_to_first_token=0.5,
)
NODE = NodeReport(LifecycleReport("active", ""), (CAMERA,), (MEMORY,), MODEL, ASKS, 5.0)


def levels(report, previous):
    return {status.name: status.level for status in statuses(report, previous)}


def test_an_event_shows_once():
    # given one more drop and one more failure than the second before
    second = replace(NODE, cameras=(replace(CAMERA, images_dropped=4),), asks=replace(ASKS, failed=3))

    # when
    told, after = levels(second, NODE), levels(second, second)

    # then
    assert (told["camera front"], told["asks"]) == (Level.WARN, Level.WARN)
    assert (after["camera front"], after["asks"]) == (Level.OK, Level.OK)


def test_only_new_events_are_counted():
    dropped = camera_status(replace(CAMERA, images_dropped=5), CAMERA, 5.0)
    failed = ask_status(replace(ASKS, failed=9), ASKS)
    assert dropped.message == "2 images dropped: step is 3"
    assert failed.message == "7 asks failed, the last one: BusyError: full"


def test_after_a_new_configure_its_events_are_counted_from_the_beginning():
    asks = ask_status(replace(ASKS, failed=1), replace(ASKS, failed=7))
    assert asks.message.startswith("1 asks failed")
    camera = camera_status(replace(CAMERA, images_dropped=2), replace(CAMERA, images_dropped=3), 5.0)
    assert camera.message.startswith("2 images dropped")


def test_a_namesake_is_told_beside_the_state():
    status = lifecycle_status(LifecycleReport("inactive", "", namesakes=1))
    assert status.level == Level.WARN
    assert status.message.startswith("inactive; another node has this name, or one that was killed")


def test_cameras_are_compared_by_name():
    # given two that changed places
    rear = replace(CAMERA, name="rear", images_dropped=50)
    before = replace(NODE, cameras=(CAMERA, rear), memories=(MEMORY, MEMORY))
    now = replace(NODE, cameras=(rear, CAMERA), memories=(MEMORY, MEMORY))

    # then
    assert set(levels(now, before).values()) == {Level.OK}


@pytest.mark.parametrize(
    ("changes", "level", "words"),
    [
        ({"silent_sec": 5.0}, Level.OK, "images per second"),
        ({"receiving": False, "silent_sec": 99.0, "images_dropped": 9}, Level.WARN, "not taken"),
        ({"silent_sec": 99.0, "images_dropped": 9, "faults": ("no stamps",)}, Level.STALE, "no image for 99.0 s"),
        ({"images_dropped": 9, "faults": ("no stamps",)}, Level.WARN, "6 images dropped"),
        ({"faults": ("no stamps", "too dark")}, Level.WARN, "no stamps; too dark"),
    ],
)
def test_of_several_faults_the_most_telling_is_told(changes, level, words):
    status = camera_status(replace(CAMERA, **changes), CAMERA, 5.0)
    assert status.level == level
    assert words in status.message


def test_further_faults_at_once():
    assert lifecycle_status(LifecycleReport("active", "cannot deactivate")).level == Level.ERROR
    assert ask_status(replace(ASKS, failed=4, waiting=8), ASKS).message.startswith("2 asks failed")
    assert ask_status(replace(ASKS, running=True, waiting=7), ASKS).level == Level.OK
    failed = model_status(replace(MODEL, state="failed", error="gone", warnings=("demo model",)))
    assert (failed.level, failed.message) == (Level.ERROR, "gone")


def test_a_node_that_is_not_configured_has_no_cameras_and_is_not_busy():
    bare = NodeReport(LifecycleReport("unconfigured", ""), (), (), replace(MODEL, state="unloaded"), NO_ASKS, 5.0)
    assert levels(bare, NODE) == {"lifecycle": Level.WARN, "model": Level.WARN, "asks": Level.OK}


def test_the_hardware_is_the_frame_or_before_the_first_image_the_camera():
    assert camera_status(replace(CAMERA, frame_id=""), CAMERA, 5.0).hardware == "front"


def test_camera_values_have_their_units():
    values = dict(camera_status(CAMERA, CAMERA, 5.0).values)
    assert (values["images received"], values["images sampled"], values["images dropped"]) == ("90", "6", "3")
    assert (values["input rate"], values["sampled rate"]) == ("29.97 Hz", "2.00 Hz")
    assert (values["last image"], values["warnings 1"]) == ("0.03 s ago", "no cv_bridge")
    silent = camera_status(replace(CAMERA, silent_sec=None), CAMERA, 5.0)
    assert dict(silent.values)["last image"] == "never"


def test_the_message_has_bytes_for_levels_and_strings_for_values():
    # given
    stale = replace(NODE, cameras=(replace(CAMERA, silent_sec=60.0),))

    # when
    message = diagnostic_array(statuses(stale, NODE), "scene_memory", 1)

    # then
    assert message.status[1].level == DiagnosticStatus.STALE == b"\x03"
    for status in message.status:
        assert type(status.level) is bytes
        assert len(status.values) == len({value.key for value in status.values}) > 0
        assert all(type(value.key) is str and type(value.value) is str for value in status.values)
    assert deserialize_message(serialize_message(message), type(message)) == message
