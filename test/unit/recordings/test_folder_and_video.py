"""Folders of images and video files as recordings."""

import cv2
import numpy as np
import pytest

from delayed_vlm_ros.errors import ImageError, RecordingError
from delayed_vlm_ros.replay.recordings import open_recording


def write_images(folder, names):
    folder.mkdir()
    for number, name in enumerate(names):
        cv2.imwrite(str(folder / name), np.full((12, 16, 3), 10 * number, np.uint8))
    return folder


def write_video(file, images):
    height, width = images[0].shape[:2]
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (width, height))
    for image in images:
        writer.write(image)
    writer.release()
    return file


def test_numbered_files_are_ordered_by_number(tmp_path):
    folder = write_images(tmp_path / "images", ["frame_9.png", "frame_10.png", "frame_8.png"])
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
        (["cam0_1700000000123.jpg", "cam0_1700000001123.jpg"], [1700000000123000000, 1700000001123000000]),
        (["0001-1700000000.5.png", "0002-1700000001.5.png"], [1700000000500000000, 1700000001500000000]),
        (["1700000000_000000005.png", "1700000000_500000000.png"], [1700000000000000005, 1700000000500000000]),
        (["1700000000123456.png", "1700000001123.png"], [1700000000123456000, 1700000001123000000]),
    ],
)
def test_file_names_that_are_times_become_stamps(tmp_path, names, expected):
    recording = open_recording(write_images(tmp_path / "images", names))
    assert [one.stamp_ns for one in recording.images()] == expected


@pytest.mark.parametrize(
    ("stray", "is_reported"),
    [
        ("README.txt", False),
        (".DS_Store", False),
        ("._1700000003123.png", False),
        ("thumbnail.png", True),
        ("1700000003123_mask.png", True),
    ],
)
def test_stray_file_does_not_change_the_times(tmp_path, stray, is_reported):
    # given 20 images, five seconds apart, and another file
    names = [f"{1700000000123 + 5000 * number}.png" for number in range(20)]
    folder = write_images(tmp_path / "images", names)
    (folder / stray).write_bytes((folder / names[0]).read_bytes())
    # when
    with open_recording(folder) as recording:
        stamps = [one.stamp_ns for one in recording.images()]
    # then
    assert stamps[-1] - stamps[0] == 95 * 10**9
    assert len(stamps) == recording.image_count == 20
    assert [stray in warning for warning in recording.warnings] == [True] * is_reported


def test_repeated_times_are_reported(tmp_path):
    names = [f"cam{camera}_{1700000000 + second}.png" for camera in (0, 1) for second in range(3)]
    with open_recording(write_images(tmp_path / "images", names)) as recording:
        assert [one.file.name for one in recording.images()] == names[:3]
    assert "cam1_1700000000.png" in recording.warnings[0]


@pytest.mark.parametrize("cameras", [("left", "right"), ("a", "b", "c")])
def test_times_of_several_cameras_are_refused_with_the_remedy(tmp_path, cameras):
    names = [f"{camera}_{1700000000000 + 100 * number}.png" for camera in cameras for number in range(5)]
    with pytest.raises(RecordingError) as caught:
        open_recording(write_images(tmp_path / "images", names))
    assert "one folder per camera" in str(caught.value)
    assert names[0] in str(caught.value)


@pytest.mark.parametrize(
    ("names", "named"),
    [
        (["20231114_221320.png", "20231114_221321.png"], "20231114_221320.png"),
        (["2023-11-14T22-13-20.png", "2023-11-14T22-13-21.png"], "2023-11-14T22-13-20.png"),
        (["IMG_20231114221320123.png", "IMG_20231114221321123.png"], "IMG_20231114221320123.png"),
        (["1.png", "2.png", "3.png", "1700000000.png"], "1700000000.png"),
    ],
)
def test_times_that_are_not_used_are_reported(tmp_path, names, named):
    with open_recording(write_images(tmp_path / "images", names)) as recording:
        assert np.diff([one.stamp_ns for one in recording.images()]).tolist() == [500_000_000] * (len(names) - 1)
    (warning,) = recording.warnings
    assert named in warning
    assert "--image-rate" in warning


@pytest.mark.parametrize("names", [["frame_000001.png", "frame_000002.png"], ["0.png", "1.png"], ["a.png", "b.png"]])
def test_names_without_times_are_not_reported(tmp_path, names):
    with open_recording(write_images(tmp_path / "images", names)) as recording:
        assert recording.warnings == []


def test_damaged_image_file_raises_image_error_with_its_name(tmp_path):
    folder = write_images(tmp_path / "images", ["a.png", "b.png"])
    (folder / "b.png").write_bytes(b"nothing")
    first, second = open_recording(folder).images()
    assert first.decode().shape == (12, 16, 3)
    with pytest.raises(ImageError) as caught:
        second.decode()
    assert "b.png" in str(caught.value)


def test_topic_for_a_folder_is_rejected(tmp_path):
    with pytest.raises(RecordingError) as caught:
        open_recording(write_images(tmp_path / "images", ["a.png"]), topic="/camera")
    assert "/camera" in str(caught.value)


def test_video_images_are_read_in_order(tmp_path):
    # given
    file = write_video(tmp_path / "room.avi", [np.full((48, 64, 3), 10 * number, np.uint8) for number in range(15)])
    # when
    with open_recording(file) as recording:
        found = [(one.stamp_ns, one.decode()) for one in recording.images()]
    # then
    assert (recording.name, recording.kind, recording.image_count) == ("room", "video", 15)
    np.testing.assert_allclose(np.diff([stamp for stamp, _ in found]), 1e8, atol=1e6)
    assert [round(float(pixels.mean()) / 10) for _, pixels in found] == list(range(15))
    assert recording.warnings == []


def test_truncated_video_adds_a_warning_with_both_counts(tmp_path):
    # given
    random = np.random.default_rng(1)
    file = write_video(tmp_path / "room.avi", list(random.integers(0, 256, (100, 48, 64, 3), dtype=np.uint8)))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    # when
    with open_recording(file) as recording:
        count = len(list(recording.images()))
    # then
    assert 20 < count < 80
    (warning,) = recording.warnings
    assert f"{count} of 100" in warning
