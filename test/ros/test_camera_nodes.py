"""The camera nodes: as processes, on real topics and under real signals; and their reading thread with stand-ins."""

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
from delayed_vlm_ros.images.video import VideoFrame
from delayed_vlm_ros.ros.parameters import specifications
from delayed_vlm_ros.ros.process_group import NODE_MODULES

ROOT = Path(__file__).resolve().parents[2]
DOMAIN = 64
NAMESPACE = f"/cameras_{os.getpid()}"  # so that two runs of these tests on one machine do not hear each other


def start(node, *parameters):
    """Start a node as a process of its own; its output can be read line by line."""
    environment = {**os.environ, "ROS_DOMAIN_ID": str(DOMAIN), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    command = [sys.executable, "-m", NODE_MODULES[node], "--ros-args", "-r", f"__ns:={NAMESPACE}"]
    for value in parameters:
        command += ["-p", value]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_for(process, words):
    for line in process.stdout:
        if words in line:
            return line
    pytest.fail(f"the node ended without saying '{words}'")


@pytest.fixture
def running():
    """``start`` for nodes that are stopped at the test's end."""
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
    """A video of 2 s at 20 Hz; the brightness of its images counts 0, 6, 12, …"""
    path = tmp_path / "count.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 20.0, (64, 48))
    for index in range(40):
        writer.write(np.full((48, 64, 3), 6 * index, dtype=np.uint8))
    writer.release()
    return path


@pytest.fixture
def received(monkeypatch):
    """The messages on the image topic, collected in a thread."""
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
    """Wait until images follow one another as they should: a busy machine delays some, but not for good."""

    def found():
        between = np.diff(stamps_of(messages[-10:]))
        return len(between) == 9 and abs(np.median(between) - period_sec) < tolerance_sec

    wait_until(found, lambda: f"an image every {period_sec} s; the last ones came at {stamps_of(messages[-20:])}")


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("demo_camera", DemoCameraParameters),
        ("video_camera", VideoCameraParameters),
        ("bag_camera", BagCameraParameters),
    ],
)
def test_the_parameter_file_lists_every_parameter_with_its_default(name, parameters):
    text = (ROOT / "config" / f"{name}.yaml").read_text(encoding="utf-8")
    values = yaml.safe_load(text)["/**"]["ros__parameters"]
    assert values == {spec.name: spec.default for spec in specifications(parameters).values()}
    assert {key: type(value) for key, value in values.items()} == {
        spec.name: spec.kind for spec in specifications(parameters).values()
    }


def test_the_demo_camera_publishes_its_room(running, received):
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


def test_a_video_plays_at_its_true_speed_with_fewer_images(running, received, video):
    # given room for all images, should the listener get no time for a while
    depth = f"qos_overrides.{NAMESPACE}/image.publisher.depth:=1000"
    running("video_camera", f"video:={video}", "rate:=5", "loop:=true", depth)
    # then
    wait_for_period(received, 0.2, 0.05)
    wait_until(lambda: len(received) >= 16, "16 images")
    shown = [round(message.data[-1] / 6) for message in received]
    begin = shown.index(0, 1)  # the first round may have been missed in part
    assert shown[begin : begin + 5] == [0, 4, 8, 12, 16]
    assert (np.diff(stamps_of(received)) > 0).all()


def test_a_recording_is_played_whole_with_its_own_stamps(running, received, video):
    depth = f"qos_overrides.{NAMESPACE}/image.publisher.depth:=1000"
    running("bag_camera", f"bag:={video}", "rate:=4", "frame_id:=eye", depth)
    wait_until(lambda: len(received) == 40, lambda: f"40 images; {len(received)} have come")
    assert [round(message.data[-1] / 6) for message in received] == list(range(40))
    np.testing.assert_allclose(stamps_of(received), 1.0 + 0.05 * np.arange(40), atol=1e-3)
    assert {message.header.frame_id for message in received} == {"eye"}


