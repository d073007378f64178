"""Metrics: readable as attributes and as a mapping."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from collections.abc import Mapping

import pytest

from delayed_vlm_ros.inference.metrics import AskMetrics

DOCUMENTED = {
    "total_latency",
    "generation_latency",
    "encoding_latency",
    "time_to_first_token",
    "frames_encoded",
    "frames_reused",
    "visual_tokens",
    "kv_cache_length",
    "kv_tokens_reused",
    "video_grid_thw",
    "exact",
    "warnings",
}


def metrics(encoding_latency=0.5):
    return AskMetrics(
        total_latency=1.0,
        encoding_latency=encoding_latency,
        generation_latency=0.5,
        time_to_first_token=0.6,
        frames_encoded=0,
        frames_reused=4,
        visual_tokens=24,
        kv_cache_length=80,
        kv_tokens_reused=0,
        answer_tokens=9,
        video_grid_thw=(2, 6, 8),
        exact=False,
        warnings=(),
    )


def test_metrics_have_the_documented_keys():
    # given
    some = metrics()

    # then
    assert isinstance(some, Mapping)
    assert set(some) >= DOCUMENTED
    assert set(some) == {field.name for field in dataclasses.fields(some)}
    assert len(some) == len(list(some)) == len(dict(some))
    assert all(some[name] == getattr(some, name) for name in some)


def test_encoding_latency_is_absent_when_nothing_was_encoded():
    # given
    some = metrics(encoding_latency=None)

    # then
    assert "encoding_latency" not in some
    assert "encoding_latency" not in list(some)
    assert set(some) | {"encoding_latency"} == set(metrics())
    assert len(some) == len(metrics()) - 1
    assert some.get("encoding_latency", 7) == 7
    assert some.encoding_latency is None
    with pytest.raises(KeyError, match="encoding_latency"):
        some["encoding_latency"]


def test_empty_and_zero_values_are_present():
    # given
    some = metrics(encoding_latency=0.0)

    # then
    assert some["encoding_latency"] == 0.0
    assert (some["frames_encoded"], some["exact"], some["warnings"]) == (0, False, ())


@pytest.mark.parametrize("key", ["nothing", "__class__", "_NAMES", "keys", 3, None, ()])
def test_unknown_keys_are_missing(key):
    assert key not in metrics()
    with pytest.raises(KeyError):
        metrics()[key]


def test_metrics_cannot_be_changed():
    # given
    some = metrics()

    # then
    with pytest.raises(dataclasses.FrozenInstanceError):
        some.exact = True
    with pytest.raises(TypeError):
        some["exact"] = True
    assert not hasattr(some, "__dict__")


def test_metrics_survive_json_copy_and_pickle():
    # given
    some = metrics(encoding_latency=None)

    # then
    assert json.loads(json.dumps(dict(some)))["video_grid_thw"] == [2, 6, 8]
    assert copy.deepcopy(some) == some == pickle.loads(pickle.dumps(some))
    assert metrics() != some
