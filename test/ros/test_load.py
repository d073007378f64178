"""Images, services and questions under load: none waits for another, no image is lost.

No test depends on time: a question is held as long as needed, and lost images show in their number and stamps.
"""

import array
import threading
import time

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from delayed_vlm_ros.srv import GetFrames, Mark
from harness import FAKE_SCENE_MEMORY, HELD_SCENE_MEMORY, nanoseconds
from sensor_msgs.msg import Image
from waiting import wait_until

RATE_HZ = 30
IMAGES = 180
SAMPLE_FPS = 5  # every sixth image is due


@pytest.fixture(params=["fake", "real"])
def held(request, start, tmp_path):
    """A node inside its model. Return the client, the future of the question, and a function that releases it."""
    release = tmp_path / "released"
    command = {"fake": FAKE_SCENE_MEMORY, "real": HELD_SCENE_MEMORY}[request.param]
    _, client = start(command=command, memory__sample_fps=20.0, environment={"HELD_ANSWERS": str(tmp_path)})
    client.wait_until_ready()
    client.show_images(2)
    future = client.start_ask(f"hold {release}")
    client.wait_for_node_stats(lambda stats: stats.questions_running == 1)
    if request.param == "real":
        wait_until((tmp_path / "held").exists, "the first token")
    return client, future, release.touch


def test_images_services_and_reports_do_not_wait_for_a_question(held):
    client, future, release = held
    before = client.wait_for_stats()
    # when each of these returns after its effect
    client.show_images(10)
    sampled = client.wait_for_stats()
    state = client.state()
    marked = client.call(Mark, "scene_memory/mark", Mark.Request(label="meanwhile"))
    images = client.call(GetFrames, "scene_memory/get_frames", GetFrames.Request())
    reset = client.reset()
    # then all happened during the question
    assert not future.done()
    assert client.wait_for_node_stats().questions_running == 1
    assert sampled.images_sampled == before.images_sampled + 10
    assert state == "active"
    assert marked.success
    assert images.key_frames[-1] == marked.key_frame
    assert reset.success
    # and the answer is based on the frames of its start, which the reset has dropped meanwhile
    release()
    wait_until(future.done, "the answer")
    assert future.result().success, future.result().error_msg
    assert future.result().frames_used
    assert nanoseconds(future.result().snapshot_stamp) < nanoseconds(before.header.stamp)


class Camera(threading.Thread):
    """Publishes 640 × 480 images stamped at 30 Hz, at 30 Hz if the machine is fast enough."""

    def __init__(self, client) -> None:
        super().__init__(daemon=True)
        self.client = client
        self.first_ns = client.now_ns() + 10**9  # after all earlier images

    def stamp_ns(self, number: int) -> int:
        return self.first_ns + number * 10**9 // RATE_HZ

    def run(self) -> None:
        noise = np.random.default_rng(3).integers(0, 255, (3, 640 * 480 * 3), np.uint8)
        images = [array.array("B", image.tobytes()) for image in noise]
        message = Image(height=480, width=640, encoding="rgb8", step=640 * 3)
        for number in range(IMAGES):
            message.data = images[number // 15 % 3]
            seconds, nanosec = divmod(self.stamp_ns(number), 10**9)
            message.header.stamp = Time(sec=seconds, nanosec=nanosec)
            self.client.publish(message)
            time.sleep(1 / RATE_HZ)


def test_thirty_images_a_second_during_consecutive_questions(start):
    # given queues for all images: a node without CPU time for half a second would otherwise rightly lose some
    depth = {"qos_overrides./load/image.subscription.depth": IMAGES + 20}
    _, client = start(fake=False, namespace="/load", memory__sample_fps=SAMPLE_FPS, memory__stream__size=100, **depth)
    client.publish(client.image(), depth=IMAGES + 20)
    client.wait_until_ready()
    client.connect_images()
    client.reset()
    before = client.wait_for_stats()
    camera = Camera(client)
    # when
    camera.start()
    responses = []
    while camera.is_alive():
        response = client.ask("What is there?", max_new_tokens=1000)
        assert response.success or not responses, response.error_msg  # the first may precede the first image
        responses += [response] if response.success else []
    # then every image arrives
    stats = client.wait_for_stats(lambda stats: stats.images_received - before.images_received >= IMAGES)
    assert stats.images_received - before.images_received == IMAGES
    assert stats.images_dropped == 0
    # and exactly the due images are kept, in order
    kept = client.ask(max_new_tokens=1).frames_used
    due = [camera.stamp_ns(number) for number in range(0, IMAGES, RATE_HZ // SAMPLE_FPS)]
    assert [nanoseconds(stamp) for frame in kept for stamp in (frame.header.stamp, frame.end_stamp)] == due
    # and questions were answered meanwhile, each from a memory not older than the one before
    newest = [nanoseconds(response.snapshot_stamp) for response in responses]
    assert newest
    assert newest == sorted(newest)
