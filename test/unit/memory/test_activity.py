"""Activity of a memory: what counts as a change of the view, in synthetic rooms and in real videos."""

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from delayed_vlm_ros.memory import Activity, SmartFrameManager
from delayed_vlm_ros.memory.activity import MIN_VIEW_CHANGE
from delayed_vlm_ros.memory.scoring.descriptor import describe, distance
from delayed_vlm_ros.scenes import CameraMotion, Scene, render

VIDEOS = Path(__file__).parents[4] / "shared" / "videos"
HEIGHT, WIDTH = 120, 160


def empty_room(seed, shake=0.0):
    return Scene(seed=seed, lanes=(), camera=CameraMotion(shake=shake))


def add_all(images, memory=None, first=0.0):
    """Add images at 2 Hz; return the stamps of the changes and the memory."""
    memory = memory or SmartFrameManager(6, 6)
    changes = set()
    for number, image in enumerate(images):
        memory.add(image, first + number / 2)
        changes.add(memory.activity.view_changed)
    return sorted(changes), memory


def with_square(image, share, colour, *, left=0.4, top=0.5):
    """Return an image with a square of a share of its area."""
    height, width = image.shape[:2]
    side = round((share * height * width) ** 0.5)
    row, column = round(top * height), round(left * width)
    shown = image.copy()
    shown[row : row + side, column : column + side] = colour
    return shown


def test_still_scene_with_noise_and_little_shake_does_not_change_in_ten_minutes():
    room = empty_room(3, shake=0.002)
    changes, memory = add_all(render(room, number / 2, HEIGHT, WIDTH) for number in range(1200))
    assert changes == [0.0]
    assert memory.activity.newest == 599.5
    assert memory.activity.first == 0.0


@pytest.mark.parametrize("height", [112, 480])
@pytest.mark.parametrize("shake", [0.0, 0.004])
def test_noise_stays_below_the_threshold_in_other_rooms_and_sizes(height, shake):
    for seed in range(4):
        room, width = empty_room(seed, shake), height * 4 // 3
        reference = describe(render(room, 0.0, height, width))
        strongest = max(
            distance(reference, describe(render(room, number / 2, height, width))) for number in range(1, 25)
        )
        assert strongest < MIN_VIEW_CHANGE, (seed, strongest)


@pytest.mark.parametrize("colour", [(200, 30, 30), (30, 120, 40), (20, 20, 20)])
@pytest.mark.parametrize("seed", range(4))
def test_object_of_one_percent_that_comes_and_goes_is_two_changes(seed, colour):
    images = [render(empty_room(seed), number / 2, 480, 640) for number in range(12)]
    images[4:8] = [with_square(image, 0.01, colour) for image in images[4:8]]
    assert add_all(images)[0] == [0.0, 2.0, 4.0]


def test_slow_drift_is_a_change_although_no_frame_differs_from_the_one_before():
    """An object that fades in within a minute: successive frames differ by less than noise."""
    room = empty_room(1)
    images = []
    for number in range(120):
        image = render(room, number / 2, HEIGHT, WIDTH)
        shown = with_square(image, 0.04, (20, 20, 20))
        images.append(cv2.addWeighted(image, 1 - number / 120, shown, number / 120, 0))
    steps = [distance(describe(a), describe(b)) for a, b in pairwise(images)]
    assert max(steps) < MIN_VIEW_CHANGE
    changes, _ = add_all(images)
    assert len(changes) >= 2
    assert changes[1] < 40.0


def test_exposure_alone_is_no_change():
    base = render(empty_room(1), 0.0, HEIGHT, WIDTH)
    images = [np.clip(base * gain, 0, 255).astype(np.uint8) for gain in np.linspace(1.0, 0.6, 60)]
    assert add_all(images)[0] == [0.0]


def test_reset_forgets_everything_and_the_next_frame_is_the_first():
    image = render(empty_room(1), 0.0, HEIGHT, WIDTH)
    _, memory = add_all([image] * 4, first=50.0)
    memory.reset()
    assert memory.activity == Activity()
    memory.add(image, 7.0)
    assert (memory.activity.first, memory.activity.newest, memory.activity.view_changed) == (7.0, 7.0, 7.0)


def test_pair_that_enters_star_memory_is_recorded_with_the_newest_stamp():
    room = empty_room(1)
    _, memory = add_all(render(room, number / 2, HEIGHT, WIDTH) for number in range(40))
    before = memory.activity.star_entered
    assert before is not None  # the first frames of a memory are new
    assert before < 19.5
    pairs = {kept.id for kept in memory.snapshot() if kept.in_star}
    shown = [with_square(render(room, number / 2, HEIGHT, WIDTH), 0.1, (200, 30, 30)) for number in range(40, 60)]
    add_all(shown, memory, first=20.0)
    assert memory.activity.star_entered >= 20.0
    assert {kept.id for kept in memory.snapshot() if kept.in_star} - pairs


def test_mark_is_no_event():
    room = empty_room(1)
    _, memory = add_all((render(room, number / 2, HEIGHT, WIDTH) for number in range(40)), SmartFrameManager(20, 6))
    before = memory.activity.star_entered
    (pair,) = [kept.id for kept in memory.snapshot() if not kept.in_star][-1:]
    memory.mark(pair)
    assert memory.activity.star_entered == before


@pytest.mark.parametrize("name", ["bikes.mp4", "carphone_pristine.mp4"])
def test_moving_objects_of_a_real_video_are_changes(name):
    file = VIDEOS / name
    if not file.is_file():
        pytest.skip(f"{name} is not on this machine")
    video = cv2.VideoCapture(str(file))
    images = []
    while (read := video.read())[0]:
        images.append(read[1][..., ::-1])
    half_second = round(video.get(cv2.CAP_PROP_FPS) / 2)
    sampled = images[::half_second]
    assert len(add_all(sampled)[0]) >= 0.7 * len(sampled)
    # and one frozen image of it, with sensor noise, is a still scene
    random = np.random.default_rng(0)
    frozen = [np.clip(sampled[0] + random.normal(0, 2.5, sampled[0].shape), 0, 255).astype(np.uint8) for _ in range(20)]
    assert add_all(frozen)[0] == [0.0]
