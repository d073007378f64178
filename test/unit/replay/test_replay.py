"""A recording through a memory: which images are remembered, when questions are asked, what is said about trouble."""

import itertools
import json
from dataclasses import fields
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("sacrebleu", reason="the extra 'evaluation' is not installed")

from delayed_vlm_ros.errors import ImageError
from delayed_vlm_ros.ingest.geometry import FrameGeometry
from delayed_vlm_ros.memory import MemoryConfig
from delayed_vlm_ros.replay.answerers import MethodAnswer
from delayed_vlm_ros.replay.question_file import TimedQuestion
from delayed_vlm_ros.replay.runner import CONTINUE, RESTART, Replay, ReplaySettings

SECOND = 10**9
START = 1_000 * SECOND
GEOMETRY = FrameGeometry(factor=4, min_pixels=16, max_pixels=64 * 48)


class Image(SimpleNamespace):
    """A recorded image; ``trouble`` is raised when it is decoded."""

    def decode(self):
        if self.trouble:
            raise ImageError(self.trouble)
        random = np.random.default_rng(self.shade)
        return random.integers(0, 256, (self.height, 32, 3), dtype=np.uint8)


def image(stamp_ns, arrival_ns=None, shade=0, trouble="", height=24):
    arrival_ns = stamp_ns if arrival_ns is None else arrival_ns
    return Image(stamp_ns=stamp_ns, arrival_ns=arrival_ns, shade=shade, trouble=trouble, height=height)


class Recorded(SimpleNamespace):
    name, kind, topic, damage = "drive", "bag", "/image", ""

    def images(self):
        yield from self.made
        self.damage = self.damage_at_end


def recording(images, damage=""):
    images = list(images)
    return Recorded(made=images, image_count=len(images), damage_at_end=damage)


class Watcher:
    """In place of the methods: what a model would be given, without a model."""

    cached_bytes = 0

    def __init__(self, memory):
        self.memory = memory
        self.added = []
        self.asked = []
        self.begun_anew = 0

    def add(self, frame):
        self.added.append(frame.stamp)

    def begin_anew(self):
        self.begun_anew += 1

    def answers(self, request):
        stamps = [stamp for kept in self.memory.snapshot() for stamp in kept.stamps]
        self.asked.append((request.question, max(stamps, default=None)))
        return {"delayed": MethodAnswer(answer="yes", first_token_sec=0.1, total_sec=0.2)}


def replay(images, questions=(), damage="", **settings):
    own = {field.name for field in fields(ReplaySettings)}
    config = {name: value for name, value in settings.items() if name not in own}
    memory_config = MemoryConfig(**{"eviction_chunk": 0, **config})
    settings = ReplaySettings(
        memory=memory_config, **{name: settings[name] for name in settings.keys() - config.keys()}
    )
    memory = memory_config.build()
    watcher = Watcher(memory)
    told = []
    made = Replay(recording(images, damage), questions, memory, GEOMETRY, watcher, settings)
    return made.run(told.append), watcher, told


