"""Bags read without ROS: complete, compressed, truncated, without metadata."""

import shutil
import sqlite3
import sys
import tracemalloc
import zlib
from contextlib import closing
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from image_bombs import jpeg_with_two_sizes, png
from mcap.writer import Writer as McapWriter
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from delayed_vlm_ros.errors import DependencyError, ImageError, RecordingError
from delayed_vlm_ros.replay.recordings import bag, open_recording

TYPES = get_typestore(Stores.LATEST)
STORAGES = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}
SECOND = 10**9
START = 1_700_000_000 * SECOND


def header(stamp_ns, frame_id="lens"):
    stamp = TYPES.types["builtin_interfaces/msg/Time"](sec=stamp_ns // SECOND, nanosec=stamp_ns % SECOND)
    return TYPES.types["std_msgs/msg/Header"](stamp=stamp, frame_id=frame_id)


def shade(number):
    return np.full((12, 16, 3), (number * 7 % 256, 10, 200), np.uint8)


def raw(number, stamp_ns):
    image = shade(number)
    return TYPES.types["sensor_msgs/msg/Image"](
        header(stamp_ns), 12, 16, "rgb8", is_bigendian=0, step=48, data=image.reshape(-1)
    )


def compressed(number, stamp_ns):
    data = cv2.imencode(".png", shade(number)[..., ::-1])[1].reshape(-1)
    return TYPES.types["sensor_msgs/msg/CompressedImage"](header(stamp_ns), "png", data)


def write_bag(path, storage="mcap", count=20, make=raw, topics=("/camera/image_raw",), compression=None):
    writer = Writer(path, version=9, storage_plugin=STORAGES[storage])
    if compression:
        writer.set_compression(compression, CompressionFormat.ZSTD)
    with writer:
        for topic in topics:
            kind = make(0, 0).__msgtype__
            connection = writer.add_connection(topic, kind, typestore=TYPES)
            for number in range(count):
                stamp = START + number * SECOND // 10
                data = TYPES.serialize_cdr(make(number, stamp), kind)
                writer.write(connection, stamp + 5_000_000, data)
        other = writer.add_connection("/speed", "std_msgs/msg/Float64", typestore=TYPES)
        message = TYPES.types["std_msgs/msg/Float64"](1.5)
        writer.write(other, START, TYPES.serialize_cdr(message, "std_msgs/msg/Float64"))
    return path


def read(path, topic=""):
    with open_recording(path, topic=topic) as recording:
        return list(recording.images()), recording


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("compression", [None, CompressionMode.MESSAGE, CompressionMode.FILE, CompressionMode.STORAGE])
@pytest.mark.parametrize("make", [raw, compressed])
def test_bag_images_are_read_in_order(tmp_path, storage, compression, make):
    # given
    if compression is CompressionMode.STORAGE and storage == "sqlite3":
        pytest.skip("sqlite3 has no such compression")
    path = write_bag(tmp_path / "bag", storage, make=make, compression=compression)
    # when
    with open_recording(path) as recording:
        images = list(recording.images())
        # then
        assert (recording.kind, recording.topic, recording.image_count) == ("bag", "/camera/image_raw", 20)
        assert [one.stamp_ns for one in images] == [START + number * SECOND // 10 for number in range(20)]
        assert [one.arrival_ns - one.stamp_ns for one in images] == [5_000_000] * 20
        for number, one in enumerate(images):
            np.testing.assert_array_equal(one.decode(), shade(number))
        assert recording.warnings == []


@pytest.mark.parametrize(("storage", "suffix"), [("mcap", "mcap"), ("sqlite3", "db3")])
def test_single_file_of_a_bag_is_read(tmp_path, storage, suffix):
    path = write_bag(tmp_path / "bag", storage)
    (file,) = path.glob(f"*.{suffix}")
    images, _ = read(file)
    assert len(images) == 20


@pytest.mark.parametrize("storage", STORAGES)
def test_bag_without_metadata_is_read_completely(tmp_path, storage):
    path = write_bag(tmp_path / "bag", storage)
    (path / "metadata.yaml").unlink()
    images, recording = read(path)
    assert len(images) == 20
    assert recording.warnings == []
    np.testing.assert_array_equal(images[7].decode(), shade(7))


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("share", [0.5, 0.8, 0.97])
def test_truncated_bag_is_read_up_to_the_damage(tmp_path, storage, share):
    # given images of noise, large enough for several chunks of a file
    random = np.random.default_rng(3)

    def noisy(number, stamp_ns):
        message = raw(number, stamp_ns)
        message.height, message.width, message.step = 96, 128, 384
        message.data = random.integers(0, 256, 96 * 384, dtype=np.uint8)
        return message

    path = write_bag(tmp_path / "bag", storage, count=150, make=noisy)
    (file,) = [one for one in path.iterdir() if one.suffix != ".yaml"]
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    # when
    images, recording = read(path)
    # then
    assert 0.5 * share * 150 < len(images) <= 150
    assert [one.stamp_ns for one in images] == [START + n * SECOND // 10 for n in range(len(images))]
    assert len(images) == 150 or f"read up to image {len(images)}" in "".join(recording.warnings)


def test_write_ahead_log_of_a_killed_recorder_is_read(tmp_path):
    # given a database whose newest messages are in its write-ahead log, copied as a crash leaves it
    path = write_bag(tmp_path / "bag", "sqlite3", count=20)
    (file,) = path.glob("*.db3")
    with closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA wal_autocheckpoint = 0")
        rows = database.execute("SELECT topic_id, timestamp, data FROM messages WHERE topic_id = 1").fetchall()
        later = [(topic, stamp + 2 * SECOND, data) for topic, stamp, data in rows]
        database.executemany("INSERT INTO messages (topic_id, timestamp, data) VALUES (?, ?, ?)", later)
        database.commit()
        shutil.copytree(path, tmp_path / "crashed")
    # when
    images, recording = read(tmp_path / "crashed")
    # then
    assert len(images) == 40
    assert recording.warnings == []


def test_missing_topic_is_rejected_with_the_available_topics(tmp_path):
    path = write_bag(tmp_path / "bag", topics=("/left/image", "/right/image"))
    for wanted, named in (
        ("/front", ("/front", "/left/image (sensor_msgs/msg/Image", "/right/image (sensor_msgs/msg/Image")),
        ("", ("/left/image (sensor_msgs/msg/Image", "/right/image (sensor_msgs/msg/Image")),
        ("/speed", ("/speed", "std_msgs/msg/Float64")),
    ):
        with pytest.raises(RecordingError) as caught:
            read(path, wanted)
        assert all(name in str(caught.value) for name in named)
    assert len(read(path, "/right/image")[0]) == 20


def test_damaged_message_raises_image_error_and_later_images_are_read(tmp_path):
    def broken(number, stamp_ns):
        message = compressed(number, stamp_ns)
        if number == 3:
            message.data = message.data[:40]
        return message

    images, recording = read(write_bag(tmp_path / "bag", make=broken))
    with pytest.raises(ImageError):
        images[3].decode()
    np.testing.assert_array_equal(images[4].decode(), shade(4))
    assert recording.warnings == []


def test_message_that_decompresses_to_more_than_an_image_is_refused(tmp_path, monkeypatch):
    # given a bag without metadata, whose messages rosbags leaves compressed
    path = write_bag(tmp_path / "bag", count=2, compression=CompressionMode.MESSAGE)
    (path / "metadata.yaml").unlink()
    assert [image.decode().shape for image in read(path)[0]] == [shade(0).shape] * 2

    # when
    monkeypatch.setattr(bag, "_MAX_MESSAGE_BYTES", 500)
    images, recording = read(path)

    # then
    assert len(images) == 2
    assert recording.warnings == []
    for image in images:
        for use in (image.decode, lambda image=image: image.stamp_ns, lambda image=image: image.serialised):
            with pytest.raises(ImageError, match="decompresses to more than 500 bytes"):
                use()


def test_compressed_message_takes_memory_for_its_own_size(tmp_path):
    # given
    path = write_bag(tmp_path / "bag", count=2, compression=CompressionMode.MESSAGE)
    (path / "metadata.yaml").unlink()

    # when
    tracemalloc.start()
    images, _ = read(path)
    shapes = [image.decode().shape for image in images]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    # then
    assert shapes == [shade(0).shape] * 2
    assert peak < 5_000_000


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_image_bomb_in_a_bag_is_refused_and_later_images_are_read(tmp_path, kind):
    # given
    pixels = zlib.compress(bytes(200_000_000), 9)
    bombs = {"png": png(48, 64, pixels=pixels), "jpeg": jpeg_with_two_sizes(30_000, 20_000, "tem", padded=False)}
    faults = {"png": "more pixel data than its size needs", "jpeg": "claims 20000 × 30000 pixels"}

    def with_bomb(number, stamp_ns):
        message = compressed(number, stamp_ns)
        if number == 3:
            message.data = np.frombuffer(bombs[kind], np.uint8)
        return message

    # when
    images, recording = read(write_bag(tmp_path / "bag", make=with_bomb))

    # then
    with pytest.raises(ImageError, match=faults[kind]):
        images[3].decode()
    np.testing.assert_array_equal(images[4].decode(), shade(4))
    assert recording.warnings == []


def test_path_that_is_not_a_recording_is_rejected_with_its_name(tmp_path):
    (tmp_path / "empty").mkdir()
    for name, content in (
        ("old.bag", b"#ROSBAG V2.0"),
        ("junk.mcap", b"no bag at all" * 50),
        ("junk.db3", b"no bag at all" * 50),
    ):
        (tmp_path / name).write_bytes(content)
    for name in ("nothing", "empty", "old.bag", "junk.mcap", "junk.db3"):
        with pytest.raises(RecordingError) as caught:
            open_recording(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        assert ("rosbags-convert" in str(caught.value)) == (name == "old.bag")


def test_missing_rosbags_package_is_named(tmp_path, monkeypatch):
    def missing(name, *_):
        if name.partition(".")[0] == "rosbags":
            raise ModuleNotFoundError("No module named 'rosbags'", name="rosbags")

    path = write_bag(tmp_path / "bag")
    for name in [name for name in sys.modules if name.startswith(("rosbags", "delayed_vlm_ros.replay.recordings.bag"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [SimpleNamespace(find_spec=missing), *sys.meta_path])
    with pytest.raises(DependencyError) as caught:
        open_recording(path)
    assert "rosbags" in str(caught.value)


def test_bag_without_images_is_rejected_with_its_topics(tmp_path):
    with pytest.raises(RecordingError) as caught:
        read(write_bag(tmp_path / "bag", topics=()))
    assert "/speed (std_msgs/msg/Float64, 1 messages)" in str(caught.value)


def test_packets_of_a_video_stream_are_refused_with_their_decoder(tmp_path):
    # given H.264 packets in an MCAP file
    with (tmp_path / "drive.mcap").open("wb") as stream:
        writer = McapWriter(stream)
        writer.start(profile="ros2")
        schema = writer.register_schema(
            name="ffmpeg_image_transport_msgs/msg/FFMPEGPacket", encoding="ros2msg", data=b"uint8[] data\n"
        )
        channel = writer.register_channel(topic="/camera/ffmpeg", message_encoding="cdr", schema_id=schema)
        for number in range(3):
            writer.add_message(channel_id=channel, log_time=number, publish_time=number, data=bytes(8))
        writer.finish()
    # then
    with pytest.raises(RecordingError) as caught:
        open_recording(tmp_path / "drive.mcap")
    for text in ("/camera/ffmpeg", "FFMPEGPacket, 3 messages", "republish", "ffmpeg_image_transport,"):
        assert text in str(caught.value)


def test_folder_with_a_ros_1_bag_is_refused_with_the_remedy(tmp_path):
    (tmp_path / "old.bag").write_bytes(b"#ROSBAG V2.0\n")
    with pytest.raises(RecordingError) as caught:
        open_recording(tmp_path)
    assert "rosbags-convert --src old.bag" in str(caught.value)
