"""Images of the synthetic room, compared with the ground truth."""

import dataclasses
import math

import cv2
import numpy as np
import pytest

from delayed_vlm_ros.scenes import CameraMotion, Episode, Scene, render, visible_objects
from delayed_vlm_ros.scenes.scene import ASPECT
from delayed_vlm_ros.scenes.sprites import CLOTHES, COLOURS, PERSON, PERSON_WIDTH, SHAPES, STRIDES, person, sprite

HUES = {"red": 0, "orange": 14, "yellow": 26, "green": 64, "blue": 112, "purple": 140}  # OpenCV's, 0..179


def shown_colour(image, x, y):
    """Return the colour around a position (0..1), by hue, or by brightness where the saturation is low."""
    height, width = image.shape[:2]
    row, column = int(y * height), int(x * width)
    patch = image[row - 3 : row + 4, column - 3 : column + 4].reshape(-1, 1, 3)
    hue, saturation, value = np.median(cv2.cvtColor(patch, cv2.COLOR_RGB2HSV).reshape(-1, 3), axis=0)
    if saturation < 60:
        return "white" if value > 110 else "black"
    return min(HUES, key=lambda name: min(abs(hue - HUES[name]), 180 - abs(hue - HUES[name])))


@pytest.mark.parametrize(("height", "width"), [(480, 640), (112, 112), (37, 53)])
def test_image_is_a_pure_function_of_scene_time_and_size(height, width):
    scene = Scene.from_seed(2)
    image = render(scene, 7.25, height, width)
    assert image.shape == (height, width, 3)
    assert image.dtype == np.uint8
    render(scene, 99.0, height, width)[:] = 0  # writing to one image must not change another
    assert np.array_equal(image, render(Scene.from_seed(2), 7.25, height, width))
    assert not np.array_equal(image, render(Scene.from_seed(3), 7.25, height, width))


def test_ground_truth_agrees_with_the_pixels():
    checked = 0
    for seed in range(6):
        scene = Scene.from_seed(seed)
        for time in range(0, 240, 8):
            image = render(scene, float(time), 480, 640)
            for item in visible_objects(scene, float(time)):
                if item.shown > 0.999 and item.shape != PERSON:
                    offset = 0.355 * item.size / ASPECT if item.shape == "ring" else 0.0  # outside the hole
                    assert shown_colour(image, item.x + offset, item.y) == item.colour, (seed, time, item)
                    checked += 1
    assert checked > 200


def test_camera_adds_noise_and_exposure_drift():
    scene = Scene.from_seed(0)
    corner = [render(scene, time, 480, 640)[:40, 200:420].astype(float) for time in (0.0, 0.1, 20.0)]
    assert 2.0 < (corner[1] - corner[0]).std() < 6.0  # the noise of both images
    assert abs(corner[2].mean() - corner[0].mean()) > 1.0


def test_moving_object_changes_the_image_at_its_position():
    scene = Scene.from_seed(1)
    for tenth in range(0, 600, 5):
        now = [item for item in visible_objects(scene, tenth / 10) if item.moving and 0.1 < item.x < 0.9]
        then = {item.name: item for item in visible_objects(scene, tenth / 10 + 2.0)}
        moved = [item for item in now if item.name in then and abs(then[item.name].x - item.x) > 0.1]
        if moved:
            before, after = (render(scene, tenth / 10 + delay, 480, 640) for delay in (0.0, 2.0))
            difference = cv2.absdiff(before, after).max(axis=2)
            row, column = int(moved[0].y * 480), int(moved[0].x * 640)
            assert np.median(difference[row - 5 : row + 5, column - 5 : column + 5]) > 25
            assert np.median(difference[:40]) < 15
            return
    pytest.fail("nothing moved in a minute")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("colour", COLOURS)
def test_sprite_is_transparent_outside_and_shaded_inside(shape, colour):
    image = sprite(shape, colour, 96)
    coverage = image[..., 3]
    assert image.shape == (96, 96, 4)
    assert coverage[0, 0] == coverage[-1, -1] == 0.0
    assert coverage[48, 83 if shape == "ring" else 48] == 1.0
    assert (coverage[48, 48] == 0.0) == (shape == "ring")
    assert 0.3 < coverage.mean() < 0.9
    assert image[..., :3][coverage == 1.0].sum(axis=1).std() > 8.0


@pytest.mark.parametrize("clothes", CLOTHES)
def test_person_sprites_differ_between_strides(clothes):
    steps = [person(clothes, 120, stride) for stride in range(STRIDES)]
    for image in steps:
        assert image.shape == (120, round(120 * PERSON_WIDTH), 4)
        assert image[0, 0, 3] == 0.0
        assert image[50, 25, 3] == 1.0
    assert not np.array_equal(steps[0], steps[2])


def test_panning_camera_shifts_the_whole_image():
    # given a resting box and a panning camera
    box = Episode(1, 0.0, math.inf, "red", "box", home=0.5)
    still = Scene.from_script(3, (box,))
    panning = dataclasses.replace(still, camera=CameraMotion(pan=0.05, pan_period_sec=20.0))
    # when
    (before,), (after,) = (visible_objects(panning, time) for time in (0.0, 10.0))
    # then
    assert abs(before.x - after.x) > 0.01
    for time, item in ((0.0, before), (10.0, after)):
        image = render(panning, time, 240, 320)
        assert shown_colour(image, item.x, item.y) == "red"
        shift = round((item.x - 0.5) * 320)
        unmoved = render(still, time, 240, 320)
        assert np.median(cv2.absdiff(np.roll(unmoved, shift, axis=1), image)[:, 40:-40]) < 8


def test_image_size_of_zero_raises():
    with pytest.raises(ValueError, match="0x640"):
        render(Scene.from_seed(0), 0.0, 0, 640)
