"""Selection of the camera in ``~/mark`` and ``~/get_frames``; test/ros tests the services over DDS."""

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from delayed_vlm_ros.srv import GetFrames, Mark

from delayed_vlm_ros.memory import PairIds, SmartFrameManager
from delayed_vlm_ros.ros.input.frame_headers import FrameHeader
from delayed_vlm_ros.ros.services.memory_services import MemoryServices


class Node:
    """Records the handlers of services by name."""

    def __init__(self):
        self.handlers = {}

    def create_service(self, _service_type, name, handler, **_details):
        self.handlers[name] = handler

    def get_logger(self):
        return SimpleNamespace(info=lambda _: None)


@pytest.fixture
def memories():
    """Memories of two cameras with ids from one source: front has the odd ids."""
    ids = PairIds()
    found = {name: SmartFrameManager(pair_ids=ids) for name in ("front", "rear")}
    for number in range(3):
        for shade, memory in enumerate(found.values()):
            for half in (0.0, 0.5):
                memory.add(np.full((28, 28, 3), number * 40 + shade, np.uint8), number + half)
    return found


@pytest.fixture
def call(memories):
    """Return a function that calls a service and returns its response."""
    cameras = {
        name: SimpleNamespace(
            name=name,
            topic=f"/{name}/image",
            frame_manager=memory,
            header_of=lambda frame: FrameHeader(round(frame.stamp * 10**9), "lens"),
        )
        for name, memory in memories.items()
    }
    node = Node()
    MemoryServices(node, lambda: cameras)

    def run(service_type, name, **fields):
        return node.handlers[name](service_type.Request(**fields), service_type.Response())

    return run


def frames_of(response):
    return [(frame.camera, frame.id) for frame in response.key_frames]


def test_ids_select_the_images_of_any_camera(call):
    response = call(GetFrames, "~/get_frames", ids=[4, 1, 6, 77])
    assert frames_of(response) == [("front", 1), ("rear", 4), ("rear", 6)]
    assert len(response.first_images) == len(response.second_images) == 3
    assert list(response.missing) == [77]
    assert response.warnings[0].startswith("1 of the ids")


def test_without_ids_all_pairs_of_the_first_or_of_all_cameras_are_returned(call):
    assert frames_of(call(GetFrames, "~/get_frames")) == [("front", 1), ("front", 3), ("front", 5)]
    assert len(frames_of(call(GetFrames, "~/get_frames", camera="*"))) == 6


def test_camera_name_excludes_pairs_of_other_cameras(call):
    response = call(GetFrames, "~/get_frames", ids=[1, 2], camera="rear")
    assert frames_of(response) == [("rear", 2)]
    assert list(response.missing) == [1]
    assert "pair 1 is not kept" in call(Mark, "~/mark", id=1, camera="rear").error_msg


def test_id_alone_selects_the_pair_to_mark(call, memories):
    # when
    response = call(Mark, "~/mark", id=4, label="door")
    # then
    assert response.success, response.error_msg
    assert (response.key_frame.camera, response.key_frame.id, response.key_frame.label) == ("rear", 4, "door")
    assert [kept.id for kept in memories["rear"].snapshot() if kept.marked] == [4]
    assert not any(kept.marked for kept in memories["front"].snapshot())
    assert call(Mark, "~/mark", id=4, unmark=True).success
    assert "pair 77 is not kept" in call(Mark, "~/mark", id=77).error_msg


def test_mark_without_id_is_for_the_first_camera(call):
    response = call(Mark, "~/mark")
    assert (response.key_frame.camera, response.key_frame.id) == ("front", 5)
