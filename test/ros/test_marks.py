"""Marking moments and fetching their images, with the model that comes with the package, over DDS."""

import array

import cv2
import numpy as np
import pytest
from builtin_interfaces.msg import Time
from delayed_vlm_ros.srv import GetFrames, Mark
from harness import nanoseconds

HEIGHT, WIDTH = 112, 140  # of the model that comes with the package: its frames are taken as they are


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
    """Images of which no two pixels can be guessed, by the nanoseconds of their stamps."""
    shown = {}
    for seed in range(count):
        pixels = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        message = client.image(height=HEIGHT, width=WIDTH, data=array.array("B", pixels.tobytes()))
        client.publish(message)
        shown[nanoseconds(message.header.stamp)] = pixels
    client.wait_for_stats(lambda stats: stats.total_frames_added == count, since_ns=0)
    return shown


def test_a_marked_moment_outlasts_what_comes_after_it_and_is_asked_about(client):
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


def test_a_mark_is_found_by_its_stamp_and_taken_off_by_its_id(client):
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
    assert f"pairs {kept[1].id}, {kept[-1].id}" in full.error_msg
    assert "raise max_marked_frames (the parameter memory.marks.max)" in full.error_msg
    assert full.key_frame.id == 0
    # and one taken off leaves its place to another
    off = mark(client, id=kept[1].id, unmark=True)
    assert (off.success, off.key_frame.marked) == (True, False)
    assert mark(client, id=kept[0].id).success


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"id": 999_999}, "pair 999999 is not kept"),
        ({"stamp": Time(sec=5)}, "no pair within 5 s of 5.000 s is kept by camera camera"),
        ({"stamp": Time(sec=-5)}, "stamp is -5 s"),
        ({"camera": "rear"}, "no camera 'rear'"),
        ({"label": "x" * 65}, "65 characters"),
        ({"unmark": True}, "is not marked"),
    ],
)
def test_what_cannot_be_marked_is_refused_in_a_sentence(client, fields, words):
    client.show_images(2)
    response = mark(client, **fields)
    assert not response.success
    assert words in response.error_msg
    assert not any(frame.marked for frame in get_frames(client).key_frames)


def test_the_images_of_an_answer_are_those_that_were_shown(client):
    # given
    shown = show_noise(client, 7)
    used = client.ask(max_new_tokens=1).frames_used
    # when
    response = get_frames(client, ids=[frame.id for frame in used])
    # then
    assert response.success, response.error_msg
    assert [frame.id for frame in response.key_frames] == [frame.id for frame in used]
    assert response.notice == ""
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


def test_what_is_no_longer_kept_is_listed_and_the_others_come(client):
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
    assert response.notice.startswith("2 of the ids are not kept")
    assert response.first_images[0].format == "jpeg"
    assert decoded(response.first_images[0]).std() < 3  # grey, as it was shown


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"format": "gif"}, "format is 'gif': give png or jpeg"),
        ({"camera": "rear"}, "no camera 'rear'"),
        ({"ids": list(range(4097))}, "4097 ids are given: give at most 4096"),
    ],
)
def test_a_request_for_images_that_makes_no_sense_is_refused(client, fields, words):
    response = get_frames(client, **fields)
    assert not response.success
    assert words in response.error_msg


def test_before_the_node_is_configured_both_say_so(start):
    _, client = start(autostart="false")
    for response in (mark(client), get_frames(client)):
        assert not response.success
        assert "the node is not configured" in response.error_msg
