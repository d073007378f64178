from dataclasses import replace

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from diagnostic_msgs.msg import DiagnosticStatus

from delayed_vlm_ros.memory import MemoryStatistics
from delayed_vlm_ros.ros.output.diagnostics import (
    Level,
    ask_status,
    camera_status,
    diagnostic_array,
    lifecycle_status,
    memory_status,
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
    images_received=300,
    images_sampled=20,
    images_dropped=0,
    images_missed=0,
    images_restamped=0,
    last_drop_reason="",
    times_jumped=0,
    last_jump="",
    poses_received=70,
    poses_unusable=1,
    input_rate_hz=30.0,
    sampled_rate_hz=2.0,
    silent_sec=0.03,
    converter="cv_bridge",
    faults=(),
    warnings=(),
)
MEMORY = MemoryReport(
    camera="front",
    statistics=MemoryStatistics(20, 4, 10, 12, 2, 20 / 12, 4800),
    feature_bytes=100,
    kv_bytes=200,
    oldest_age_sec=9.0,
    newest_age_sec=0.25,
)
MODEL = ModelReport(name="Qwen", state="ready", device="cuda:0", error="", warnings=())
ASKS = AskReport(3, 1, True, 2, 8, "BusyError: full", 1.5, 0.25)
NODE = NodeReport(LifecycleReport("active", ""), (CAMERA,), (MEMORY,), MODEL, ASKS, 5.0)


@pytest.mark.parametrize(
    ("state", "fault", "level", "words"),
    [
        ("active", "", Level.OK, "active"),
        ("inactive", "", Level.WARN, "the node is inactive"),
        ("unconfigured", "no model /x", Level.ERROR, "no model /x"),
    ],
)
def test_lifecycle(state, fault, level, words):
    status = lifecycle_status(LifecycleReport(state, fault))
    assert status.level == level
    assert words in status.message


@pytest.mark.parametrize(
    ("changes", "level", "words"),
    [
        ({}, Level.OK, "30.0 images per second"),
        ({"receiving": False}, Level.WARN, "not active"),
        ({"silent_sec": None}, Level.WARN, "no image yet on /robot/image"),
        ({"silent_sec": 5.1}, Level.STALE, "no image for 5.1 s on /robot/image"),
        ({"images_dropped": 2, "last_drop_reason": "step is 3"}, Level.WARN, "2 images dropped: step is 3"),
        ({"faults": ("no stamps",), "warnings": ("no stamps", "fallback")}, Level.WARN, "no stamps"),
        ({"warnings": ("fallback",)}, Level.OK, "images per second"),
    ],
)
def test_camera(changes, level, words):
    status = camera_status(replace(CAMERA, **changes), CAMERA, 5.0)
    assert status.name == "camera front"
    assert status.hardware == "lens"
    assert status.level == level
    assert words in status.message


def test_a_drop_is_a_fault_for_one_report_and_its_reason_stays():
    dropped = replace(CAMERA, images_dropped=1, last_drop_reason="data has 3 bytes")
    assert camera_status(dropped, CAMERA, 5.0).level == Level.WARN
    after = camera_status(dropped, dropped, 5.0)
    assert after.level == Level.OK
    assert dict(after.values)["last drop reason"] == "data has 3 bytes"


@pytest.mark.parametrize(
    ("changes", "level", "words"),
    [
        ({}, Level.OK, "ready on cuda:0"),
        ({"state": "loading"}, Level.WARN, "loading: Qwen"),
        ({"state": "unloaded"}, Level.WARN, "unloaded"),
        ({"state": "failed", "error": "no weights"}, Level.ERROR, "no weights"),
        ({"warnings": ("untrained",)}, Level.WARN, "untrained"),
    ],
)
def test_model(changes, level, words):
    status = model_status(replace(MODEL, **changes))
    assert status.level == level
    assert words in status.message


@pytest.mark.parametrize(
    ("report", "previous", "level", "words"),
    [
        (ASKS, ASKS, Level.OK, "answering"),
        (NO_ASKS, None, Level.OK, "idle"),
        (replace(ASKS, waiting=8), ASKS, Level.WARN, "busy: 8 asks are waiting"),
        (ASKS, replace(ASKS, failed=0), Level.WARN, "1 asks failed, the last one: BusyError: full"),
        (ASKS, None, Level.WARN, "1 asks failed"),
    ],
)
def test_asks(report, previous, level, words):
    status = ask_status(report, previous)
    assert status.level == level
    assert words in status.message


def test_memory_tells_its_statistics_with_units():
    values = dict(memory_status(MEMORY).values)
    assert values["star_memory_size"] == "4 frames"
    assert values["compression_ratio"] == "1.67"
    assert values["kv bytes"] == "200 B"
    assert values["newest frame"] == "0.25 s old"
    empty = replace(MEMORY, oldest_age_sec=None, newest_age_sec=None)
    assert dict(memory_status(empty).values)["oldest frame"] == "none"


def test_the_message_has_the_nodes_name_before_each_status_and_levels_as_bytes():
    array = diagnostic_array(statuses(NODE, None), "robot/scene_memory", 1_500_000_000)
    assert [status.name for status in array.status] == [
        "robot/scene_memory: lifecycle",
        "robot/scene_memory: camera front",
        "robot/scene_memory: memory front",
        "robot/scene_memory: model",
        "robot/scene_memory: asks",
    ]
    assert (array.header.stamp.sec, array.header.stamp.nanosec) == (1, 500_000_000)
    assert all(status.hardware_id for status in array.status)
    assert [status.level for status in array.status] == [b"\x00", b"\x00", b"\x00", b"\x00", b"\x01"]
    assert array.status[1].hardware_id == "lens"
    assert array.status[3].hardware_id == "cuda:0"


def test_the_numbers_are_those_of_the_message_type():
    names = {level.name: bytes([level]) for level in Level}
    assert names == {name: getattr(DiagnosticStatus, name) for name in names}
