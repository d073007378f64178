"""The synthetic room's images, and whether they show what the truth says."""

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
    """Name the colour around a place (0..1), by hue, or by brightness where there is none."""
    height, width = image.shape[:2]
    row, column = int(y * height), int(x * width)
    patch = image[row - 3 : row + 4, column - 3 : column + 4].reshape(-1, 1, 3)
    hue, saturation, value = np.median(cv2.cvtColor(patch, cv2.COLOR_RGB2HSV).reshape(-1, 3), axis=0)
    if saturation < 60:
        return "white" if value > 110 else "black"
    return min(HUES, key=lambda name: min(abs(hue - HUES[name]), 180 - abs(hue - HUES[name])))


@pytest.mark.parametrize(("height", "width"), [(480, 640), (112, 112), (37, 53)])
def test_an_image_is_a_pure_function_of_scene_time_and_size(height, width):
    scene = Scene.from_seed(2)
    image = render(scene, 7.25, height, width)
    assert image.shape == (height, width, 3)
    assert image.dtype == np.uint8
    render(scene, 99.0, height, width)[:] = 0  # what a caller does to an image changes no other
    assert np.array_equal(image, render(Scene.from_seed(2), 7.25, height, width))
    assert not np.array_equal(image, render(Scene.from_seed(3), 7.25, height, width))


def test_the_truth_agrees_with_the_pixels():
    checked = 0
    for seed in range(6):
        scene = Scene.from_seed(seed)
        for moment in range(0, 240, 8):
            image = render(scene, float(moment), 480, 640)
            for thing in visible_objects(scene, float(moment)):
                if thing.shown > 0.999 and thing.shape != PERSON:
                    beside = 0.355 * thing.size / ASPECT if thing.shape == "ring" else 0.0  # not in its hole
                    assert shown_colour(image, thing.x + beside, thing.y) == thing.colour, (seed, moment, thing)
                    checked += 1
    assert checked > 200


def test_the_camera_is_noisy_and_its_exposure_drifts():
    scene = Scene.from_seed(0)
    corner = [render(scene, moment, 480, 640)[:40, 200:420].astype(float) for moment in (0.0, 0.1, 20.0)]
    assert 2.0 < (corner[1] - corner[0]).std() < 6.0  # two images' noise
    assert abs(corner[2].mean() - corner[0].mean()) > 1.0


def test_a_moving_object_changes_the_image_where_it_is():
    scene = Scene.from_seed(1)
    for tenth in range(0, 600, 5):
        now = [thing for thing in visible_objects(scene, tenth / 10) if thing.moving and 0.1 < thing.x < 0.9]
        then = {thing.name: thing for thing in visible_objects(scene, tenth / 10 + 2.0)}
        moved = [thing for thing in now if thing.name in then and abs(then[thing.name].x - thing.x) > 0.1]
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
def test_a_sprite_is_cut_out_and_shaded(shape, colour):
    image = sprite(shape, colour, 96)
    coverage = image[..., 3]
    assert image.shape == (96, 96, 4)
    assert coverage[0, 0] == coverage[-1, -1] == 0.0
    assert coverage[48, 83 if shape == "ring" else 48] == 1.0
    assert (coverage[48, 48] == 0.0) == (shape == "ring")
    assert 0.3 < coverage.mean() < 0.9
    assert image[..., :3][coverage == 1.0].sum(axis=1).std() > 8.0


@pytest.mark.parametrize("clothes", CLOTHES)
def test_a_person_walks(clothes):
    steps = [person(clothes, 120, stride) for stride in range(STRIDES)]
    for image in steps:
        assert image.shape == (120, round(120 * PERSON_WIDTH), 4)
        assert image[0, 0, 3] == 0.0
        assert image[50, 25, 3] == 1.0
    assert not np.array_equal(steps[0], steps[2])


def test_a_camera_that_pans_sees_everything_move_together():
    # given a box that stands, and a camera that swings
    box = Episode(1, 0.0, math.inf, "red", "box", home=0.5)
    still = Scene.from_script(3, (box,))
    panning = dataclasses.replace(still, camera=CameraMotion(pan=0.05, pan_period_sec=20.0))
    # when
    (before,), (after,) = (visible_objects(panning, time) for time in (0.0, 10.0))
    # then
    assert abs(before.x - after.x) > 0.01
    for moment, thing in ((0.0, before), (10.0, after)):
        image = render(panning, moment, 240, 320)
        assert shown_colour(image, thing.x, thing.y) == "red"
        shift = round((thing.x - 0.5) * 320)
        unmoved = render(still, moment, 240, 320)
        assert np.median(cv2.absdiff(np.roll(unmoved, shift, axis=1), image)[:, 40:-40]) < 8


def test_a_size_that_is_none_is_refused():
    with pytest.raises(ValueError, match="0x640"):
        render(Scene.from_seed(0), 0.0, 0, 640)