def film(count=100, period_ns=SECOND // 10, first=START, **fields):
    return [image(first + number * period_ns, shade=number, **fields) for number in range(count)]


def test_images_are_sampled_and_questions_asked_at_their_times():
    # when
    questions = [TimedQuestion("early", 2.25), TimedQuestion("exact", 3.0), TimedQuestion("end")]
    result, watcher, told = replay(film(), questions)

    # then: two frames a second, and no question has seen what came after its time
    assert watcher.added == [1000.0 + number / 2 for number in range(20)]
    assert watcher.asked == [("early", 1002.0), ("exact", 1003.0), ("end", 1009.5)]
    assert [(one["at"], round(one["asked_at"], 3)) for one in result["questions"]] == [
        (2.25, 2.2),
        (3.0, 3.0),
        (None, 9.9),
    ]
    assert result["complete"]
    assert result["problems"] == []
    assert result["recording"] == {
        "name": "drive",
        "kind": "bag",
        "topic": "/image",
        "images": 100,
        "sampled": 20,
        "dropped": 0,
        "drop_reasons": {},
        "first_stamp": 1000.0,
        "duration_sec": pytest.approx(9.9),
        "sizes": {"32x24": 20},
        "damage": "",
    }
    assert [row["at"] for row in result["timeline"]] == [number / 2 for number in range(20)]
    assert {one["pair"] for one in result["kept"]} == result["pairs"].keys() - {"3-first", "4-first"}
    assert result["pairs"]["1"]["at"] == [0.0, 0.5]
    assert (told[-1].images, told[-1].asked) == (100, 3)
    json.dumps(result)


def test_the_same_recording_gives_the_same_memory_and_answers():
    questions = [TimedQuestion("one", 2.0), TimedQuestion("two")]
    first, second = (replay(film(300), questions, star_memory_size=6, stream_window_size=6)[0] for _ in range(2))
    first["seconds"] = second["seconds"] = 0.0
    assert first == second
    assert len({pair["content_key"] for pair in first["pairs"].values()}) == len(first["pairs"])


def test_an_image_that_cannot_be_used_costs_itself_only():
    images = film()
    images[10].trouble = images[30].trouble = "it is damaged"
    result, watcher, _ = replay(images)
    assert len(watcher.added) == 18
    assert not result["complete"]
    assert result["recording"]["drop_reasons"] == {"it is damaged": 2}
    assert result["problems"] == ["2 images dropped: it is damaged"]


def test_images_without_stamps_go_by_the_times_of_their_recording():
    images = [image(0, arrival_ns=START + number * SECOND // 10, shade=number) for number in range(40)]
    result, watcher, _ = replay(images)
    assert watcher.added == [1000.0 + number / 2 for number in range(8)]
    assert result["problems"] == [
        "40 images without time stamps: the times at which they were recorded are used",
    ]


@pytest.mark.parametrize("apart_ns", [0, 16_000_000], ids=["constant", "alternating"])
def test_recording_whose_stamps_stand_still_goes_by_the_times_of_recording(apart_ns):
    # given
    images = [
        image(START + number % 2 * apart_ns, arrival_ns=START + number * SECOND // 10, shade=number)
        for number in range(100)
    ]
    # when
    result, watcher, _ = replay(images, [TimedQuestion("late", 9.0)])
    # then
    assert len(watcher.added) >= 12
    assert watcher.added[-1] == pytest.approx(1009.5, abs=0.5)
    assert watcher.asked[0][1] == pytest.approx(1009.0, abs=0.6)
    (problem,) = result["problems"]
    assert "stamps that do not advance" in problem


def test_recording_with_a_slow_clock_reports_the_images_it_misses():
    images = [
        image(START + number * SECOND // 100, arrival_ns=START + number * SECOND // 10, shade=number)
        for number in range(400)
    ]
    result, watcher, _ = replay(images)
    assert len(watcher.added) == 9
    (problem,) = result["problems"]
    assert "not by their stamps" in problem


@pytest.mark.parametrize(("on_time_jump", "kept_from"), [(CONTINUE, 0.0), (RESTART, None)])
def test_time_that_goes_back_is_followed_and_told(on_time_jump, kept_from):
    # given: ten seconds, then the same ten again
    arrivals = itertools.count()
    images = [
        image(one.stamp_ns, START + next(arrivals) * SECOND // 10, shade=number)
        for number, one in enumerate([*film(), *film()])
    ]
    # when
    questions = [TimedQuestion("before", 9.0), TimedQuestion("after", 15.0)]
    result, watcher, _ = replay(images, questions, on_time_jump=on_time_jump)
    # then
    restarts = on_time_jump == RESTART
    assert watcher.begun_anew == restarts
    strays, jump = result["problems"]  # it takes three images to be sure
    assert strays.startswith("2 images passed over")
    assert "time has gone back 1 times" in jump
    assert ("begins anew" if restarts else "goes on") in jump
    assert result["complete"]
    asked = [question["asked_at"] for question in result["questions"]]
    assert asked[0] == pytest.approx(9.0)
    assert asked[1] == pytest.approx(15.0, abs=0.11)
    shown = [time for pair in result["pairs"].values() for time in pair["at"]]
    assert all(-0.01 <= time <= result["recording"]["duration_sec"] + 0.01 for time in shown)
    kept = [result["pairs"][str(one["pair"])]["at"][0] for one in result["kept"]]
    assert min(kept) == pytest.approx(9.9, abs=0.6) if restarts else min(kept) == kept_from


def test_a_question_at_the_end_of_a_round_is_about_that_round():
    arrivals = itertools.count()
    images = [
        image(one.stamp_ns, START + next(arrivals) * SECOND // 10, shade=number)
        for number, one in enumerate([*film(), *film()])
    ]
    result, watcher, _ = replay(images, [TimedQuestion("last", 9.9)], on_time_jump=RESTART)
    assert watcher.asked == [("last", 1009.5)]
    assert result["questions"][0]["asked_at"] == pytest.approx(9.9)


def test_time_that_leaps_ahead_asks_nothing_early_and_is_told():
    # given: two seconds by a clock that has just started, which is then set
    begun = [image(5 * SECOND + n * SECOND // 10, START + n * SECOND // 10, shade=n) for n in range(20)]
    later = [image(START + n * SECOND // 10, START + n * SECOND // 10, shade=n) for n in range(20, 100)]
    # when
    result, watcher, _ = replay([*begun, *later], [TimedQuestion("early", 3.0), TimedQuestion("late", 9.0)])
    # then
    assert [question["asked_at"] for question in result["questions"]] == pytest.approx([3.0, 9.0], abs=0.11)
    assert watcher.asked[0][1] == pytest.approx(1003.0, abs=0.6)
    assert result["recording"]["duration_sec"] == pytest.approx(9.9, abs=0.01)
    assert "time has leapt ahead 1 times" in result["problems"][1]
    assert result["complete"]


def test_evidence_is_what_was_shown_and_not_what_it_became():
    # given: a question between the frames of a pair
    result, *_ = replay(film(40), [TimedQuestion("between", 2.25), TimedQuestion("end")])
    # then: the half pair has an image of its own beside the whole one
    half, whole = result["pairs"]["3-first"], result["pairs"]["3"]
    assert half["at"] == pytest.approx([2.0])
    assert whole["at"] == pytest.approx([2.0, 2.5])
    assert half["content_key"] != whole["content_key"]


def test_a_defect_keeps_what_has_been_answered():
    images = film()
    images[60].decode = lambda: 1 / 0
    result, *_ = replay(images, [TimedQuestion("before", 3.0), TimedQuestion("after", 8.0)])
    assert [question["ask"] for question in result["questions"]] == ["before", "after"]
    assert result["problems"][0] == "stopped at image 61: ZeroDivisionError: division by zero"
    assert not result["complete"]


def test_a_bag_of_strays_is_incomplete():
    images = film()
    for number in (20, 40, 60, 80):
        images[number] = image(START + 5_000_000 * SECOND, arrival_ns=START + number * SECOND // 10)
    assert not replay(images)[0]["complete"]


def test_a_stray_stamp_far_ahead_asks_nothing_early():
    images = film()
    images[20] = image(START + 5_000_000 * SECOND, arrival_ns=START + 2 * SECOND)
    result, watcher, _ = replay(images, [TimedQuestion("late", 8.0)])
    assert watcher.asked == [("late", 1008.0)]
    assert result["problems"] == ["1 images passed over, as their stamps do not follow those before: check the clock"]


def test_images_of_several_sizes_share_one_memory_and_it_is_told():
    result, watcher, _ = replay([*film(20), *film(20, first=START + 2 * SECOND, height=40)])
    assert len(watcher.added) == 8
    assert "images of several sizes (4 of 32x24, 4 of 32x40)" in result["problems"][0]


def test_what_is_asked_for_behind_the_end_is_asked_at_the_end_and_told():
    result, watcher, _ = replay(film(20), [TimedQuestion("near", 2.0, ("yes",)), TimedQuestion("late", 60.0, ("yes",))])
    assert watcher.asked == [("near", 1001.5), ("late", 1001.5)]
    assert [asked["answers"]["delayed"]["scores"] is not None for asked in result["questions"]] == [True, False]
    (problem,) = result["problems"]
    assert problem.startswith(
        "question 2 was to be asked at 60 s, and the recording ends at 1.9 s: it was asked at the end"
    )
    assert result["complete"]


def test_damage_makes_a_result_incomplete_and_keeps_what_there_is():
    result, watcher, _ = replay(film(), damage="it is damaged behind image 100")
    assert not result["complete"]
    assert result["problems"] == ["it is damaged behind image 100"]
    assert len(watcher.added) == 20


def test_a_recording_without_a_usable_image_is_incomplete():
    result, watcher, _ = replay(film(5, trouble="no"), [TimedQuestion("what?")])
    assert not result["complete"]
    assert "no image of the recording could be used" in result["problems"]
    assert watcher.asked == [("what?", None)]


def test_its_defaults_are_the_nodes():
    pytest.importorskip("rclpy", reason="ROS 2 is not installed")
    from delayed_vlm_ros.ros.scene_memory.parameters import SceneMemoryParameters, memory_config  # noqa: PLC0415

    node, here = SceneMemoryParameters(), ReplaySettings()
    assert memory_config(node) == here.memory == MemoryConfig()
    assert here.max_new_tokens == node.max_new_tokens
