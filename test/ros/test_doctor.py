"""``delayed-vlm doctor`` against a running node over DDS."""

import json
import os
import subprocess
import sys
import zipfile

import pytest
from harness import ROOT, Client
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from waiting import PATIENCE_SEC, wait_until

from delayed_vlm_ros.doctor import self_test
from delayed_vlm_ros.doctor.running import run_child

SECRET = "planted-0123456789"
NAMESPACE = "/doctor"
FRONT = f"{NAMESPACE}/front/image"


def run_doctor(*arguments, **variables):
    return subprocess.run(
        [sys.executable, ROOT / "scripts" / "delayed-vlm", "doctor", "--timeout", str(PATIENCE_SEC), *arguments],
        cwd="/",
        # The doctor checks the default transports; the tests' own process uses UDP only.
        env={key: value for key, value in {**os.environ, **variables}.items() if key != "FASTDDS_BUILTIN_TRANSPORTS"},
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE_SEC,
        check=False,
    )


@pytest.fixture
def publish(ros):
    """Return a function that publishes small images on a topic ten times a second."""
    client = Client("/cameras")

    def start_one(topic, kind=Image, reliability=ReliabilityPolicy.RELIABLE):
        publisher = client.node.create_publisher(kind, topic, QoSProfile(depth=5, reliability=reliability))
        message = client.image() if kind is Image else kind()

        def send():
            message.header.stamp = client.node.get_clock().now().to_msg()
            publisher.publish(message)

        client.node.create_timer(0.1, send)

    yield start_one
    client.close()


def test_cameras_that_cannot_be_received_and_a_missing_clock_are_errors(start, publish, tmp_path):
    # given a best-effort camera for a reliable subscription, one of another type, one without a remapping
    _, client = start(
        namespace=NAMESPACE,
        cameras="[front, rear, top]",
        use_sim_time="true",
        persistence__folder=str(tmp_path),
        **{f"qos_overrides.{FRONT}.subscription.reliability": "reliable"},
    )
    wait_until(lambda: client.state() == "active", "the node to be active")
    publish(FRONT, reliability=ReliabilityPolicy.BEST_EFFORT)
    publish(f"{NAMESPACE}/rear/image", CompressedImage)
    publish("/ceiling/color")
    # when
    bundle = tmp_path / "case.zip"
    variables = {"DELAYED_VLM_WEB_TOKEN": SECRET, "HF_TOKEN": SECRET, "CYCLONEDDS_URI": f"http://a:{SECRET}@b/c"}
    done = run_doctor("--namespace", NAMESPACE, "--json", "--bundle", str(bundle), **variables)
    # then
    assert done.returncode == 1, done.stderr
    found = {one["subject"]: one for one in json.loads(done.stdout)["findings"]}
    front, rear, top, clock = (found[name] for name in ("camera front", "camera rear", "camera top", "ros clock"))
    assert [one["level"] for one in (front, rear, top, clock)] == ["ERROR"] * 4
    assert f"qos_overrides.{FRONT}.subscription.reliability" in front["remedy"]
    assert "sensor_msgs/msg/CompressedImage" in rear["finding"]
    assert f"nobody publishes {NAMESPACE}/top/image" in top["finding"]
    assert "/ceiling/color" in top["remedy"]
    assert "nobody publishes /clock" in clock["finding"]
    assert found["node"]["finding"].endswith("is active")
    assert found["diagnostics of camera front"]["level"] in ("WARN", "ERROR")
    assert str(tmp_path) in found["key-frame files"]["finding"]
    assert found["message exchange"]["level"] in ("OK", "WARN")  # late on a busy machine
    # and
    with zipfile.ZipFile(bundle) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    assert not [name for name, data in contents.items() if SECRET.encode() in data]
    assert not [name for name in contents if name.startswith("images/")]
    assert json.loads(contents["parameters.json"])[f"{NAMESPACE}/scene_memory"]["cameras"] == ["front", "rear", "top"]
    assert b'"images received"' in contents["diagnostics.json"]
    assert json.loads(contents["statistics.json"])
    assert any(name.startswith("log/") for name in contents)


def test_working_camera_is_ok_and_its_images_are_in_the_bundle_on_request(start, publish, tmp_path):
    # given
    _, client = start(memory__sample_fps=50.0)
    topic = f"{client.namespace}/image"
    publish(topic)
    client.wait_for_stats(lambda stats: stats.unique_frames >= 2)
    bundle = tmp_path / "case.zip"
    # when
    done = run_doctor("--namespace", client.namespace, "--bundle", str(bundle), "--with-images")
    # then
    lines = done.stdout.splitlines()
    (camera,) = [line for line in lines if line.startswith("OK     camera camera: ")]
    assert f"{topic} (Image, reliable, " in camera
    assert [line for line in lines if line.startswith("OK     stamps of camera: ")]
    with zipfile.ZipFile(bundle) as archive:
        images = [archive.read(name) for name in archive.namelist() if name.startswith("images/")]
    assert images
    assert all(image.startswith(b"\xff\xd8") for image in images)


def test_large_images_are_exchanged_between_two_processes(ros):
    answer = self_test.exchange(PATIENCE_SEC)
    assert answer.error == ""
    assert answer.value["matched"]
    assert 0 < answer.value["reliable_sec"] < PATIENCE_SEC
    assert answer.value["bytes"] > 5_000_000


def test_process_without_a_partner_is_not_matched(ros):
    answer = run_child("self_test:send", "/_delayed_vlm_doctor_alone", timeout_sec=PATIENCE_SEC)
    assert answer.value["matched"] is False


def test_invalid_namespace_is_an_error_with_the_remedy(ros):
    answer = run_child("observe:observe", "/robot one", PATIENCE_SEC, timeout_sec=PATIENCE_SEC)
    assert "'namespace' must be a ROS namespace such as /robot1" in answer.error
