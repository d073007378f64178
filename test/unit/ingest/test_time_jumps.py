"""A camera's clock that is set: the memory's time continues, and a true gap remains a gap."""

import numpy as np
import pytest

from delayed_vlm_ros.errors import ImageError
from delayed_vlm_ros.ingest.geometry import FrameGeometry
from delayed_vlm_ros.ingest.ingestor import SamplingIngestor
from delayed_vlm_ros.memory import SmartFrameManager

SECOND = 10**9
START = 1_700_000_000.0  # seconds
HOUR, DAY = 3600.0, 86400.0
IMAGE = np.zeros((8, 8, 3), np.uint8)


class Camera:
    """A camera of 10 Hz, and a memory of its images."""

    def __init__(self, *, restarts=False, restored=()):
        self.memory = SmartFrameManager(200, 200)
        geometry = FrameGeometry(factor=2, min_pixels=4, max_pixels=400)
        self.ingestor = SamplingIngestor(geometry, self.memory, 2.0, topic="/image", restart_on_jump=restarts)
        if restored:
            self.ingestor.restore(restored)
        self.arrival = 0.0
        self.jumps = []
        self.rejected = 0

    def burst(self, images, stamp):
        """Add images that were queued; they arrive together."""
        return self.run(images / 10, stamp, speed=100.0)

    def run(self, seconds, stamp, *, clock_follows=False, speed=1.0):
        """Add images whose stamps start at ``stamp``; ``clock_follows``: arrival times jump with them."""
        if clock_follows:
            self.arrival = stamp
        for number in range(round(seconds * 10)):
            self.arrival += 0.1 / speed
            stamp_ns = round((stamp + number / 10) * SECOND)
            try:
                decision = self.ingestor.decide(stamp_ns, self.arrival, round(self.arrival * SECOND))
            except ImageError:
                self.rejected += 1
                continue
            if decision.jump_sec:
                self.jumps.append(decision.jump_sec)
            if decision.is_due:
                self.ingestor.add(IMAGE, decision)
        return self

    def gaps(self):
        """Return the gaps between consecutive kept frames, in seconds."""
        return np.diff([frame.stamp for kept in self.memory.snapshot() for frame in kept.pair.present_frames])


@pytest.mark.parametrize(("before", "after"), [(5.0, START), (START, START + HOUR), (START, START + 30 * DAY)])
@pytest.mark.parametrize("restarts", [False, True])
def test_leap_ahead_is_taken_out(before, after, restarts):
    # given ten seconds before the clock is set
    camera = Camera(restarts=restarts).run(10.0, before).run(10.0, after)
    # then
    assert camera.jumps == [pytest.approx(after - before - 10.0, abs=0.4)]
    assert len(camera.gaps()) == pytest.approx(39, abs=2)
    assert camera.gaps().max() <= 1.0
    assert camera.ingestor.offset_sec == pytest.approx(before + 10.0 - after, abs=0.4)


def test_repeated_leaps_ahead_are_each_taken_out():
    camera = Camera().run(10.0, 5.0).run(10.0, START).run(10.0, START + DAY).run(10.0, START + 40 * DAY)
    assert len(camera.jumps) == 3
    assert 0.0 < camera.gaps().min() <= camera.gaps().max() <= 1.0


@pytest.mark.parametrize("leap", [HOUR, -HOUR, 30 * DAY])
def test_stamps_are_used_again_when_the_clock_is_right_again(leap):
    # given a clock that is wrong for ten seconds, three times
    camera = Camera()
    for number in range(3):
        camera.run(10.0, START + 20 * number).run(10.0, START + 20 * number + 10 + leap)
    # when
    camera.run(10.0, START + 60)
    # then
    assert len(camera.jumps) == 6
    assert camera.ingestor.offset_sec == 0.0
    assert camera.memory.newest_stamp == pytest.approx(START + 69.6, abs=0.4)
    assert 0.0 < camera.gaps().min() <= camera.gaps().max() <= 2.0


@pytest.mark.parametrize("silence", [60.0, 5 * HOUR, 3 * DAY])
def test_silence_of_the_camera_is_a_gap_and_no_leap(silence):
    # given
    camera = Camera().run(10.0, START)
    # when
    camera.arrival += silence
    camera.run(10.0, START + 10.0 + silence)
    # then
    assert camera.jumps == []
    assert camera.ingestor.offset_sec == 0.0
    assert camera.gaps().max() == pytest.approx(silence, abs=1.0)


