from dataclasses import replace

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.serialization import deserialize_message, serialize_message

from delayed_vlm_ros.memory import MemoryStatistics
from delayed_vlm_ros.ros.output.diagnostics import (
    Level,
    camera_status,
    diagnostic_array,
    lifecycle_status,
    memory_status,
    model_status,
    node_statuses,
    persistence_status,
    question_status,
)
from delayed_vlm_ros.ros.output.node_report import (
    CameraReport,
    LifecycleReport,
    MemoryReport,
    ModelReport,
    NodeReport,
    PersistenceReport,
    QuestionReport,
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
    last_jump="stamps jumped back",
    poses_received=70,
    poses_unusable=1,
    frames_without_pose=2,
    input_rate_hz=29.97,
    sampled_rate_hz=2.0,
    silent_sec=0.03,
    converter="rosbags-image",
    input_warnings=(),
    warnings=("no cv_bridge",),
)
MEMORY = MemoryReport("front", MemoryStatistics(20, 4, 10, 12, 2, 20 / 12, 4800), 100, 200, 9.0, 0.25)
MODEL = ModelReport("qwen", "ready", "cuda:0", "", ())
QUESTIONS = QuestionReport(
    answered=5,
    failed=2,
    running=False,
    waiting=0,
    queue_size=8,
    last_error="BusyError: full",
    last_total_latency=1.25,
    last_time_to_first_token=0.5,
)
NODE = NodeReport(LifecycleReport("active", ""), (CAMERA,), (MEMORY,), MODEL, QUESTIONS, 5.0)
PERSISTENCE = PersistenceReport("/kept", "", ("front.star set aside",), False, 6, 2, 1000, 3.0)


def levels(report, previous):
    return {status.name: status.level for status in node_statuses(report, previous)}


@pytest.mark.parametrize(
    ("state", "error", "level", "named"),
    [
        ("active", "", Level.OK, "active"),
        ("inactive", "", Level.WARN, "inactive"),
        ("unconfigured", "no model /x", Level.ERROR, "no model /x"),
        ("active", "cannot deactivate", Level.ERROR, "cannot deactivate"),
    ],
)
def test_lifecycle_status_has_state_and_error(state, error, level, named):
    status = lifecycle_status(LifecycleReport(state, error))
    assert status.level == level
    assert named in status.message
    assert dict(status.values) == {"state": state}


def test_lifecycle_status_warns_of_namesakes_and_keeps_the_state():
    status = lifecycle_status(LifecycleReport("inactive", "", namesakes=1))
    assert status.level == Level.WARN
    assert status.message.startswith("inactive; ")
    assert status.message != lifecycle_status(LifecycleReport("inactive", "")).message


DROPPED = {"images_dropped": 5}  # two more than CAMERA


@pytest.mark.parametrize(
    ("changes", "level", "named"),
    [
        ({}, Level.OK, "30.0"),
        ({"silent_sec": 5.0}, Level.OK, "30.0"),
        ({"warnings": ("fallback",)}, Level.OK, "30.0"),
        ({"silent_sec": None}, Level.WARN, "/robot/image"),
        ({"silent_sec": None, "image_topic_fault": "it has type X"}, Level.WARN, "/robot/image: it has type X"),
        ({"silent_sec": None, "pose_topic_fault": "/pose has type X"}, Level.WARN, "check that the camera publishes"),
        ({"pose_topic_fault": "/pose has type X"}, Level.WARN, "/pose has type X"),
        ({"silent_sec": 5.1}, Level.STALE, "5.1 s on /robot/image"),
        (DROPPED, Level.WARN, "2 images dropped: step is 3"),
        ({"times_jumped": 2}, Level.WARN, "stamps jumped back"),
        ({"input_warnings": ("no stamps",), "warnings": ("no stamps", "fallback")}, Level.WARN, "no stamps"),
        ({"input_warnings": ("no stamps", "too dark")}, Level.WARN, "no stamps; too dark"),
        # several at the same time
        ({"silent_sec": 99.0, **DROPPED, "input_warnings": ("no stamps",)}, Level.STALE, "99.0 s on /robot/image"),
        ({**DROPPED, "input_warnings": ("no stamps",)}, Level.WARN, "2 images dropped"),
    ],
)
def test_camera_status_has_the_worst_level_and_all_warnings(changes, level, named):
    status = camera_status(replace(CAMERA, **changes), CAMERA, 5.0)
    assert (status.name, status.hardware) == ("camera front", "lens")
    assert status.level == level
    assert named in status.message
    for warning in changes.get("input_warnings", ()):
        assert warning in status.message


