"""Video files, decoded by OpenCV, and camera devices, replaced by fakes."""

import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from delayed_vlm_ros.errors import VideoSourceError
from delayed_vlm_ros.images.video import VideoSource, open_video

VIDEOS = Path(__file__).resolve().parents[4] / "shared" / "videos"


def write_video(path, code="mp4v", rate=12.5, count=10, size=(64, 48)):
    """Write a video whose left half is red and whose right half brightens by 20 levels per image, up to white."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), rate, size)
    assert writer.isOpened()
    for index in range(count):
        bgr = np.zeros((size[1], size[0], 3), dtype=np.uint8)
        bgr[:, : size[0] // 2] = (0, 0, 220)
        bgr[:, size[0] // 2 :] = min(20 * index, 255)
        writer.write(bgr)
    writer.release()
    return path


class FakeCapture:
    """The methods of cv2.VideoCapture in use; ``times`` are the reported times of the images, in seconds."""

    def __init__(self, times, rate=0.0, count=0.0, pixels=None, size=(6.0, 4.0)):
        self.times, self.rate, self.count, self.size = times, rate, count, size
        self.pixels = np.zeros((4, 6, 3), dtype=np.uint8) if pixels is None else pixels
        self.position = -1
        self.retrieved = 0
        self.released = False

    def get(self, which):
        if which == cv2.CAP_PROP_POS_MSEC:
            return self.times[self.position] * 1000.0
        known = {cv2.CAP_PROP_FPS: self.rate, cv2.CAP_PROP_FRAME_COUNT: self.count}
        known |= {cv2.CAP_PROP_FRAME_WIDTH: self.size[0], cv2.CAP_PROP_FRAME_HEIGHT: self.size[1]}
        return known[which]

    def grab(self):
        self.position += 1
        return self.position < len(self.times)

    def retrieve(self):
        self.retrieved += 1
        return True, self.pixels

    def read(self):
        return self.retrieve() if self.grab() else (False, None)

    def release(self):
        self.released = True


@pytest.mark.parametrize(("name", "code"), [("a.mp4", "mp4v"), ("a.avi", "MJPG")])
def test_video_file_yields_upright_rgb_images_with_stamps(tmp_path, name, code):
    with open_video(str(write_video(tmp_path / name, code))) as video:
        assert not video.is_device
        assert video.frames_per_second == pytest.approx(12.5)
        assert video.frame_count == 10
        assert video.duration_sec == pytest.approx(0.8)
        frames = list(video.frames())
    assert [frame.stamp for frame in frames] == pytest.approx([index * 0.08 for index in range(10)], abs=1e-3)
    for index, frame in enumerate(frames):
        assert frame.image.shape == (48, 64, 3)
        assert frame.image.dtype == np.uint8
        assert frame.image[24, 10] == pytest.approx((220, 0, 0), abs=25)
        assert frame.image[24, 54] == pytest.approx((20 * index,) * 3, abs=12)


def test_lower_rate_skips_images_evenly(tmp_path):
    with open_video(str(write_video(tmp_path / "a.mp4", rate=20.0, count=40))) as video:
        stamps = [frame.stamp for frame in video.frames(rate=4.0)]
    assert stamps == pytest.approx([index * 0.25 for index in range(8)], abs=1e-3)


def test_skipped_images_are_not_decoded():
    capture = FakeCapture([index / 10 for index in range(100)], rate=10.0)
    assert len(list(VideoSource("x", capture, is_device=False).frames(rate=1.0))) == 10
    assert capture.retrieved == 10


def test_variable_frame_rate_keeps_the_true_stamps():
    times = [5.0, 5.04, 5.5, 5.52, 7.0]  # a file may start at any time
    video = VideoSource("x", FakeCapture(times, rate=25.0), is_device=False)
    assert [frame.stamp for frame in video.frames()] == pytest.approx([0.0, 0.04, 0.5, 0.52, 2.0])


@pytest.mark.parametrize("times", [[0.0] * 5, [float("nan")] * 5, [0.0, 0.1, 0.05, 0.1, 0.1]])
def test_stamps_increase_where_the_file_has_no_usable_times(times):
    video = VideoSource("x", FakeCapture(times, rate=10.0), is_device=False)
    assert [frame.stamp for frame in video.frames()] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize("rate", [0.0, float("nan"), 90000.0])
def test_implausible_frame_rate_is_reported_as_unknown(rate):
    video = VideoSource("x", FakeCapture([0.0, 0.0], rate=rate, count=-1.0), is_device=False)
    assert video.frames_per_second is None
    assert video.frame_count is None
    assert video.duration_sec is None
    assert [frame.stamp for frame in video.frames()] == [0.0, 0.04]


def test_grey_image_is_converted_to_rgb():
    grey = FakeCapture([0.0], pixels=np.full((4, 6), 7, dtype=np.uint8))
    (frame,) = VideoSource("x", grey, is_device=False).frames()
    assert frame.image.shape == (4, 6, 3)


def test_video_stored_sideways_is_rotated_upright(tmp_path):
    path = write_video(tmp_path / "a.mp4")
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 44
    data[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 48 << 16, 0, 1 << 30)
    path.write_bytes(data)
    with open_video(str(path)) as video:
        frame = next(video.frames())
    assert frame.image.shape == (64, 48, 3)
    assert frame.image[10, 24] == pytest.approx((220, 0, 0), abs=25)  # left became up


def test_closed_source_releases_its_file():
    capture = FakeCapture([0.0, 0.1])
    with VideoSource("x", capture, is_device=False):
        pass
    assert capture.released


@pytest.mark.parametrize(
    ("name", "content"),
    [("missing.mp4", None), ("notes.mp4", b"Dear diary,\n" * 50), ("empty.mp4", b""), (".", None)],
)
def test_unusable_file_raises_an_error_that_names_it(tmp_path, name, content):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(VideoSourceError) as caught:
        open_video(str(path))
    assert str(path) in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_unreadable_file_raises_an_error_that_names_it(tmp_path):
    path = write_video(tmp_path / "a.mp4")
    path.chmod(0)
    with pytest.raises(VideoSourceError) as caught:
        open_video(str(path))
    assert f"'{path}': permission denied" in str(caught.value)


def test_blank_source_raises():
    with pytest.raises(VideoSourceError):
        open_video("  ")


def test_file_without_images_is_rejected_and_released():
    capture = FakeCapture([])
    with pytest.raises(VideoSourceError) as caught:
        VideoSource("sound.mp4", capture, is_device=False)
    assert "sound.mp4" in str(caught.value)
    assert capture.released


@pytest.mark.skipif(sys.platform != "linux", reason="device paths are specific to Linux")
@pytest.mark.parametrize("source", [987, "987", "/dev/video987"])
def test_missing_device_raises_an_error_that_names_it(source):
    with pytest.raises(VideoSourceError) as caught:
        open_video(source)
    assert "/dev/video987" in str(caught.value)


def test_device_that_stops_delivering_raises_instead_of_ending():
    video = VideoSource("/dev/video0", FakeCapture([0.0, 0.0, 0.0]), is_device=True)
    stamps = []
    with pytest.raises(VideoSourceError):
        stamps.extend(frame.stamp for frame in video.frames())
    assert video.frame_count is None


def test_source_with_too_many_pixels_is_refused_before_an_image_is_decoded():
    capture = FakeCapture([0.0], size=(10_001.0, 10_000.0))
    with pytest.raises(VideoSourceError) as caught:
        VideoSource("room.mp4", capture, is_device=False)
    assert "10001 × 10000 pixels, and the limit is 100000000" in str(caught.value)
    assert capture.released
    assert not capture.retrieved


def test_device_without_images_is_rejected():
    with pytest.raises(VideoSourceError) as caught:
        VideoSource("/dev/video0", FakeCapture([]), is_device=True)
    assert "/dev/video0" in str(caught.value)


def test_truncated_file_prints_nothing_on_standard_error(tmp_path):
    path = write_video(tmp_path / "a.mp4", count=40)
    path.write_bytes(path.read_bytes()[:900])
    code = (
        "import sys\n"
        "from delayed_vlm_ros.errors import VideoSourceError\n"
        "from delayed_vlm_ros.images.video import open_video\n"
        "try:\n    open_video(sys.argv[1])\nexcept VideoSourceError as error:\n    print(error)\n"
    )
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", code, path], cwd=root, capture_output=True, text=True, check=True)
    assert str(path) in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("name", "count", "rate", "shape"),
    [
        ("bikes.mp4", 250, 25.0, (272, 640, 3)),
        ("bigbuckbunny.mp4", 132, 25.0, (720, 1280, 3)),
        ("carphone_pristine.mp4", 120, 29.97, (144, 176, 3)),
    ],
)
def test_real_video_yields_every_image_with_increasing_stamps(tmp_path, name, count, rate, shape):
    if not (VIDEOS / name).is_file():
        pytest.skip(f"{VIDEOS / name} is not on this machine")
    path = tmp_path / f"a copy of {name}"  # the name contains spaces
    shutil.copy(VIDEOS / name, path)
    with open_video(str(path)) as video:
        frames = [(frame.stamp, frame.image.shape) for frame in video.frames()]
    stamps = np.array([stamp for stamp, _ in frames])
    assert len(frames) == count
    assert {size for _, size in frames} == {shape}
    assert (np.diff(stamps) > 0).all()
    assert stamps[-1] == pytest.approx((count - 1) / rate, abs=0.01)
