"""Which frames are notable, and why."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from delayed_vlm_ros.memory import Descriptor, ImportanceScorer, SmartFrameManager, describe, distance

NOTABLE = 0.6
HEIGHT, WIDTH = 112, 140


def scene(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    large = cv2.resize(rng.uniform(40, 180, (5, 6, 3)), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    return np.clip(large, 0, 255).astype(np.uint8)


def score_next(scorer: ImportanceScorer, descriptor: Descriptor, novelty: float):
    importance = scorer.assess(descriptor, novelty)
    scorer.remember(descriptor, importance)
    return importance


def notable_frames(images) -> list:
    memory = SmartFrameManager()
    added = [memory.add(image, float(index)) for index, image in enumerate(images)]
    return [frame for frame in added if frame.reason]


def test_first_frame_has_full_importance():
    # when
    importance = ImportanceScorer().assess(describe(scene(0)), math.inf)

    # then
    assert (importance.score, importance.reason) == (1.0, "first frame")


def test_assess_does_not_change_the_scorer():
    # given
    scorer = ImportanceScorer()
    score_next(scorer, describe(scene(0)), math.inf)

    # when
    first, again = (scorer.assess(describe(scene(1)), 0.9) for _ in range(2))

    # then
    assert first == again
    assert first.scene_change == pytest.approx(distance(describe(scene(0)), describe(scene(1))))
    assert first.novelty == 0.9


@pytest.mark.parametrize("seed", range(1, 6))
def test_cut_to_a_new_scene_is_a_scene_change(seed):
    # given
    scorer = ImportanceScorer()
    score_next(scorer, describe(scene(0)), math.inf)

    # when
    new = describe(scene(seed))
    importance = score_next(scorer, new, distance(new, describe(scene(0))))

    # then
    assert importance.score > NOTABLE
    assert importance.reason == "scene change"
    assert score_next(scorer, new, 0.0).scene_change == 0.0


def test_cut_back_to_a_known_scene_is_not_notable():
    # given
    scorer = ImportanceScorer()
    score_next(scorer, describe(scene(0)), math.inf)
    score_next(scorer, describe(scene(1)), 0.9)

    # then
    assert score_next(scorer, describe(scene(0)), 0.0).score < NOTABLE


def test_gradual_change_is_a_novel_view():
    # given
    scorer = ImportanceScorer()
    for _ in range(20):
        score_next(scorer, describe(scene(0)), 0.1)

    # when
    importance = score_next(scorer, describe(scene(0)), 0.9)

    # then
    assert importance.score > NOTABLE
    assert importance.reason == "novel view"


def test_steady_motion_becomes_usual():
    # given an object that jumps back and forth continuously, always slightly unlike the frames in Star
    scorer = ImportanceScorer()
    jumped = scene(0)
    jumped[40:70, 60:84] = (220, 30, 30)
    views = [describe(scene(0)), describe(jumped)]
    early = [score_next(scorer, views[index % 2], 0.7) for index in range(4)][-1]

    # when
    late = [score_next(scorer, views[index % 2], 0.7) for index in range(40)][-1]
    cut = score_next(scorer, describe(scene(1)), 0.99)

    # then
    assert early.score > NOTABLE
    assert early.reason == "local change"
    assert late.score < NOTABLE
    assert late.reason == "moving scene"
    assert cut.score > NOTABLE


def test_without_star_only_the_change_counts():
    # given
    scorer = ImportanceScorer()
    score_next(scorer, describe(scene(0)), math.inf)

    # then
    assert score_next(scorer, describe(scene(0)), math.inf).score == 0.0
    assert score_next(scorer, describe(scene(1)), math.inf).score > NOTABLE


@pytest.mark.parametrize("sigma", [3, 12])
def test_static_noisy_camera_has_one_notable_frame(sigma):
    # given
    rng = np.random.default_rng(0)
    still = scene(0).astype(float)
    images = (np.clip(still + rng.normal(0, sigma, still.shape), 0, 255).astype(np.uint8) for _ in range(2000))

    # then
    assert [frame.reason for frame in notable_frames(images)] == ["first frame"]


def test_slow_daylight_and_exposure_steps_are_rarely_notable():
    # given a day in 1000 frames, with steps of the camera's exposure
    still = scene(0).astype(float)
    light = 1.0 - 0.6 * np.sin(np.linspace(0, np.pi, 1000))
    steps = np.where(np.arange(1000) // 50 % 2, 1.3, 1.0)
    images = [np.clip(still * gain, 0, 255).astype(np.uint8) for gain in light * steps]

    # then
    assert len(notable_frames(images)) <= 3


@pytest.mark.parametrize("colour", [(220, 30, 30), (10, 10, 10), (245, 245, 245)])
def test_object_appearing_on_three_per_cent_of_a_noisy_image_is_notable(colour):
    # given
    rng = np.random.default_rng(1)
    side = math.ceil((0.03 * HEIGHT * WIDTH) ** 0.5)
    images = []
    for index in range(100):
        image = scene(0).astype(float)
        if index >= 60:
            image[50 : 50 + side, 70 : 70 + side] = colour
        images.append(np.clip(image + rng.normal(0, 5, image.shape), 0, 255).astype(np.uint8))

    # when
    notable = notable_frames(images)

    # then
    assert [(frame.number, frame.reason) for frame in notable[:2]] == [(1, "first frame"), (61, "local change")]
    assert len(notable) <= 3
    assert notable[1].in_star


def test_repeated_passing_objects_are_notable_at_first_only():
    # given a red object that crosses the image in 6 frames, every 50 frames
    images = []
    for index in range(500):
        image = scene(0).copy()
        if index % 50 >= 44:
            left = (index % 50 - 44) * 20
            image[40:70, left : left + 24] = (220, 30, 30)
        images.append(image)

    # when
    notable = notable_frames(images)

    # then the first ones are notable, and later similar ones are not
    assert [frame.number for frame in notable[:2]] == [1, 45]
    assert len(notable) <= 15
    assert notable[-1].number <= 150
