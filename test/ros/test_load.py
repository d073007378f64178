"""Pictures are never in the way of asks, nor asks in the way of pictures."""

import array
import threading
import time

import numpy as np
from harness import wait_until
from sensor_msgs.msg import Image

RATE_HZ = 30.0
SECONDS = 6.0
SAMPLE_FPS = 4.0


class Camera(threading.Thread):
    """Publishes 640 × 480 pictures at 30 Hz until it is stopped."""

    def __init__(self, client) -> None:
        super().__init__(daemon=True)
        self.client = client
        self.published = 0
        self.largest_gap_sec = 0.0
        self.ending = threading.Event()

    def run(self) -> None:
        noise = np.random.default_rng(3).integers(0, 255, (3, 640 * 480 * 3), np.uint8)
        pictures = [array.array("B", picture.tobytes()) for picture in noise]
        message = Image(height=480, width=640, encoding="rgb8", step=640 * 3)
        due = last = time.monotonic()
        while not self.ending.is_set():
            message.data = pictures[self.published // 15 % 3]
            message.header.stamp = self.client.node.get_clock().now().to_msg()
            now = time.monotonic()
            self.largest_gap_sec = max(self.largest_gap_sec, now - last)
            last = now
            self.client.publish(message)
            self.published += 1
            due += 1 / RATE_HZ
            time.sleep(max(0.0, due - time.monotonic()))


def test_thirty_pictures_a_second_while_asks_run_back_to_back(start):
    _, client = start(fake=False, memory__sample_fps=SAMPLE_FPS, memory__stream__size=40)
    client.wait_until_active()
    client.show_pictures(2)
    client.wait_for_stats(lambda stats: stats.model_state == "ready", 60.0)
    time.sleep(1.2)
    before = client.stats.images_received
    camera = Camera(client)
    camera.start()
    # when
    asked = []
    started = time.monotonic()
    while time.monotonic() - started < SECONDS:
        response = client.ask("What is there?", max_new_tokens=1000)
        assert response.success, response.error_msg
        asked.append(response)
    camera.ending.set()
    camera.join()
    # then: every picture arrived
    stats = client.wait_for_stats(lambda stats: stats.images_received - before >= camera.published, 5.0)
    assert stats.images_received - before == camera.published
    assert camera.published >= SECONDS * RATE_HZ * 0.5, "this machine is too slow to publish for this test"
    assert stats.images_dropped == 0
    # and those due were remembered on time, though the model was at work
    used = client.ask(max_new_tokens=1, last_sec=SECONDS - 0.5).frames_used
    gaps = np.diff([stamp_sec(frame.header.stamp) for frame in used])
    assert len(used) >= (SECONDS - 1) * SAMPLE_FPS / 2
    assert gaps.max() <= 2 / SAMPLE_FPS + 2 / RATE_HZ + camera.largest_gap_sec
    # and each ask saw what had just been published
    assert max(response.newest_frame_age_sec for response in asked[2:]) < 1 / SAMPLE_FPS + 0.6
    assert sum(response.metrics.total_latency for response in asked) > 0.5 * SECONDS


def test_pictures_are_taken_on_time_while_the_model_cannot_be_interrupted(start):
    _, client = start(memory__sample_fps=50.0)
    client.wait_until_active()
    client.show_pictures(2)
    future = client.start_ask("stubborn 2")
    client.wait_for_stats(lambda stats: stats.asks_running == 1)
    client.show_pictures(10, timeout_sec=1.5)
    assert client.state() == "active"
    assert client.reset().success
    assert not future.done()
    wait_until(future.done, 5.0, "the answer")
    # Its frames are those of the moment it was asked, forgotten meanwhile or not.
    assert future.result().success
    assert future.result().frames_used


def stamp_sec(stamp) -> float:
    return stamp.sec + stamp.nanosec * 1e-9
