"""The services ``~/mark`` and ``~/get_frames`` over DDS, with the embedded model."""

import array

import cv2
import numpy as np
import pytest
from builtin_interfaces.msg import Time
from delayed_vlm_ros.srv import GetFrames, Mark
from harness import nanoseconds

HEIGHT, WIDTH = 112, 140  # the grid of the embedded model: images of this size are not resized


@pytest.fixture(scope="module")
def running(start_for_module):
    parameters = {"memory.star.size": 8, "memory.stream.size": 6, "memory.sample_fps": 20.0, "memory.marks.max": 4}
    _, client = start_for_module(fake=False, **parameters)
    client.wait_until_ready()
    client.connect_images()
    return client


@pytest.fixture
def client(running):
    running.reset()
    return running


def mark(client, **fields):
    return client.call(Mark, "scene_memory/mark", Mark.Request(**fields))


def get_frames(client, **fields):
    return client.call(GetFrames, "scene_memory/get_frames", GetFrames.Request(**fields))


def decoded(message):
    return cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def show_noise(client, count):
    """Publish images of noise; return their pixels by the nanoseconds of their stamps."""
    shown = {}
    for seed in range(count):
        pixels = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        message = client.image(height=HEIGHT, width=WIDTH, data=array.array("B", pixels.tobytes()))
        client.publish(message)
        shown[nanoseconds(message.header.stamp)] = pixels
    client.wait_for_stats(lambda stats: stats.total_frames_added == count, since_ns=0)
    return shown


def test_marked_pair_is_kept_and_used_in_answers(client):
    # given
    client.show_images(2)
    response = mark(client, label="keys on the table")
    assert response.success, response.error_msg
    marked = response.key_frame
    assert (marked.marked, marked.label, marked.in_star, marked.camera) == (True, "keys on the table", True, "camera")

    # when
    client.show_images(60)

    # then
    used = {frame.id: frame for frame in client.ask(max_new_tokens=1).frames_used}
    assert marked.id in used
    assert (used[marked.id].marked, used[marked.id].label) == (True, "keys on the table")
    assert (used[marked.id].in_star, used[marked.id].in_stream) == (True, False)
    assert used[marked.id].header == marked.header
    assert not any(frame.marked for pair_id, frame in used.items() if pair_id != marked.id)


def test_pair_is_marked_by_stamp_and_unmarked_by_id(client):
    # given
    client.show_images(6)
    kept = get_frames(client).key_frames
    # when
    by_stamp = mark(client, stamp=kept[1].end_stamp)
    newest = mark(client)
    # then
    assert (by_stamp.key_frame.id, newest.key_frame.id) == (kept[1].id, kept[-1].id)
    full = mark(client, id=kept[0].id)
    assert not full.success
    assert f"{kept[1].id}, {kept[-1].id}" in full.error_msg
    assert "memory.marks.max" in full.error_msg
    assert full.key_frame.id == 0
    # and a removed mark makes room for another
    off = mark(client, id=kept[1].id, unmark=True)
    assert (off.success, off.key_frame.marked) == (True, False)
    assert mark(client, id=kept[0].id).success


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"id": 999_999}, "pair 999999"),
        ({"stamp": Time(sec=5)}, "5.000 s"),
        ({"stamp": Time(sec=-5)}, "'stamp'"),
        ({"camera": "rear"}, "'rear'"),
        ({"label": "x" * 65}, "65"),
        ({"unmark": True}, "not marked"),
    ],
)
def test_invalid_mark_is_rejected_with_its_reason(client, fields, named):
    client.show_images(2)
    response = mark(client, **fields)
    assert not response.success
    assert named in response.error_msg
    assert not any(frame.marked for frame in get_frames(client).key_frames)


def test_images_of_an_answer_equal_the_published_images(client):
    # given
    shown = show_noise(client, 7)
    used = client.ask(max_new_tokens=1).frames_used
    # when
    response = get_frames(client, ids=[frame.id for frame in used])
    # then
    assert response.success, response.error_msg
    assert [frame.id for frame in response.key_frames] == [frame.id for frame in used]
    assert response.warnings == []
    images = []
    for frame, first, second in zip(response.key_frames, response.first_images, response.second_images, strict=True):
        assert (first.format, first.header) == ("png", frame.header)
        images.append(first)
        if frame.end_stamp == frame.header.stamp:
            assert (second.format, len(second.data)) == ("", 0)
        else:
            assert second.header.stamp == frame.end_stamp
            images.append(second)
    assert [nanoseconds(image.header.stamp) for image in images] == list(shown)
    for image, pixels in zip(images, shown.values(), strict=True):
        np.testing.assert_array_equal(decoded(image), pixels)


def test_ids_that_are_not_kept_are_listed_in_missing(client):
    # given
    client.show_images(2)
    first = get_frames(client).key_frames[-1].id
    client.reset()
    client.show_images(4)
    kept = get_frames(client).key_frames
    # when
    response = get_frames(client, ids=[kept[1].id, first, 999_999, kept[1].id], format="jpeg")
    # then
    assert response.success
    assert [frame.id for frame in response.key_frames] == [kept[1].id]
    assert list(response.missing) == [first, 999_999]
    assert response.warnings[0].startswith("2 of the ids")
    assert response.first_images[0].format == "jpeg"
    assert decoded(response.first_images[0]).std() < 3  # grey, as published


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"format": "gif"}, "'gif'"),
        ({"camera": "rear"}, "'rear'"),
        ({"ids": list(range(4097))}, "4097"),
    ],
)
def test_invalid_request_for_images_is_rejected(client, fields, named):
    response = get_frames(client, **fields)
    assert not response.success
    assert named in response.error_msg


def test_unconfigured_node_rejects_both_services(start):
    _, client = start(autostart="false")
    for response in (mark(client), get_frames(client)):
        assert not response.success
        assert "not configured" in response.error_msg
