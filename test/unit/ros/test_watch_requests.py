"""Settings of a watch in a message."""

import pytest

from delayed_vlm_ros.ros.scene_memory.parameters import SceneMemoryParameters
from delayed_vlm_ros.ros.services.watch_requests import parse_watch
from delayed_vlm_ros.watches import Watch

messages = pytest.importorskip("delayed_vlm_ros.msg")


def parsed(**fields):
    settings = messages.WatchSettings(name="door", question="Is the door open?", **fields)
    return parse_watch(settings, SceneMemoryParameters())


def test_zeros_are_defaults():
    assert parsed() == Watch("door", "Is the door open?")


@pytest.mark.parametrize(
    ("yes_checks", "of_checks", "expected"),
    [(0, 0, (2, 2)), (1, 0, (1, 2)), (3, 0, (3, 3)), (0, 4, (2, 4)), (3, 5, (3, 5))],
)
def test_missing_count_follows_from_the_other_one(yes_checks, of_checks, expected):
    watch = parsed(yes_checks=yes_checks, of_checks=of_checks)
    assert (watch.yes_checks, watch.of_checks) == expected
