"""Arbitrary histories of a camera's clock: the memory stays in order, invents no time, and the model sees the order."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
from fuzzing import check_message, fuzz
from hypothesis import strategies as st

from delayed_vlm_ros.errors import ImageError
from delayed_vlm_ros.inference.local.positions import temporal_ids
from delayed_vlm_ros.ingest.geometry import FrameGeometry
from delayed_vlm_ros.ingest.ingestor import SamplingIngestor
from delayed_vlm_ros.memory import SmartFrameManager

SECOND = 10**9
START = 1_700_000_000.0
IMAGE = np.zeros((8, 8, 3), np.uint8)
MODEL = SimpleNamespace(model_type="qwen2_5_vl", vision_config=SimpleNamespace(tokens_per_second=2))

LEAPS = st.sampled_from([6.0, 60.0, 3600.0, 7200.0, 86400.0, 30 * 86400.0, 1.69e9])
LEAP_AHEAD, LEAP_BACK, SILENCE, QUEUED, FLAPPING, FROZEN, SLOW, RIGHT = SEGMENTS = (
    "leap ahead",
    "leap back",
    "silence",
    "queued",
    "flapping",
    "frozen",
    "slow",
    "right",
)
HISTORIES = st.lists(st.tuples(st.sampled_from(SEGMENTS), LEAPS, st.integers(1, 12)), min_size=1, max_size=6)


def images_of(history):
    """Return stamp and arrival time of every image of a 2 Hz camera, in seconds, and the total length of silences."""
    images, arrival, offset, silences = [], 100.0, START, 0.0
    for kind, leap, count in history:
        if kind == QUEUED:  # images of the silence's start arrive together at its end
            images += [(arrival + offset + 0.1 * number, arrival + leap) for number in range(1, count + 1)]
        if kind in (SILENCE, QUEUED):
            arrival += leap
            silences += leap
        offset += {LEAP_AHEAD: leap, LEAP_BACK: -leap, SLOW: -0.1}.get(kind, 0.0)
        frozen = arrival + offset
        for number in range(count):
            arrival += 0.5
            stamp = frozen if kind == FROZEN else arrival + offset
            if kind == FLAPPING and number // 4 % 2:
                stamp += leap
            if kind == SLOW:
                stamp = frozen + number * 0.02
            images.append((max(stamp, 1.0), arrival))
        if kind == RIGHT:
            offset = START
    return images, silences


@fuzz(history=HISTORIES, restarts=st.booleans(), sizes=st.sampled_from([(4, 4), (20, 20), (0, 40)]))
def test_any_history_of_the_clock_keeps_order_and_invents_no_time(history, restarts, sizes):
    # given
    memory = SmartFrameManager(*sizes)
    geometry = FrameGeometry(factor=2, min_pixels=4, max_pixels=400)
    ingestor = SamplingIngestor(geometry, memory, 2.0, topic="/image", restart_on_jump=restarts)
    images, silences = images_of(history)

    # when
    for stamp, arrival in images:
        arrival_ns = round(arrival * SECOND)
        try:
            decision = ingestor.decide(ingestor.usable_stamp(round(stamp * SECOND), arrival_ns), arrival, arrival_ns)
            if decision.is_due:
                ingestor.add(IMAGE, decision)
        except ImageError as error:
            check_message(error)

    # then
    snapshot = memory.snapshot()
    stamps = [frame.stamp for kept in snapshot for frame in kept.pair.present_frames]
    assert stamps
    assert all(earlier < later for earlier, later in pairwise(stamps))
    if not silences:  # during a silence of an hour, a leap of half an hour looks like time that passed
        # after a start and each restart, a recording may play at up to 100 times real time until its speed is measured
        unmeasured = 600.0 * len(history)
        assert stamps[-1] - stamps[0] <= images[-1][1] - images[0][1] + 6.0 * len(images) + unmeasured
    times = temporal_ids(MODEL, [kept.stamps[0] for kept in snapshot], 2000)
    assert all(earlier < later for earlier, later in pairwise(times.ids))
    assert times.ids[-1] <= 2000
