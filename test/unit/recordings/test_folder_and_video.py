"""Folders of images and video files as recordings."""

import cv2
import numpy as np
import pytest

from delayed_vlm_ros.errors import ImageError, RecordingError
from delayed_vlm_ros.replay.recordings import open_recording


def write(folder, names):
    folder.mkdir()
    for number, name in enumerate(names):
        cv2.imwrite(str(folder / name), np.full((12, 16, 3), 10 * number, np.uint8))
    return folder


def stamps(recording):
    return [one.stamp_ns for one in recording.images()]


def test_numbered_files_come_in_the_order_of_their_numbers(tmp_path):
    folder = write(tmp_path / "images", ["frame_9.png", "frame_10.png", "frame_8.png"])
    recording = open_recording(folder, image_rate=4.0)
    assert (recording.name, recording.kind, recording.image_count) == ("images", "folder", 3)
    images = list(recording.images())
    assert [one.decode()[0, 0, 0] for one in images] == [20, 0, 10]
    assert np.diff([one.stamp_ns for one in images]).tolist() == [250_000_000] * 2


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["1305031102.175304.png", "1305031102.275304.png"], [1305031102175304000, 1305031102275304000]),
        (["1403636579763555584.png", "1403636579813555456.png"], [1403636579763555584, 1403636579813555456]),
        (["1403636579763.jpg", "1403636579863.jpg"], [1403636579763000000, 1403636579863000000]),
        (
            ["1600000000.75.png", "1600000000.5.png", "1600000001.png"],
            [1600000000500000000, 1600000000750000000, 1600000001000000000],
        ),
        (["0001.png", "0002.png"], [1_000_000_000, 1_500_000_000]),
    ],
)
def test_names_that_are_times_are_taken_for_them(tmp_path, names, expected):
    assert stamps(open_recording(write(tmp_path / "images", names))) == expected


def test_a_file_that_is_no_image_is_an_error_of_its_own(tmp_path):
    folder = write(tmp_path / "images", ["a.png", "b.png"])
    (folder / "b.png").write_bytes(b"nothing")
    first, second = open_recording(folder).images()
    assert first.decode().shape == (12, 16, 3)
    with pytest.raises(ImageError, match=r"b\.png is damaged"):
        second.decode()


def test_a_topic_belongs_to_bags_only(tmp_path):
    with pytest.raises(RecordingError, match="no bag, so it has no topic /camera"):
        open_recording(write(tmp_path / "images", ["a.png"]), topic="/camera")


def test_a_video_gives_its_images_undecoded(tmp_path):
    # given
    file = tmp_path / "room.avi"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (64, 48))
    for number in range(15):
        writer.write(np.full((48, 64, 3), 10 * number, np.uint8))
    writer.release()
    # when
    with open_recording(file) as recording:
        found = [(one.stamp_ns, one.decode()) for one in recording.images()]
    # then
    assert (recording.name, recording.kind, recording.image_count) == ("room", "video", 15)
    np.testing.assert_allclose(np.diff([stamp for stamp, _ in found]), 1e8, atol=1e6)
    assert [round(float(pixels.mean()) / 10) for _, pixels in found] == list(range(15))
    assert recording.damage == ""


def test_a_video_that_is_cut_short_says_so(tmp_path):
    # given
    file = tmp_path / "room.avi"
    random = np.random.default_rng(1)
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (64, 48))
    for _ in range(100):
        writer.write(random.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    writer.release()
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    # when
    with open_recording(file) as recording:
        count = len(list(recording.images()))
    # then
    assert 20 < count < 80
    assert f"says it has 100 images, and ends with the {count}th" in recording.damage
