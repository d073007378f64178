"""Images of kept pairs, without a ROS graph."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from delayed_vlm_ros.srv import GetFrames

from delayed_vlm_ros.memory import SmartFrameManager
from delayed_vlm_ros.ros.input.frame_headers import FrameHeader
from delayed_vlm_ros.ros.services import get_frames
from delayed_vlm_ros.ros.services.get_frames import handle_get_frames


@pytest.fixture
def camera():
    """A camera with five kept pairs; the second frame of the last pair has not arrived."""
    memory = SmartFrameManager()
    rng = np.random.default_rng(0)
    for number in range(9):
        memory.add(rng.integers(0, 256, (28, 28, 3), np.uint8), 0.5 * number)
    return SimpleNamespace(
        name="front", frame_manager=memory, header_of=lambda frame: FrameHeader(round(frame.stamp * 10**9), "lens")
    )


def get(camera, **fields):
    response = GetFrames.Response()
    handle_get_frames(response, GetFrames.Request(**fields), [camera])
    return response


def test_request_without_ids_returns_all_pairs_in_time_order(camera):
    # when
    response = get(camera)

    # then
    assert [frame.id for frame in response.key_frames] == [1, 2, 3, 4, 5]
    assert [len(image.data) > 0 for image in response.second_images] == [True] * 4 + [False]
    assert (list(response.missing), list(response.left_out), response.warnings) == ([], [], [])


def test_png_images_are_lossless(camera):
    for kept, first, second in zip(
        camera.frame_manager.snapshot(), get(camera).first_images, get(camera).second_images, strict=True
    ):
        for message, pixels in zip((first, second)[: kept.frame_count], kept.frames, strict=False):
            decoded = cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_COLOR)
            np.testing.assert_array_equal(decoded[..., ::-1], pixels)


def test_pairs_beyond_the_size_limit_are_listed_in_left_out(camera, monkeypatch):
    # given room for two pairs of noise
    bytes_of_a_pair = 2 * len(get(camera).first_images[0].data)
    monkeypatch.setattr(get_frames, "MAX_RESPONSE_BYTES", int(2.5 * bytes_of_a_pair))

    # when
    response = get(camera, ids=[5, 4, 2, 1, 77])

    # then
    assert [frame.id for frame in response.key_frames] == [1, 2]
    assert len(response.first_images) == len(response.second_images) == 2
    assert (list(response.left_out), list(response.missing)) == ([4, 5], [77])
    assert response.warnings[0].startswith("1 of the ids")
    assert response.warnings[1].startswith("2 pairs exceed")
    assert [frame.id for frame in get(camera, ids=response.left_out).key_frames] == [4, 5]


def test_one_pair_is_returned_regardless_of_its_size(camera, monkeypatch):
    monkeypatch.setattr(get_frames, "MAX_RESPONSE_BYTES", 10)
    response = get(camera, ids=[3, 4])
    assert [frame.id for frame in response.key_frames] == [3]
    assert list(response.left_out) == [4]


def test_empty_memory_returns_no_images_without_an_error(camera):
    camera.frame_manager.reset()
    response = get(camera)
    assert (list(response.key_frames), response.warnings) == ([], [])
