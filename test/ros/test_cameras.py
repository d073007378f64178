"""Two cameras and one model: questions about each and about both while a camera dies and returns, over DDS."""

import signal

import pytest
from delayed_vlm_ros.srv import AskScene
from harness import ROOM_CAMERA, NodeProcess
from waiting import wait_until

LEFT = "What is on the left?"
RIGHT = "What is on the right?"


def start_camera(namespace, camera, **parameters):
    return NodeProcess(namespace, ROOM_CAMERA, parameters, {"image": f"{camera}/image"}, {})


@pytest.fixture
def front_camera():
    return {"colour": "red", "shape": "box", "home": 0.12, "width": 320, "height": 240}


@pytest.fixture
def rear_camera():
    return {"colour": "blue", "shape": "ball", "home": 0.88, "width": 213, "height": 120}


def wait_for_frames(client, camera, frames):
    client.wait_for_stats(lambda stats: stats.camera == camera and stats.total_frames_added >= frames)


def test_each_camera_has_its_memory_and_answers(start, front_camera, rear_camera):
    # given a node with two cameras, one of which publishes
    _, client = start(fake=False, cameras="[front, rear]", diagnostics__stale_after_sec=1.0)
    client.wait_until_active()
    front = start_camera(client.namespace, "front", **front_camera)
    rear = None
    try:
        wait_for_frames(client, "front", 8)

        # then the missing camera is named
        assert client.ask(LEFT).answer == "a red box"
        response = client.ask(LEFT, camera="rear")
        assert response.error_code == AskScene.Response.NO_FRAMES
        assert "rear" in response.error_msg
        assert f"{client.namespace}/rear/image" in response.error_msg
        response = client.ask(LEFT, camera="*")
        assert response.answer == "front: a red box"
        assert any(warning.startswith("camera rear is not in") for warning in response.metrics.warnings)

        # when it starts, with images of another size
        rear = start_camera(client.namespace, "rear", **rear_camera)
        wait_for_frames(client, "rear", 8)

        # then each camera has its own answer
        assert client.ask(RIGHT, camera="front").answer == "nothing"
        response = client.ask(RIGHT, camera="rear")
        assert response.answer == "a blue ball"
        assert {frame.camera for frame in response.frames_used} == {"rear"}

        # and one answer covers both
        response = client.ask(RIGHT, camera="*")
        assert response.answer == "front: nothing\nrear: a blue ball"
        assert not any("is not in the answer" in warning for warning in response.metrics.warnings)
        assert {frame.camera for frame in response.frames_used} == {"front", "rear"}
        ids = [frame.id for frame in response.frames_used]
        assert len(set(ids)) == len(ids), "an id means one pair of one camera"

        # when one dies
        rear.process.send_signal(signal.SIGKILL)
        client.wait_for_status("camera rear", lambda status: status.level == b"\x03")

        # then its frames are kept, their age is reported and the other camera is not affected
        response = client.ask(RIGHT, camera="*")
        assert response.answer == "front: nothing\nrear: a blue ball"
        assert response.newest_frame_age_sec > 1.0
        client.wait_for_status("camera front", lambda status: status.level == b"\x00")

        # when it returns and shows another object
        rear.close()
        rear = start_camera(
            client.namespace, "rear", **{**rear_camera, "colour": "green", "shape": "cone", "home": 0.12}
        )
        client.wait_for_status("camera rear", lambda status: status.level == b"\x00")
        wait_until(lambda: client.ask(LEFT, camera="rear").answer == "a green cone", "an answer about the new object")
        assert client.ask("Was there a blue ball earlier?", camera="rear").answer == "yes"
        assert client.ask(LEFT, camera="*").answer == "front: a red box\nrear: a green cone"
    finally:
        for camera in (front, rear):
            if camera is not None:
                camera.close()