def test_camera_status_of_an_inactive_node_reports_neither_silence_nor_drops():
    status = camera_status(replace(CAMERA, receiving=False, silent_sec=99.0, **DROPPED), CAMERA, 5.0)
    assert status.level == Level.WARN
    assert "99" not in status.message
    assert "dropped" not in status.message


def test_camera_status_warns_of_a_drop_once_and_keeps_its_reason():
    dropped = replace(CAMERA, images_dropped=4, last_drop_reason="data has 3 bytes")
    assert camera_status(dropped, CAMERA, 5.0).level == Level.WARN
    after = camera_status(dropped, dropped, 5.0)
    assert after.level == Level.OK
    assert dict(after.values)["last drop reason"] == "data has 3 bytes"


def test_camera_values_have_units():
    values = dict(camera_status(CAMERA, CAMERA, 5.0).values)
    assert (values["images received"], values["images sampled"], values["images dropped"]) == ("90", "6", "3")
    assert (values["input rate"], values["sampled rate"]) == ("29.97 Hz", "2.00 Hz")
    assert (values["last image"], values["warnings 1"]) == ("0.03 s ago", "no cv_bridge")
    silent = camera_status(replace(CAMERA, silent_sec=None), CAMERA, 5.0)
    assert dict(silent.values)["last image"] == "never"


def test_camera_hardware_is_the_frame_id_or_else_the_camera():
    assert camera_status(replace(CAMERA, frame_id=""), CAMERA, 5.0).hardware == "front"


@pytest.mark.parametrize(
    ("changes", "level", "named"),
    [
        ({}, Level.OK, "cuda:0"),
        ({"state": "unloaded", "idle_unloaded": True}, Level.OK, "unloaded"),
        ({"state": "loading"}, Level.WARN, "loading: qwen"),
        ({"state": "unloaded"}, Level.WARN, "unloaded"),
        ({"state": "failed", "error": "no weights"}, Level.ERROR, "no weights"),
        ({"state": "failed", "error": "no weights", "warnings": ("untrained",)}, Level.ERROR, "no weights"),
        ({"warnings": ("untrained",)}, Level.WARN, "untrained"),
    ],
)
def test_model_status_has_state_error_and_warnings(changes, level, named):
    status = model_status(replace(MODEL, **changes))
    assert status.level == level
    assert named in status.message


@pytest.mark.parametrize(
    ("report", "previous", "level", "named"),
    [
        (replace(QUESTIONS, running=True), QUESTIONS, Level.OK, "answering"),
        (replace(QUESTIONS, running=True, waiting=7), QUESTIONS, Level.OK, "answering"),
        (QuestionReport(), None, Level.OK, "idle"),
        (replace(QUESTIONS, rejected=9, cancelled=9), QUESTIONS, Level.OK, "idle"),
        (replace(QUESTIONS, waiting=8), QUESTIONS, Level.WARN, "8 questions"),
        (QUESTIONS, replace(QUESTIONS, failed=1), Level.WARN, "1 questions failed, last error: BusyError: full"),
        (QUESTIONS, None, Level.WARN, "2 questions failed"),
        (replace(QUESTIONS, failed=4, waiting=8), QUESTIONS, Level.WARN, "2 questions failed"),
    ],
)
def test_question_status_has_the_worst_level_and_new_failures(report, previous, level, named):
    status = question_status(report, previous)
    assert status.level == level
    assert named in status.message


def test_memory_values_have_units():
    values = dict(memory_status(MEMORY).values)
    assert values["star_memory_size"] == "4 frames"
    assert values["compression_ratio"] == "1.67"
    assert values["kv bytes"] == "200 B"
    assert values["newest frame"] == "0.25 s old"
    empty = replace(MEMORY, oldest_age_sec=None, newest_age_sec=None)
    assert dict(memory_status(empty).values)["oldest frame"] == "none"


