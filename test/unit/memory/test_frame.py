"""Frames, pairs and kept pairs."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pytest

from delayed_vlm_ros.memory import Frame, FramePair, KeptPair, SmartFrameManager
from delayed_vlm_ros.memory.frame import freeze


def image(value: int, shape: tuple[int, int, int] = (4, 6, 3)) -> np.ndarray:
    return np.full(shape, value, np.uint8)


def frame(value: int, *, number: int = 1, importance: float = 0.0, reason: str = "") -> Frame:
    return Frame(image=image(value), stamp=number / 2, number=number, importance=importance, reason=reason)


def test_frame_is_independent_of_its_source_array():
    # given
    source = image(7)
    kept = Frame(source, 0.0, 1, 0.0, "")

    # when
    source[...] = 99

    # then
    assert (kept.image == 7).all()
    assert not kept.image.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        kept.image[0, 0, 0] = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        kept.stamp = 1.0


def test_freeze_keeps_an_owned_read_only_array_and_copies_everything_else():
    # given
    owned = image(1)
    owned.setflags(write=False)
    view = image(2)[:, ::-1]
    read_only_view = image(3).view()
    read_only_view.setflags(write=False)

    # then
    assert freeze(owned) is owned
    for other in (view, read_only_view, image(4)):
        frozen = freeze(other)
        assert not np.shares_memory(frozen, other)
        assert frozen.flags.owndata
        assert frozen.flags.c_contiguous
        np.testing.assert_array_equal(frozen, other)


def test_provisional_pair_repeats_its_first_frame_but_counts_it_once():
    # when
    pair = FramePair(5, frame(1), None)

    # then
    assert not pair.is_complete
    assert pair.frame_count == 1
    assert pair.frames[0] is pair.frames[1]
    assert pair.stamps == (0.5, 0.5)
    assert pair.pixel_bytes == 4 * 6 * 3


def test_completing_a_pair_keeps_its_id_and_the_provisional_pair():
    # given
    provisional = FramePair(5, frame(1, number=1), None)

    # when
    complete = provisional.completed_with(frame(2, number=2))

    # then
    assert complete.id == 5
    assert complete.is_complete
    assert complete.frame_count == 2
    assert complete.stamps == (0.5, 1.0)
    assert [int(image[0, 0, 0]) for image in complete.frames] == [1, 2]
    assert complete.pixel_bytes == 2 * 4 * 6 * 3
    assert not provisional.is_complete
    with pytest.raises(ValueError, match="pair 5"):
        complete.completed_with(frame(3, number=3))


def test_content_key_depends_on_pixels_order_shape_and_completeness_only():
    # given
    one, other = frame(1), frame(2)
    wide = Frame(image(1, (2, 12, 3)), 0.5, 1, 0.0, "")
    keys = {
        "provisional": FramePair(1, one, None).content_key,
        "repeated": FramePair(1, one, frame(1)).content_key,
        "two images": FramePair(1, one, other).content_key,
        "swapped": FramePair(1, other, one).content_key,
        "other shape": FramePair(1, wide, None).content_key,
    }

    # then
    assert len(set(keys.values())) == len(keys)
    assert {len(key) for key in keys.values()} == {16}
    later = FramePair(9, frame(1, number=8, importance=0.9, reason="scene change"), frame(2, number=9))
    assert later.content_key == keys["two images"]


def test_images_are_hashed_once_when_a_key_is_used(monkeypatch):
    # given
    hashed = []
    sha256 = hashlib.sha256
    monkeypatch.setattr(hashlib, "sha256", lambda: hashed.append(1) or sha256())
    memory = SmartFrameManager(4, 4)
    for number in range(3):
        memory.add(image(number), number / 2)
    assert not hashed

    # when
    provisional = [kept.content_key for kept in memory.snapshot()]
    memory.add(image(3), 1.5)
    complete = [kept.content_key for kept in memory.snapshot()]

    # then
    assert (complete[0], complete[1] != provisional[1]) == (provisional[0], True)
    images, pairs = 4, 3  # one pair was provisional, and is another one now
    assert len(hashed) == images + pairs


@pytest.mark.parametrize(
    ("first", "second", "importance", "reason"),
    [
        ((0.9, "scene change"), (0.7, "novel view"), 0.9, "scene change"),
        ((0.7, "novel view"), (0.9, "scene change"), 0.9, "scene change"),
        ((0.1, ""), (0.7, "novel view"), 0.7, "novel view"),
        ((0.1, ""), (0.2, ""), 0.2, ""),
        ((0.8, "novel view"), None, 0.8, "novel view"),
    ],
)
def test_pair_has_importance_and_reason_of_its_more_important_frame(first, second, importance, reason):
    # when
    partner = second and frame(2, number=2, importance=second[0], reason=second[1])
    pair = FramePair(1, frame(1, importance=first[0], reason=first[1]), partner)

    # then
    assert pair.importance == importance
    assert pair.reason == reason


def test_kept_pair_has_the_attributes_of_its_pair():
    # given
    pair = FramePair(3, frame(1, importance=0.8, reason="novel view"), frame(2, number=2))

    # when
    kept = KeptPair(pair, in_star=True, in_stream=False)

    # then
    for name in ("id", "stamps", "importance", "reason", "frame_count", "content_key"):
        assert getattr(kept, name) == getattr(pair, name)
    assert all(one is other for one, other in zip(kept.frames, pair.frames, strict=True))
