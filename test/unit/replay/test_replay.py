"""Replay of a recording: sampled images, times of questions, warnings."""

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
    """A recorded image; decoding raises ``error`` if it is not empty."""

    def decode(self):
        if self.error:
            raise ImageError(self.error)
        random = np.random.default_rng(self.shade)
        return random.integers(0, 256, (self.height, 32, 3), dtype=np.uint8)


def make_image(stamp_ns, arrival_ns=None, shade=0, error="", height=24):
    arrival_ns = stamp_ns if arrival_ns is None else arrival_ns
    return Image(stamp_ns=stamp_ns, arrival_ns=arrival_ns, shade=shade, error=error, height=height)


def make_images(count=100, period_ns=SECOND // 10, first=START, **fields):
    return [make_image(first + number * period_ns, shade=number, **fields) for number in range(count)]


def make_loop():
    """Return ten seconds of images twice: the stamps repeat, the arrival times go on."""
    stamps = [image.stamp_ns for image in make_images()] * 2
    return [make_image(stamp_ns, START + number * SECOND // 10, shade=number) for number, stamp_ns in enumerate(stamps)]


class FakeRecording(SimpleNamespace):
    """A recording of given images. Its warnings appear at the end, as those of a damaged bag do."""

    name, kind, topic = "drive", "bag", "/image"

    def __init__(self, images, warnings_at_end):
        super().__init__(made=list(images), image_count=len(images), warnings=[], warnings_at_end=warnings_at_end)

    def images(self):
        yield from self.made
        self.warnings = list(self.warnings_at_end)


class FakeAnswerers:
    """Records what the methods would receive; answers without a model."""

    cached_bytes = 0

    def __init__(self, memory):
        self.memory = memory
        self.added = []
        self.asked = []  # question and newest stamp in the memory
        self.resets = 0

    def add(self, frame):
        self.added.append(frame.stamp)

    def reset(self):
        self.resets += 1

    def answer(self, request):
        stamps = [stamp for kept in self.memory.snapshot() for stamp in kept.stamps]
        self.asked.append((request.question, max(stamps, default=None)))
        return {"delayed": MethodAnswer(answer="yes", first_token_sec=0.1, total_sec=0.2)}


def replay(images, questions=(), warnings=(), **settings):
    """Return the result of a replay, what the answerers received, and the reported progress."""
    names = {field.name for field in fields(ReplaySettings)}
    config = {name: value for name, value in settings.items() if name not in names}
    memory_config = MemoryConfig(**{"eviction_chunk": 0, **config})
    settings = ReplaySettings(
        memory=memory_config, **{name: settings[name] for name in settings.keys() - config.keys()}
    )
    memory = memory_config.build()
    answerers = FakeAnswerers(memory)
    progress = []
    run = Replay(FakeRecording(images, warnings), questions, memory, GEOMETRY, answerers, settings).run
    return run(progress.append), answerers, progress


def test_images_are_sampled_and_questions_asked_at_their_times():
    # when
    questions = [TimedQuestion("early", 2.25), TimedQuestion("exact", 3.0), TimedQuestion("end")]
    result, answerers, progress = replay(make_images(), questions)

    # then two frames per second are sampled, and a question sees no later image
    assert answerers.added == [1000.0 + number / 2 for number in range(20)]
    assert answerers.asked == [("early", 1002.0), ("exact", 1003.0), ("end", 1009.5)]
    assert [(one["at"], round(one["asked_at"], 3)) for one in result["questions"]] == [
        (2.25, 2.2),
        (3.0, 3.0),
        (None, 9.9),
    ]
    assert result["complete"]
    assert result["warnings"] == []
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
        "warnings": [],
    }
    assert [row["at"] for row in result["timeline"]] == [number / 2 for number in range(20)]
    assert {one["pair"] for one in result["kept"]} == result["pairs"].keys() - {"3-first", "4-first"}
    assert result["pairs"]["1"]["at"] == [0.0, 0.5]
    assert (progress[-1].images, progress[-1].asked) == (100, 3)
    json.dumps(result)


def test_same_recording_has_the_same_memory_and_answers():
    questions = [TimedQuestion("one", 2.0), TimedQuestion("two")]
    first, second = (replay(make_images(300), questions, star_memory_size=6, stream_window_size=6)[0] for _ in range(2))
    first["seconds"] = second["seconds"] = 0.0
    assert first == second
    assert len({pair["content_key"] for pair in first["pairs"].values()}) == len(first["pairs"])


def test_damaged_image_loses_no_other_image():
    images = make_images()
    images[10].error = images[30].error = "it is damaged"
    result, answerers, _ = replay(images)
    assert len(answerers.added) == 18
    assert not result["complete"]
    assert result["recording"]["drop_reasons"] == {"it is damaged": 2}
    (warning,) = result["warnings"]
    assert warning.startswith("2 images")
    assert "it is damaged" in warning


def test_images_without_stamps_use_their_recording_times():
    images = [make_image(0, arrival_ns=START + number * SECOND // 10, shade=number) for number in range(40)]
    result, answerers, _ = replay(images)
    assert answerers.added == [1000.0 + number / 2 for number in range(8)]
    (warning,) = result["warnings"]
    assert warning.startswith("40 images")


@pytest.mark.parametrize("apart_ns", [0, 16_000_000], ids=["constant", "alternating"])
def test_images_with_frozen_stamps_use_their_recording_times(apart_ns):
    # given
    images = [
        make_image(START + number % 2 * apart_ns, arrival_ns=START + number * SECOND // 10, shade=number)
        for number in range(100)
    ]
    # when
    result, answerers, _ = replay(images, [TimedQuestion("late", 9.0)])
    # then
    assert len(answerers.added) >= 12
    assert answerers.added[-1] == pytest.approx(1009.5, abs=0.5)
    assert answerers.asked[0][1] == pytest.approx(1009.0, abs=0.6)
    (warning,) = result["warnings"]
    assert "advance" in warning


def test_slow_clock_is_reported_with_the_number_of_missed_images():
    images = [
        make_image(START + number * SECOND // 100, arrival_ns=START + number * SECOND // 10, shade=number)
        for number in range(400)
    ]
    result, answerers, _ = replay(images)
    assert len(answerers.added) == 9
    (warning,) = result["warnings"]
    assert "clock" in warning


@pytest.mark.parametrize(("on_time_jump", "first_kept"), [(CONTINUE, 0.0), (RESTART, None)])
def test_backward_time_jump_continues_replay_time_and_is_reported(on_time_jump, first_kept):
    # when
    questions = [TimedQuestion("before", 9.0), TimedQuestion("after", 15.0)]
    result, answerers, _ = replay(make_loop(), questions, on_time_jump=on_time_jump)
    # then
    restarts = on_time_jump == RESTART
    assert answerers.resets == restarts
    outliers, jump = result["warnings"]
    assert outliers.startswith("2 images")  # the third image confirms the jump
    assert jump.startswith("1 backward")
    assert result["complete"]
    asked = [question["asked_at"] for question in result["questions"]]
    assert asked[0] == pytest.approx(9.0)
    assert asked[1] == pytest.approx(15.0, abs=0.11)
    shown = [time for pair in result["pairs"].values() for time in pair["at"]]
    assert all(-0.01 <= time <= result["recording"]["duration_sec"] + 0.01 for time in shown)
    kept = [result["pairs"][str(one["pair"])]["at"][0] for one in result["kept"]]
    assert min(kept) == pytest.approx(9.9, abs=0.6) if restarts else min(kept) == first_kept


def test_question_at_the_end_of_a_loop_is_asked_before_the_restart():
    result, answerers, _ = replay(make_loop(), [TimedQuestion("last", 9.9)], on_time_jump=RESTART)
    assert answerers.asked == [("last", 1009.5)]
    assert result["questions"][0]["asked_at"] == pytest.approx(9.9)


def test_forward_time_jump_asks_no_question_early_and_is_reported():
    # given two seconds on a clock that has just started and is then set
    before = [make_image(5 * SECOND + n * SECOND // 10, START + n * SECOND // 10, shade=n) for n in range(20)]
    after = [make_image(START + n * SECOND // 10, START + n * SECOND // 10, shade=n) for n in range(20, 100)]
    # when
    result, answerers, _ = replay([*before, *after], [TimedQuestion("early", 3.0), TimedQuestion("late", 9.0)])
    # then
    assert [question["asked_at"] for question in result["questions"]] == pytest.approx([3.0, 9.0], abs=0.11)
    assert answerers.asked[0][1] == pytest.approx(8.0, abs=0.6)  # the memory's time, from the first stamp on
    assert result["recording"]["duration_sec"] == pytest.approx(9.9, abs=0.01)
    assert result["warnings"][1].startswith("1 forward")
    assert result["complete"]


def test_question_in_a_gap_is_scored_and_marked():
    # given a camera that is silent from 4 to 8 s
    images = [image for number, image in enumerate(make_images()) if not 40 <= number < 80]
    # when
    questions = [TimedQuestion(f"at {at}", at, ("never",)) for at in (3.0, 4.5, 6.0, 7.0, 9.0, 12.0)]
    result, *_ = replay(images, questions)
    # then
    gaps = [round(question["gap_sec"], 1) for question in result["questions"]]
    assert gaps == [0.0, 0.0, 2.1, 3.1, 0.0, 0.0]
    assert [question["after_end"] for question in result["questions"]] == [False] * 5 + [True]
    summary = next(iter(result["summary"].values()))
    assert (summary["expected"], summary["scored"], summary["scored_in_gap"]) == (6, 5, 2)
    assert [warning.split()[1] for warning in result["warnings"] if "gap" in warning] == ["3", "4"]
    assert result["complete"]


def test_half_pair_and_complete_pair_are_stored_separately():
    # given a question between the frames of a pair
    result, *_ = replay(make_images(40), [TimedQuestion("between", 2.25), TimedQuestion("end")])
    # then
    half, complete = result["pairs"]["3-first"], result["pairs"]["3"]
    assert half["at"] == pytest.approx([2.0])
    assert complete["at"] == pytest.approx([2.0, 2.5])
    assert half["content_key"] != complete["content_key"]


def test_defect_keeps_earlier_answers_and_asks_the_rest():
    images = make_images()
    images[60].decode = lambda: 1 / 0
    result, *_ = replay(images, [TimedQuestion("before", 3.0), TimedQuestion("after", 8.0)])
    assert [question["ask"] for question in result["questions"]] == ["before", "after"]
    assert "image 61: ZeroDivisionError" in result["warnings"][0]
    assert not result["complete"]


def test_several_outlier_stamps_make_the_result_incomplete():
    images = make_images()
    for number in (20, 40, 60, 80):
        images[number] = make_image(START + 5_000_000 * SECOND, arrival_ns=START + number * SECOND // 10)
    assert not replay(images)[0]["complete"]


def test_outlier_stamp_far_ahead_asks_no_question_early():
    images = make_images()
    images[20] = make_image(START + 5_000_000 * SECOND, arrival_ns=START + 2 * SECOND)
    result, answerers, _ = replay(images, [TimedQuestion("late", 8.0)])
    assert answerers.asked == [("late", 1008.0)]
    (warning,) = result["warnings"]
    assert warning.startswith("1 images")


def test_images_of_several_sizes_share_one_memory_and_are_reported():
    result, answerers, _ = replay([*make_images(20), *make_images(20, first=START + 2 * SECOND, height=40)])
    assert len(answerers.added) == 8
    assert result["recording"]["sizes"] == {"32x24": 4, "32x40": 4}
    assert "4 of 32x24, 4 of 32x40" in result["warnings"][0]


def test_question_after_the_end_is_asked_at_the_end_and_not_scored():
    questions = [TimedQuestion("near", 2.0, ("yes",)), TimedQuestion("late", 60.0, ("yes",))]
    result, answerers, _ = replay(make_images(20), questions)
    assert answerers.asked == [("near", 1001.5), ("late", 1001.5)]
    assert [asked["answers"]["delayed"]["scores"] is not None for asked in result["questions"]] == [True, False]
    (warning,) = result["warnings"]
    assert warning.startswith("question 2 ")
    assert result["complete"]


def test_warning_of_the_recording_makes_the_result_incomplete_and_keeps_its_images():
    result, answerers, _ = replay(make_images(), warnings=["damaged after image 100"])
    assert not result["complete"]
    assert result["warnings"] == result["recording"]["warnings"] == ["damaged after image 100"]
    assert len(answerers.added) == 20


def test_recording_without_usable_image_is_incomplete():
    result, answerers, _ = replay(make_images(5, error="no"), [TimedQuestion("what?")])
    assert not result["complete"]
    assert len(result["warnings"]) == 2
    assert answerers.asked == [("what?", None)]


def test_default_settings_equal_those_of_the_node():
    pytest.importorskip("rclpy", reason="ROS 2 is not installed")
    from delayed_vlm_ros.ros.scene_memory.parameters import SceneMemoryParameters, memory_config  # noqa: PLC0415

    node, settings = SceneMemoryParameters(), ReplaySettings()
    assert memory_config(node) == settings.memory == MemoryConfig()
    assert settings.max_new_tokens == node.max_new_tokens
