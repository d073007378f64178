"""Ground truth of the synthetic room at any time."""

import dataclasses
import math
from itertools import pairwise

import pytest

from delayed_vlm_ros.scenes import CameraMotion, Episode, Scene, visible_objects
from delayed_vlm_ros.scenes.scene import placed_objects
from delayed_vlm_ros.scenes.sprites import COLOURS, PERSON, SHAPES


def test_scene_is_determined_by_its_seed():
    assert Scene.from_seed(3) == Scene.from_seed(3)
    assert Scene.from_seed(3) != Scene.from_seed(4)


def test_times_can_be_queried_in_any_order():
    scene = Scene.from_seed(5)
    times = [0.0, 12.5, 86_400.0, 3.0, 1e6]
    forwards = [visible_objects(scene, time) for time in times]
    backwards = [visible_objects(scene, time) for time in reversed(times)]
    assert forwards == backwards[::-1]


@pytest.mark.parametrize("seed", range(4))
def test_visible_objects_have_unique_colours_and_lie_in_the_image(seed):
    scene = Scene.from_seed(seed)
    for time in range(0, 600, 7):
        seen = visible_objects(scene, float(time))
        assert all(0.4 < item.size < 0.9 and item.name == PERSON for item in seen if item.shape == PERSON)
        objects = [item for item in seen if item.shape != PERSON]
        assert len({item.colour for item in objects}) == len(objects)
        for item in objects:
            assert item.colour in COLOURS
            assert item.shape in SHAPES
            assert item.name == f"{item.colour} {item.shape}"
            assert 0.0 <= item.x <= 1.0
            assert 0.0 <= item.y <= 1.0
            assert 0.1 < item.size < 0.5


def test_objects_appear_and_leave_without_repetition():
    scene = Scene.from_seed(0)
    seen = [frozenset(item.name for item in visible_objects(scene, float(time))) for time in range(0, 1200, 2)]
    changes = sum(before != after for before, after in pairwise(seen))
    assert changes > 40
    assert len(frozenset.union(*seen)) > 12
    assert {len(names) for names in seen} >= {1, 2, 3}


def test_moving_object_moves_smoothly_and_resting_object_stays():
    scene = dataclasses.replace(Scene.from_seed(1), camera=CameraMotion())
    moved = rested = 0
    for tenth in range(3000):
        time = tenth / 10.0
        later = {item.name: item for item in visible_objects(scene, time + 0.1)}
        for item in visible_objects(scene, time):
            if item.name not in later or item.moving != later[item.name].moving:
                continue
            if item.shape == PERSON:  # several people share one name
                continue
            step = abs(later[item.name].x - item.x)
            assert step < 0.06
            if item.moving:
                moved += step > 0.0
            else:
                rested += 1
                assert step == 0.0
    assert moved > 300
    assert rested > 500


@pytest.mark.parametrize("time", [-0.1, math.nan, math.inf])
def test_invalid_time_raises(time):
    with pytest.raises(ValueError, match="time_sec"):
        visible_objects(Scene.from_seed(0), time)


def test_negative_seed_raises():
    with pytest.raises(ValueError, match="seed"):
        Scene.from_seed(-1)


def test_carried_object_arrives_and_departs_with_a_person():
    # given
    brought = Episode(1, 10.0, 60.0, "red", "box", 0.4, arrival="carried", departure="carried", travel_sec=3.0)
    scene = Scene.from_script(0, (brought,))
    # when
    seen = {time: {item.name: item for item in visible_objects(scene, time)} for time in (5.0, 12.5, 14.0, 30.0, 57.5)}
    # then
    assert [set(names) for names in seen.values()] == [
        set(),
        {"red box", "person"},
        {"red box", "person"},
        {"red box"},
        {"red box", "person"},
    ]
    assert seen[12.5]["red box"].y < seen[30.0]["red box"].y, "a carried object is lifted"
    assert seen[12.5]["red box"].moving
    assert not seen[14.0]["red box"].moving
    assert seen[14.0]["person"].x < seen[14.0]["red box"].x


def test_object_hidden_by_a_nearer_one_is_shown_less():
    # given
    near = Episode(3, 0.0, 10.0, "red", "box", home=0.5)
    far = Episode(1, 0.0, 10.0, "blue", "ball", home=0.5)
    # when
    objects = {item.name: item for item in placed_objects(Scene.from_script(0, (near, far)), 5.0)}
    # then
    assert objects["red box"].shown == pytest.approx(1.0)
    assert 0.0 < objects["blue ball"].shown < 0.9


@pytest.mark.parametrize(
    "episode",
    [
        Episode(4, 0.0, 1.0, "red", "box", 0.5),
        Episode(0, 1.0, 1.0, "red", "box", 0.5),
        Episode(0, 0.0, 1.0, "mauve", "box", 0.5),
        Episode(0, 0.0, 1.0, "red", "pyramid", 0.5),
    ],
)
def test_invalid_episode_raises(episode):
    with pytest.raises(ValueError, match="Episode"):
        Scene.from_script(0, (episode,))
