"""Messages read from a bag are compared with the index: other QoS, files not named, counts that are out of date."""

import shutil
import sqlite3
from contextlib import closing

import numpy as np
import pytest
import yaml
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from delayed_vlm_ros.errors import RecordingError
from delayed_vlm_ros.replay.recordings import open_recording

TYPES = get_typestore(Stores.LATEST)
STORAGES = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}
SUFFIXES = {"mcap": ".mcap", "sqlite3": ".db3"}
SECOND = 10**9
START = 1_700_000_000 * SECOND
TOPIC = "/camera/image_raw"
IMAGE = "sensor_msgs/msg/Image"

pytestmark = pytest.mark.parametrize("storage", STORAGES)


def qos(reliability):
    unlimited = QosTime(9_223_372_036, 854_775_807)
    return [
        Qos(
            QosHistory.KEEP_LAST, 5, reliability, QosDurability.VOLATILE,
            unlimited, unlimited, QosLiveliness.AUTOMATIC, unlimited, False,
        )
    ]  # fmt: skip


RELIABLE, BEST_EFFORT = qos(QosReliability.RELIABLE), qos(QosReliability.BEST_EFFORT)


def write(path, storage, count=4, first=0, qos=(), compression=None, kind=IMAGE, topic=TOPIC):
    """Write a bag of 2 × 2 pixels images, and 3 messages of another topic."""
    writer = Writer(path, version=9, storage_plugin=STORAGES[storage])
    if compression:
        writer.set_compression(compression, CompressionFormat.ZSTD)
    with writer:
        camera = writer.add_connection(topic, kind, typestore=TYPES, offered_qos_profiles=qos)
        for number in range(first, first + count):
            stamp = TYPES.types["builtin_interfaces/msg/Time"](sec=START // SECOND + number, nanosec=0)
            header = TYPES.types["std_msgs/msg/Header"](stamp=stamp, frame_id="lens")
            pixels = np.full(12, number, np.uint8)
            message = TYPES.types[IMAGE](header, 2, 2, "rgb8", is_bigendian=0, step=6, data=pixels)
            writer.write(camera, START + number * SECOND, TYPES.serialize_cdr(message, IMAGE))
        speed = writer.add_connection("/speed", "std_msgs/msg/Float64", typestore=TYPES)
        value = TYPES.serialize_cdr(TYPES.types["std_msgs/msg/Float64"](1.5), "std_msgs/msg/Float64")
        for number in range(3):
            writer.write(speed, START + number, value)
    return path


def merge(path, storage, parts, named=None):
    """Make one bag of several: the first one's metadata names the first ``named`` files (default: all)."""
    path.mkdir()
    names = []
    for number, part in enumerate(parts):
        (file,) = [one for one in part.iterdir() if one.name != "metadata.yaml"]
        names.append(f"bag_{number}{SUFFIXES[storage]}")
        shutil.copy(file, path / names[-1])
    shutil.copy(parts[0] / "metadata.yaml", path)
    edit(path, files=names[:named], count=4 * len(names[:named]))
    return path


def edit(path, files=None, count=None, qos=None, topic=TOPIC):
    """Change a bag's metadata as a tool or a user would."""
    file = path / "metadata.yaml"
    content = yaml.safe_load(file.read_text())
    information = content["rosbag2_bagfile_information"]
    if files is not None:
        information["relative_file_paths"] = files
    (entry,) = [one for one in information["topics_with_message_count"] if one["topic_metadata"]["name"] == topic]
    if count is not None:
        entry["message_count"] = count
    if qos is not None:
        entry["topic_metadata"]["offered_qos_profiles"] = qos
    file.write_text(yaml.safe_dump(content))


def read(path, topic=""):
    """Return the stamps that were read, in seconds from START, and the warnings."""
    with open_recording(path, topic=topic) as recording:
        return [(one.stamp_ns - START) // SECOND for one in recording.images()], "; ".join(recording.warnings)


def test_bag_as_recorded_has_no_difference(tmp_path, storage):
    path = write(tmp_path / "bag", storage, qos=RELIABLE)
    assert read(path, TOPIC) == ([0, 1, 2, 3], "")


def test_files_with_different_qos_are_all_read(tmp_path, storage):
    parts = [
        write(tmp_path / "a", storage, qos=BEST_EFFORT),
        write(tmp_path / "b", storage, first=4, qos=RELIABLE),
    ]
    path = merge(tmp_path / "bag", storage, parts)
    assert read(path) == (list(range(8)), "")


def test_qos_removed_from_the_metadata_loses_no_message(tmp_path, storage):
    path = write(tmp_path / "bag", storage, qos=BEST_EFFORT)
    edit(path, qos=[])
    assert read(path) == ([0, 1, 2, 3], "")


def test_two_publishers_with_different_qos_on_a_topic_are_both_read(tmp_path, storage):
    # given one file with two connections
    writer = Writer(tmp_path / "bag", version=9, storage_plugin=STORAGES[storage])
    with writer:
        connections = [
            writer.add_connection(TOPIC, IMAGE, typestore=TYPES, offered_qos_profiles=one)
            for one in (BEST_EFFORT, RELIABLE)
        ]
        header = TYPES.types["std_msgs/msg/Header"](
            stamp=TYPES.types["builtin_interfaces/msg/Time"](sec=START // SECOND, nanosec=0), frame_id=""
        )
        message = TYPES.types[IMAGE](header, 2, 2, "rgb8", is_bigendian=0, step=6, data=np.zeros(12, np.uint8))
        for number in range(6):
            writer.write(connections[number % 2], START + number, TYPES.serialize_cdr(message, IMAGE))
    # when, then
    assert read(tmp_path / "bag") == ([0] * 6, "")


@pytest.mark.parametrize("listed", [3, 400])
def test_metadata_with_another_count_is_reported(tmp_path, storage, listed):
    path = write(tmp_path / "bag", storage)
    edit(path, count=listed)
    stamps, warnings = read(path)
    assert stamps == [0, 1, 2, 3]
    assert f"4 messages of {TOPIC} read" in warnings
    assert f"metadata.yaml lists {listed}" in warnings


def test_wrong_count_of_another_topic_is_not_reported(tmp_path, storage):
    path = write(tmp_path / "bag", storage)
    edit(path, count=400, topic="/speed")
    assert read(path) == ([0, 1, 2, 3], "")


def test_files_the_metadata_does_not_name_are_reported(tmp_path, storage):
    parts = [write(tmp_path / f"part{number}", storage, first=4 * number) for number in range(3)]
    path = merge(tmp_path / "bag", storage, parts, named=1)
    stamps, warnings = read(path)
    assert stamps == [0, 1, 2, 3]
    assert f"bag_1{SUFFIXES[storage]}, bag_2{SUFFIXES[storage]}" in warnings
    with open_recording(path) as recording:
        assert recording.warnings, "known before the first image is read"


def test_metadata_that_names_no_file_leaves_all_files_read_and_is_reported(tmp_path, storage):
    parts = [write(tmp_path / f"part{number}", storage, first=4 * number) for number in range(2)]
    path = merge(tmp_path / "bag", storage, parts, named=0)
    stamps, warnings = read(path)
    assert stamps == list(range(8))
    assert "metadata.yaml lists 0" in warnings


def test_named_file_that_is_missing_is_reported(tmp_path, storage):
    parts = [write(tmp_path / f"part{number}", storage, first=4 * number) for number in range(3)]
    path = merge(tmp_path / "bag", storage, parts)
    (path / f"bag_1{SUFFIXES[storage]}").unlink()
    stamps, warnings = read(path)
    assert stamps == [0, 1, 2, 3, 8, 9, 10, 11]
    assert "metadata.yaml lists 12" in warnings
    assert f"bag_1{SUFFIXES[storage]}" in warnings


def test_renamed_file_is_read_without_a_difference(tmp_path, storage):
    path = write(tmp_path / "bag", storage)
    (file,) = path.glob(f"*{SUFFIXES[storage]}")
    file.rename(file.with_stem("renamed"))
    assert read(path) == ([0, 1, 2, 3], "")


def test_topic_missing_in_the_metadata_is_read_and_reported(tmp_path, storage):
    path = write(tmp_path / "bag", storage)
    file = path / "metadata.yaml"
    content = yaml.safe_load(file.read_text())
    content["rosbag2_bagfile_information"]["topics_with_message_count"].pop(0)
    file.write_text(yaml.safe_dump(content))
    stamps, warnings = read(path)
    assert stamps == [0, 1, 2, 3]
    assert "metadata.yaml lists 0" in warnings


@pytest.mark.parametrize("text", ["", "[]", "a: [", "rosbag2_bagfile_information: 3", "\x00"])
def test_unreadable_metadata_lists_nothing(tmp_path, storage, text):
    path = write(tmp_path / "bag", storage)
    (path / "metadata.yaml").write_text(text)
    assert read(path) == ([0, 1, 2, 3], "")


def test_file_compressed_bag_with_its_decompressed_copy_has_no_difference(tmp_path, storage):
    path = write(tmp_path / "bag", storage, compression=CompressionMode.FILE)
    plain = write(tmp_path / "plain", storage)
    (file,) = plain.glob(f"*{SUFFIXES[storage]}")
    shutil.copy(file, path / f"bag{SUFFIXES[storage]}")
    assert read(path) == ([0, 1, 2, 3], "")


@pytest.mark.parametrize("single_file", [False, True])
def test_compressed_messages_are_read_without_metadata(tmp_path, storage, single_file):
    path = write(tmp_path / "bag", storage, compression=CompressionMode.MESSAGE)
    (path / "metadata.yaml").unlink()
    (file,) = path.iterdir()
    with open_recording(file if single_file else path) as recording:
        pixels = [one.decode()[0, 0, 0] for one in recording.images()]
        assert pixels == [0, 1, 2, 3]
        assert recording.warnings == []


@pytest.mark.parametrize("single_file", [False, True])
def test_compressed_file_is_read_without_metadata(tmp_path, storage, single_file):
    path = write(tmp_path / "bag", storage, compression=CompressionMode.FILE)
    (path / "metadata.yaml").unlink()
    (file,) = path.iterdir()
    assert read(file if single_file else path) == ([0, 1, 2, 3], "")


def test_damaged_compressed_file_is_refused(tmp_path, storage):
    path = write(tmp_path / "bag", storage, compression=CompressionMode.FILE)
    (path / "metadata.yaml").unlink()
    (file,) = path.iterdir()
    content = bytearray(file.read_bytes())
    content[:4] = b"none"
    file.write_bytes(content)
    with pytest.raises(RecordingError) as caught:
        open_recording(path)
    assert all(text in str(caught.value) for text in (file.name, "damaged"))


def test_topic_of_another_type_is_refused_with_its_type(tmp_path, storage):
    path = write(tmp_path / "bag", storage, kind="sensor_msgs/msg/PointCloud2")
    for topic in ("", TOPIC):
        with pytest.raises(RecordingError) as caught:
            open_recording(path, topic=topic)
        assert "sensor_msgs/msg/PointCloud2" in str(caught.value)


def test_messages_only_in_the_log_of_a_killed_recorder_are_no_difference(tmp_path, storage):
    if storage != "sqlite3":
        pytest.skip("only SQLite has a write-ahead log")
    path = write(tmp_path / "bag", storage)
    (file,) = path.glob("*.db3")
    with closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA wal_autocheckpoint = 0")
        database.execute(
            "INSERT INTO messages (topic_id, timestamp, data) SELECT topic_id, timestamp, data FROM messages"
        )
        database.commit()
        shutil.copytree(path, tmp_path / "crashed")
    assert read(tmp_path / "crashed") == ([0, 1, 2, 3] * 2, "")