def test_at_the_end_the_node_stays_and_says_so_once(running, received, video):
    node = running("video_camera", f"video:={video}")
    wait_for(node, "publishing the video file")
    wait_for(node, "has ended")
    ended = time.time()
    time.sleep(0.5)  # in which a second round would begin
    assert node.poll() is None
    node.send_signal(signal.SIGTERM)
    assert node.wait(timeout=PATIENCE_SEC) == 0
    assert "has ended" not in node.stdout.read()
    assert all(stamp < ended for stamp in stamps_of(received))


@pytest.mark.parametrize("times", [1, 2, 8])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", ["demo_camera", "video_camera", "bag_camera"])
def test_signals_end_the_node_in_order(running, video, name, number, times):
    source = {"video_camera": [f"video:={video}"], "bag_camera": [f"bag:={video}", "wait_for_subscriber:=false"]}
    node = running(name, *(source[name] + ["loop:=true"] if name in source else []))
    wait_for(node, "publishing the")
    # Far enough apart for a late second signal to meet the interpreter on its way out.
    code, seconds = end_process(node, number, times=times, pause_sec=0.05)
    assert code == 0
    assert seconds < 2.0
    assert "Traceback" not in node.stdout.read()


@pytest.mark.parametrize(
    ("name", "parameters", "words"),
    [
        ("video_camera", [], "parameter video is empty"),
        ("video_camera", ["video:=/no/such/file.mp4"], "cannot open video '/no/such/file.mp4'"),
        ("video_camera", ["video:=setup.py"], "cannot open video 'setup.py'"),
        ("video_camera", ["video:=987"], "cannot open camera device /dev/video987"),
        ("bag_camera", [], "parameter bag is empty"),
        ("bag_camera", ["bag:=/no/such/bag"], "there is no /no/such/bag"),
        ("bag_camera", ["bag:=setup.py"], "setup.py': not a video file"),
        ("bag_camera", ["bag:=docs", "rate:=0.0"], "parameter rate is 0.0; it must be from 0.01 to 100.0"),
        ("demo_camera", ["rate:=1000.0"], "it must be from 0.1 to 120.0 Hz"),
        ("demo_camera", ["width:=broad"], "parameter width is 'broad'"),
    ],
)
def test_what_cannot_work_is_said_in_a_sentence(running, name, parameters, words):
    node = running(name, *parameters)
    assert node.wait(timeout=PATIENCE_SEC) == 1
    said = node.stdout.read()
    assert words in said
    assert "Traceback" not in said


class FakeDevice:
    """An open camera: gives ``count`` images, then does ``after``."""

    is_device = True
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
    """Builds a VideoCamera in this process over stand-in devices; gives it and the list of what it publishes."""
    published = []

    class Recorder:
        def __init__(self, node, frame_id):
            pass

        def publish(self, image):
            published.append(int(image[0, 0, 0]))

    nodes = []

    def build(openings):
        steps = iter(openings)

        def opening(_video):
            step = next(steps)
            if isinstance(step, Exception):
                raise step
            return step

        monkeypatch.setattr(video_camera, "open_video", opening)
        monkeypatch.setattr(video_camera, "ImagePublisher", Recorder)
        monkeypatch.setattr(video_camera, "_RETRY_SEC", 0.05)
        rclpy.init(args=["--ros-args", "-p", "video:='9'"], domain_id=DOMAIN)
        nodes.append(VideoCamera())
        return nodes[-1], published

    yield build
    for node in nodes:
        node.close()
        node.destroy_node()
    rclpy.try_shutdown()


def gone():
    raise VideoSourceError("camera device /dev/video9 stopped delivering images")


def test_a_camera_that_went_away_is_opened_again(make_camera):
    forever = threading.Event()
    missing = VideoSourceError("there is no camera device /dev/video9")
    first, second = FakeDevice(3, gone), FakeDevice(2, forever.wait)
    _, published = make_camera([first, missing, missing, second])
    wait_until(lambda: len(published) == 5, "both devices' images")
    forever.set()
    assert published == [0, 1, 2, 0, 1]
    assert first.closed


def test_a_driver_that_does_not_return_does_not_hold_up_the_end(make_camera):
    forever = threading.Event()
    node, published = make_camera([FakeDevice(1, forever.wait)])
    wait_until(lambda: len(published) == 1, "an image")
    # when
    node.close()
    # then it has returned although the driver has not
    assert node._thread.is_alive()
    forever.set()