@pytest.mark.parametrize(
    ("changes", "level", "named"),
    [
        ({}, Level.OK, "/kept"),
        ({"not_replaced": True}, Level.WARN, "front.star set aside"),
        ({"error": "disk full"}, Level.WARN, "disk full"),
        ({"error": "disk full", "not_replaced": True}, Level.WARN, "disk full"),
    ],
)
def test_persistence_status_has_error_and_replaced_files(changes, level, named):
    status = persistence_status(replace(PERSISTENCE, **changes))
    assert status.level == level
    assert named in status.message
    values = dict(status.values)
    assert (values["restored frames"], values["last file"], values["last written"]) == ("6", "1000 B", "3.00 s old")
    assert values["set aside 1"] == "front.star set aside"


def test_event_is_reported_once():
    # one more dropped image and one more failed question than a second ago
    second = replace(NODE, cameras=(replace(CAMERA, images_dropped=4),), questions=replace(QUESTIONS, failed=3))
    during, after = levels(second, NODE), levels(second, second)
    assert (during["camera front"], during["questions"]) == (Level.WARN, Level.WARN)
    assert (after["camera front"], after["questions"]) == (Level.OK, Level.OK)


def test_only_new_events_are_counted():
    dropped = camera_status(replace(CAMERA, images_dropped=5), CAMERA, 5.0)
    failed = question_status(replace(QUESTIONS, failed=9), QUESTIONS)
    assert dropped.message.startswith("2 ")
    assert failed.message.startswith("7 ")


def test_events_after_a_new_configure_are_counted_from_zero():
    assert question_status(replace(QUESTIONS, failed=1), replace(QUESTIONS, failed=7)).message.startswith("1 ")
    camera = camera_status(replace(CAMERA, images_dropped=2), replace(CAMERA, images_dropped=3), 5.0)
    assert camera.message.startswith("2 ")


def test_cameras_are_compared_by_name():
    # the two cameras change their order
    rear = replace(CAMERA, name="rear", images_dropped=50)
    before = replace(NODE, cameras=(CAMERA, rear), memories=(MEMORY, MEMORY))
    now = replace(NODE, cameras=(rear, CAMERA), memories=(MEMORY, MEMORY))
    assert set(levels(now, before).values()) == {Level.OK}


def test_unconfigured_node_has_no_camera_statuses():
    bare = NodeReport(
        LifecycleReport("unconfigured", ""), (), (), replace(MODEL, state="unloaded"), QuestionReport(), 5.0
    )
    assert levels(bare, NODE) == {"lifecycle": Level.WARN, "model": Level.WARN, "questions": Level.OK}


def test_array_has_the_node_name_before_each_status():
    array = diagnostic_array(node_statuses(NODE, None), "robot/scene_memory", 1_500_000_000)
    assert [status.name for status in array.status] == [
        "robot/scene_memory: lifecycle",
        "robot/scene_memory: camera front",
        "robot/scene_memory: memory front",
        "robot/scene_memory: model",
        "robot/scene_memory: questions",
    ]
    assert (array.header.stamp.sec, array.header.stamp.nanosec) == (1, 500_000_000)
    assert all(status.hardware_id for status in array.status)
    assert [status.level for status in array.status] == [b"\x00", b"\x01", b"\x00", b"\x00", b"\x01"]
    assert array.status[1].hardware_id == "lens"
    assert array.status[3].hardware_id == "cuda:0"


def test_array_has_bytes_for_levels_and_strings_for_values():
    stale = replace(NODE, cameras=(replace(CAMERA, silent_sec=60.0),), persistence=PERSISTENCE)
    message = diagnostic_array(node_statuses(stale, NODE), "scene_memory", 1)
    assert message.status[1].level == DiagnosticStatus.STALE == b"\x03"
    for status in message.status:
        assert type(status.level) is bytes
        assert len(status.values) == len({value.key for value in status.values}) > 0
        assert all(type(value.key) is str and type(value.value) is str for value in status.values)
    assert deserialize_message(serialize_message(message), type(message)) == message


def test_levels_are_those_of_the_message_type():
    names = {level.name: bytes([level]) for level in Level}
    assert names == {name: getattr(DiagnosticStatus, name) for name in names}