OUTAGES = [30.0, 5 * HOUR]


@pytest.mark.parametrize("outage", OUTAGES)
@pytest.mark.parametrize("queued", [1, 5, 200])
@pytest.mark.parametrize("repeats", [1, 3])
def test_queued_images_after_an_outage_then_live_ones_are_a_gap_and_no_jump(outage, queued, repeats):
    # given ten seconds of images
    camera = Camera().run(10.0, START)
    stamp = START + 10.0
    for _ in range(repeats):
        # when queued images arrive together after an outage, and live ones follow
        camera.arrival += outage
        camera.burst(queued, stamp)
        stamp += outage
        camera.run(10.0, stamp)
        stamp += 10.0
    # then
    assert camera.jumps == []
    assert camera.rejected == 0
    assert camera.ingestor.offset_sec == 0.0
    assert camera.gaps().max() == pytest.approx(outage - queued / 10, abs=1.0)


@pytest.mark.parametrize("seconds", [1.0, 20.0])
@pytest.mark.parametrize("speed", [2.0, 10.0])
def test_queued_images_of_a_fast_recording_then_live_ones_are_a_gap_and_no_jump(speed, seconds):
    # given
    camera = Camera().run(100.0, START, speed=speed)
    # when
    camera.arrival += 30.0
    camera.burst(round(seconds * 10), START + 100.0)
    camera.run(100.0, START + 100.0 + 30.0 * speed, speed=speed)
    # then
    assert camera.jumps == []
    assert camera.rejected == 0


@pytest.mark.parametrize("outage", OUTAGES)
def test_clock_set_after_an_outage_and_a_queued_image_leaves_the_silence(outage):
    # given
    camera = Camera().run(10.0, START)
    # when
    camera.arrival += outage
    camera.burst(1, START + 10.0)
    camera.run(10.0, START + DAY)
    # then
    assert camera.jumps == [pytest.approx(DAY - 10.0 - outage, abs=0.4)]
    assert camera.gaps().max() == pytest.approx(outage, abs=1.0)


def test_jump_after_the_end_of_an_outage_is_detected():
    # given an outage of a minute whose queued images and whose gap are over
    camera = Camera().run(10.0, START)
    camera.arrival += 60.0
    camera.burst(5, START + 10.0)
    camera.run(60.0, START + 70.0)
    # when the clock is set by less than the outage
    camera.run(10.0, START + 130.0 + 30.0)
    # then
    assert camera.jumps == [pytest.approx(30.0, abs=0.4)]


def test_clock_set_during_a_silence_leaves_the_silence():
    # given
    camera = Camera().run(10.0, 5.0)
    # when
    camera.arrival += HOUR
    camera.run(10.0, START)
    # then
    assert len(camera.jumps) == 1
    assert camera.gaps().max() == pytest.approx(HOUR, abs=1.0)


def test_leap_of_decades_is_taken_out_even_if_recording_times_show_it():
    # given a recorder whose clock was set as well
    camera = Camera().run(10.0, 5.0, clock_follows=True).run(10.0, START, clock_follows=True)
    # then
    assert len(camera.jumps) == 1
    assert camera.gaps().max() <= 1.0


def test_recording_times_that_jump_back_do_not_cost_an_image():
    # given
    camera = Camera().run(10.0, START)
    # when only the recorder's clock is set back
    camera.arrival -= HOUR
    camera.run(10.0, START + 10.0)
    # then
    assert camera.jumps == []
    assert camera.gaps().max() <= 0.6


def test_restored_frames_are_older_once_the_clock_is_right():
    # given key frames of yesterday, and a machine that starts in 1970
    yesterday = Camera().run(10.0, START - DAY).memory.snapshot()
    camera = Camera(restored=yesterday).run(10.0, 20.0)
    assert camera.ingestor.offset_sec > 0
    # when
    camera.run(10.0, START)
    # then
    assert camera.ingestor.offset_sec == 0.0
    assert camera.gaps().max() == pytest.approx(DAY, abs=60.0)
