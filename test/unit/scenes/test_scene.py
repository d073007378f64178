"""The synthetic room's truth: what is where, at any time."""

import dataclasses
import math
from itertools import pairwise

import pytest

from delayed_vlm_ros.scenes import CameraMotion, Episode, Scene, visible_objects
from delayed_vlm_ros.scenes.scene import placed_objects
from delayed_vlm_ros.scenes.sprites import COLOURS, PERSON, SHAPES


def test_the_same_seed_gives_the_same_room_and_another_one_another():
    assert Scene.from_seed(3) == Scene.from_seed(3)
    assert Scene.from_seed(3) != Scene.from_seed(4)


def test_any_moment_can_be_asked_for_in_any_order():
    scene = Scene.from_seed(5)
    times = [0.0, 12.5, 86_400.0, 3.0, 1e6]
    forwards = [visible_objects(scene, time) for time in times]
    backwards = [visible_objects(scene, time) for time in reversed(times)]
    assert forwards == backwards[::-1]


@pytest.mark.parametrize("seed", range(4))
def test_objects_are_told_apart_by_their_colours_and_lie_in_the_image(seed):
    scene = Scene.from_seed(seed)
    for time in range(0, 600, 7):
        seen = visible_objects(scene, float(time))
        assert all(0.4 < thing.size < 0.9 and thing.name == PERSON for thing in seen if thing.shape == PERSON)
        things = [thing for thing in seen if thing.shape != PERSON]
        assert len({thing.colour for thing in things}) == len(things)
        for thing in things:
            assert thing.colour in COLOURS
            assert thing.shape in SHAPES
            assert thing.name == f"{thing.colour} {thing.shape}"
            assert 0.0 <= thing.x <= 1.0
            assert 0.0 <= thing.y <= 1.0
            assert 0.1 < thing.size < 0.5


def test_objects_appear_and_leave_and_the_room_does_not_repeat():
    scene = Scene.from_seed(0)
    seen = [frozenset(thing.name for thing in visible_objects(scene, float(time))) for time in range(0, 1200, 2)]
    changes = sum(before != after for before, after in pairwise(seen))
    assert changes > 40
    assert len(frozenset.union(*seen)) > 12
    assert {len(names) for names in seen} >= {1, 2, 3}


def test_a_moving_object_moves_steadily_and_a_resting_one_stays():
    scene = dataclasses.replace(Scene.from_seed(1), camera=CameraMotion())
    moved = rested = 0
    for tenth in range(3000):
        time = tenth / 10.0
        later = {thing.name: thing for thing in visible_objects(scene, time + 0.1)}
        for thing in visible_objects(scene, time):
            if thing.name not in later or thing.moving != later[thing.name].moving:
                continue
            if thing.shape == PERSON:  # there may be several of one name
                continue
            step = abs(later[thing.name].x - thing.x)
            assert step < 0.06
            if thing.moving:
                moved += step > 0.0
            else:
                rested += 1
                assert step == 0.0
    assert moved > 300
    assert rested > 500


@pytest.mark.parametrize("time", [-0.1, math.nan, math.inf])
def test_a_time_that_is_none_is_refused(time):
    with pytest.raises(ValueError, match="seconds since the scene began"):
        visible_objects(Scene.from_seed(0), time)


def test_a_negative_seed_is_refused():
    with pytest.raises(ValueError, match="whole number from 0"):
        Scene.from_seed(-1)


def test_a_person_brings_a_thing_and_goes_and_another_one_fetches_it():
    # given
    brought = Episode(1, 10.0, 60.0, "red", "box", 0.4, arrival="carried", departure="carried", travel_sec=3.0)
    scene = Scene.from_script(0, (brought,))
    # when
    seen = {
        time: {thing.name: thing for thing in visible_objects(scene, time)} for time in (5.0, 12.5, 14.0, 30.0, 57.5)
    }
    # then
    assert [set(names) for names in seen.values()] == [
        set(),
        {"red box", "person"},
        {"red box", "person"},
        {"red box"},
        {"red box", "person"},
    ]
    assert seen[12.5]["red box"].y < seen[30.0]["red box"].y, "carried, not rolling"
    assert seen[12.5]["red box"].moving
    assert not seen[14.0]["red box"].moving
    assert seen[14.0]["person"].x < seen[14.0]["red box"].x


def test_a_thing_that_walks_behind_another_is_shown_less():
    # given
    near = Episode(3, 0.0, 10.0, "red", "box", home=0.5)
    far = Episode(1, 0.0, 10.0, "blue", "ball", home=0.5)
    # when
    things = {thing.name: thing for thing in placed_objects(Scene.from_script(0, (near, far)), 5.0)}
    # then
    assert things["red box"].shown == pytest.approx(1.0)
    assert 0.0 < things["blue ball"].shown < 0.9


@pytest.mark.parametrize(
    "episode",
    [
        Episode(4, 0.0, 1.0, "red", "box", 0.5),
        Episode(0, 1.0, 1.0, "red", "box", 0.5),
        Episode(0, 0.0, 1.0, "mauve", "box", 0.5),
        Episode(0, 0.0, 1.0, "red", "pyramid", 0.5),
    ],
)
def test_an_episode_that_cannot_be_is_refused(episode):
    with pytest.raises(ValueError, match="cannot be"):
        Scene.from_script(0, (episode,))
