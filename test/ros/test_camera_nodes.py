"""Camera nodes: as processes on real topics and under real signals, and in this process with fake devices."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

import rclpy
import yaml
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from waiting import PATIENCE_SEC, end_process, wait_until

from delayed_vlm_ros.cameras import video_camera
from delayed_vlm_ros.cameras.bag_camera import BagCameraParameters
from delayed_vlm_ros.cameras.demo_camera import DemoCameraParameters
from delayed_vlm_ros.cameras.video_camera import VideoCamera, VideoCameraParameters
from delayed_vlm_ros.errors import VideoSourceError
from delayed_vlm_ros.images import video_player
from delayed_vlm_ros.images.video import VideoFrame
from delayed_vlm_ros.ros.parameters import specifications
from delayed_vlm_ros.ros.process_group import NODE_MODULES

ROOT = Path(__file__).resolve().parents[2]
DOMAIN = 64
NAMESPACE = f"/cameras_{os.getpid()}"  # isolates parallel runs of these tests on one machine


def start(node, *parameters):
    """Start a node in its own process; its output can be read line by line."""
    environment = {**os.environ, "ROS_DOMAIN_ID": str(DOMAIN), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    command = [sys.executable, "-m", NODE_MODULES[node], "--ros-args", "-r", f"__ns:={NAMESPACE}"]
    for value in parameters:
        command += ["-p", value]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_for_output(process, text):
    for line in process.stdout:
        if text in line:
            return line
    pytest.fail(f"the node ended without the output '{text}'")


@pytest.fixture
def running():
    """``start`` for nodes that are killed at the end of the test."""
    processes = []

    def start_and_keep(*arguments):
        processes.append(start(*arguments))
        return processes[-1]

    yield start_and_keep
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def video(tmp_path):
    """A video of 2 s at 20 Hz; the brightness of its images is 0, 6, 12, …"""
    path = tmp_path / "count.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 20.0, (64, 48))
    for index in range(40):
        writer.write(np.full((48, 64, 3), 6 * index, dtype=np.uint8))
    writer.release()
    return path


@pytest.fixture
def received(monkeypatch):
    """Messages on the image topic, collected in a thread."""
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=DOMAIN)
    node = rclpy.create_node("listener", namespace=NAMESPACE, context=context)
    messages = []
    node.create_subscription(Image, "image", messages.append, QoSProfile(depth=1000))
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    stopping = threading.Event()

    def spin():
        while not stopping.is_set():
            executor.spin_once(timeout_sec=0.05)

    thread = threading.Thread(target=spin)
    thread.start()
    yield messages
    stopping.set()
    thread.join()
    executor.shutdown()
    node.destroy_node()
    rclpy.shutdown(context=context)


def stamps_of(messages):
    return [message.header.stamp.sec + message.header.stamp.nanosec * 1e-9 for message in messages]


def wait_for_period(messages, period_sec, tolerance_sec):
    """Wait until images arrive with the expected period; a busy machine delays some of them."""

    def found():
        between = np.diff(stamps_of(messages[-10:]))
        return len(between) == 9 and abs(np.median(between) - period_sec) < tolerance_sec

    wait_until(found, lambda: f"an image every {period_sec} s; latest stamps: {stamps_of(messages[-20:])}")


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("demo_camera", DemoCameraParameters),
        ("video_camera", VideoCameraParameters),
        ("bag_camera", BagCameraParameters),
    ],
)
def test_parameter_file_lists_every_parameter_with_its_default(name, parameters):
    text = (ROOT / "config" / f"{name}.yaml").read_text(encoding="utf-8")
    values = yaml.safe_load(text)["/**"]["ros__parameters"]
    assert values == {spec.name: spec.default for spec in specifications(parameters).values()}
    assert {key: type(value) for key, value in values.items()} == {
        spec.name: spec.kind for spec in specifications(parameters).values()
    }


def test_demo_camera_publishes_its_room(running, received):
    began = time.time()
    running("demo_camera", "rate:=20", "width:=320", "height:=240", "frame_id:=eye", "seed:=3")
    wait_for_period(received, 0.05, 0.02)
    stamps = stamps_of(received)
    assert (np.diff(stamps) > 0).all()
    assert began <= stamps[0]
    assert stamps[-1] <= time.time()
    message = received[-1]
    assert (message.width, message.height, message.step) == (320, 240, 960)
    assert (message.encoding, message.header.frame_id, message.is_bigendian) == ("rgb8", "eye", 0)
    image = np.asarray(message.data, dtype=np.uint8).reshape(240, 320, 3)
    assert image.std() > 20


def test_video_camera_plays_at_real_speed_with_reduced_rate(running, received, video):
    # given a queue for all images, in case the listener gets no processor time for a while
    depth = f"qos_overrides.{NAMESPACE}/image.publisher.depth:=1000"
    running("video_camera", f"video:={video}", "rate:=5", "loop:=true", depth)
    # then
    wait_for_period(received, 0.2, 0.05)
    wait_until(lambda: len(received) >= 16, "16 images")
    indices = [round(message.data[-1] / 6) for message in received]
    begin = indices.index(0, 1)  # the first round may be incomplete
    assert indices[begin : begin + 5] == [0, 4, 8, 12, 16]
    assert (np.diff(stamps_of(received)) > 0).all()


def test_bag_camera_plays_all_images_with_their_own_stamps(running, received, video):
    depth = f"qos_overrides.{NAMESPACE}/image.publisher.depth:=1000"
    running("bag_camera", f"bag:={video}", "rate:=4", "frame_id:=eye", depth)
    wait_until(lambda: len(received) == 40, lambda: f"40 images; {len(received)} received")
    assert [round(message.data[-1] / 6) for message in received] == list(range(40))
    np.testing.assert_allclose(stamps_of(received), 1.0 + 0.05 * np.arange(40), atol=1e-3)
    assert {message.header.frame_id for message in received} == {"eye"}


def test_video_camera_stays_alive_and_logs_the_end_once(running, received, video):
    node = running("video_camera", f"video:={video}")
    wait_for_output(node, "publishing the video file")
    wait_for_output(node, "has ended")
    ended = time.time()
    time.sleep(0.5)  # a second round would begin
    assert node.poll() is None
    node.send_signal(signal.SIGTERM)
    assert node.wait(timeout=PATIENCE_SEC) == 0
    assert "has ended" not in node.stdout.read()
    assert all(stamp < ended for stamp in stamps_of(received))


@pytest.mark.parametrize("times", [1, 2, 8])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", ["demo_camera", "video_camera", "bag_camera"])
def test_signals_end_the_node_cleanly(running, video, name, number, times):
    source = {"video_camera": [f"video:={video}"], "bag_camera": [f"bag:={video}", "wait_for_subscriber:=false"]}
    node = running(name, *(source[name] + ["loop:=true"] if name in source else []))
    wait_for_output(node, "publishing the")
    # The pause lets a late signal arrive during the interpreter's finalisation.
    code, seconds = end_process(node, number, times=times, pause_sec=0.05)
    assert code == 0
    assert seconds < 2.0
    assert "Traceback" not in node.stdout.read()


@pytest.mark.parametrize(
    ("name", "parameters", "named"),
    [
        ("video_camera", [], "'video'"),
        ("video_camera", ["video:=/no/such/file.mp4"], "cannot open video '/no/such/file.mp4'"),
        ("video_camera", ["video:=setup.py"], "cannot open video 'setup.py'"),
        ("video_camera", ["video:=987"], "cannot open camera device /dev/video987"),
        ("bag_camera", [], "'bag'"),
        ("bag_camera", ["bag:=/no/such/bag"], "/no/such/bag"),
        ("bag_camera", ["bag:=setup.py"], "setup.py': not a video file"),
        ("bag_camera", ["bag:=docs", "rate:=0.0"], "rate"),
        ("demo_camera", ["rate:=1000.0"], "120.0 Hz"),
        ("demo_camera", ["width:=broad"], "'broad'"),
    ],
)
def test_invalid_parameter_is_reported_without_a_traceback(running, name, parameters, named):
    node = running(name, *parameters)
    assert node.wait(timeout=PATIENCE_SEC) == 1
    output = node.stdout.read()
    assert "cannot start" in output
    assert named in output
    assert "Traceback" not in output


class FakeDevice:
    """An open camera that yields ``count`` images, then calls ``after``."""

    is_device = True
    kind = "camera device"
    name = "/dev/video9"
    frames_per_second = None
    duration_sec = None

    def __init__(self, count, after):
        self.count, self.after = count, after
        self.closed = False

    def frames(self, rate=None):
        for index in range(self.count):
            yield VideoFrame(np.full((2, 2, 3), index, dtype=np.uint8), float(index))
        self.after()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.closed = True


@pytest.fixture
def make_camera(monkeypatch):
    """Make a VideoCamera in this process with fake devices; return it and the list of published images."""
    published = []

    class Recorder:
        def __init__(self, node, frame_id):
            pass

        def publish(self, image):
            published.append(int(image[0, 0, 0]))

    nodes = []

    def build(openings):
        results = iter(openings)

        def open_video(_video):
            result = next(results)
            if isinstance(result, Exception):
                raise result
            return result

        monkeypatch.setattr(video_player, "open_video", open_video)
        monkeypatch.setattr(video_camera, "ImagePublisher", Recorder)
        monkeypatch.setattr(video_player, "RETRY_SEC", 0.05)
        rclpy.init(args=["--ros-args", "-p", "video:='9'"], domain_id=DOMAIN)
        nodes.append(VideoCamera())
        return nodes[-1], published

    yield build
    for node in nodes:
        node.close()
        node.destroy_node()
    rclpy.try_shutdown()


def unplug():
    raise VideoSourceError("camera device /dev/video9 stopped delivering images")


def test_unplugged_camera_is_opened_again(make_camera):
    forever = threading.Event()
    missing = VideoSourceError("there is no camera device /dev/video9")
    first, second = FakeDevice(3, unplug), FakeDevice(2, forever.wait)
    _, published = make_camera([first, missing, missing, second])
    wait_until(lambda: len(published) == 5, "the images of both devices")
    forever.set()
    assert published == [0, 1, 2, 0, 1]
    assert first.closed


def test_close_returns_while_the_driver_blocks(make_camera):
    release = threading.Event()
    node, published = make_camera([FakeDevice(1, release.wait)])
    wait_until(lambda: len(published) == 1, "an image")
    # when
    node.close()
    # then the driver still blocks the reading thread
    assert not node._player.close(timeout_sec=0.0)
    release.set()
