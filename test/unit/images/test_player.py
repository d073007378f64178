"""Player: pace, loop, retry, end and close, with fake sources."""

from __future__ import annotations

import threading
import time

import pytest

from delayed_vlm_ros.errors import VideoSourceError
from delayed_vlm_ros.images.player import Player

PATIENCE_SEC = 10.0


class FakeSource:
    """A source of images; an exception among them is raised."""

    def __init__(self, *images):
        self.images = images
        self.is_closed = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.is_closed = True


class FakeSchedule:
    def __init__(self, seconds):
        self.seconds = seconds

    def seconds_until(self, due):
        return self.seconds + due

    def delay(self, seconds):
        self.seconds += seconds


class Recorder:
    """Records the images and events of a player."""

    def __init__(self):
        self.images = []
        self.events = []
        self.finished = threading.Event()

    def play(self, source):
        for image in source.images:
            if isinstance(image, Exception):
                raise image
            self.images.append(image)
        return len(source.images)

    def on_finish(self, error):
        self.events.append(("finish", error))
        self.finished.set()


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def make_player(recorder):
    """Make a player of a list of sources; an exception in the list is raised when it is opened."""
    players = []

    def make(sources, play=recorder.play, **arguments):
        remaining = iter(sources)

        def reopen():
            source = next(remaining)
            if isinstance(source, Exception):
                raise source
            return source

        arguments = {"loop": False, **arguments}
        players.append(
            Player(
                next(remaining),
                play,
                reopen=reopen,
                on_open=lambda source: recorder.events.append(("open", source)),
                on_retry=lambda error: recorder.events.append(("retry", error)),
                on_late=lambda: recorder.events.append(("late", None)),
                on_finish=recorder.on_finish,
                **arguments,
            )
        )
        return players[-1]

    yield make
    for player in players:
        assert player.close(PATIENCE_SEC)


def test_source_is_played_once_and_closed(make_player, recorder):
    source = FakeSource(1, 2)
    player = make_player([source])
    player.start()
    assert recorder.finished.wait(PATIENCE_SEC)
    assert recorder.images == [1, 2]
    assert recorder.events == [("open", source), ("finish", None)]
    assert player.status.has_ended
    assert source.is_closed


def test_looped_source_is_opened_again_until_it_has_no_images(make_player, recorder):
    sources = [FakeSource(1), FakeSource(2), FakeSource()]
    make_player(sources, loop=True).start()
    assert recorder.finished.wait(PATIENCE_SEC)
    assert recorder.images == [1, 2]
    assert recorder.events == [("open", sources[0]), ("finish", None)]
    assert all(source.is_closed for source in sources)


def test_failed_source_is_retried_and_reported_once(make_player, recorder):
    error = VideoSourceError("unplugged")
    first, second = FakeSource(1, error), FakeSource(2)
    player = make_player([first, VideoSourceError("still unplugged"), second], retry_sec=0.01)
    player.start()
    assert recorder.finished.wait(PATIENCE_SEC)
    assert recorder.images == [1, 2]
    assert recorder.events == [("open", first), ("retry", error), ("open", second), ("finish", None)]
    assert player.status.error == ""
    assert first.is_closed


@pytest.mark.parametrize(
    ("error", "retry_sec"), [(VideoSourceError("damaged"), None), (RuntimeError("a defect"), 0.01)]
)
def test_error_without_retry_ends_playback(make_player, recorder, error, retry_sec):
    player = make_player([FakeSource(1, error), FakeSource(2)], retry_sec=retry_sec)
    player.start()
    assert recorder.finished.wait(PATIENCE_SEC)
    assert recorder.images == [1]
    assert recorder.events[-1] == ("finish", error)
    assert player.status.error == str(error)
    assert not player.status.has_ended


def test_close_times_out_while_an_image_is_decoding(make_player, recorder):
    # given
    reading, release = threading.Event(), threading.Event()

    def play(source):
        reading.set()
        release.wait()
        return 1

    player = make_player([FakeSource(1)], play=play)
    player.start()
    assert reading.wait(PATIENCE_SEC)
    # when
    assert not player.close(timeout_sec=0.01)
    # then the thread ends after the read, and reports nothing
    release.set()
    assert player.close(PATIENCE_SEC)
    assert not recorder.finished.is_set()


def test_close_before_start_returns(make_player):
    assert make_player([FakeSource(1)]).close()


def test_close_interrupts_a_wait(make_player, recorder):
    results = []
    waiting = threading.Event()

    def play(source):
        waiting.set()
        results.append(player.wait_until(FakeSchedule(3600.0), 0.0))
        return 1

    player = make_player([FakeSource(1)], play=play)
    player.start()
    assert waiting.wait(PATIENCE_SEC)
    assert player.close(PATIENCE_SEC)
    assert results == [False]


def test_wait_calls_back_until_it_is_over(make_player):
    player = make_player([FakeSource(1)])
    calls = []
    began = time.monotonic()
    assert player.wait(0.1, lambda: calls.append(time.monotonic()))
    assert time.monotonic() - began >= 0.1
    assert calls
    assert player.wait(-1.0, lambda: calls.append(None))
    assert None not in calls


@pytest.mark.parametrize(("late_sec", "remaining_sec", "is_reported"), [(0.5, -0.5, False), (3.0, 0.0, True)])
def test_image_later_than_a_second_postpones_the_following_ones(
    make_player, recorder, late_sec, remaining_sec, is_reported
):
    schedule = FakeSchedule(-late_sec)
    assert make_player([FakeSource(1)]).wait_until(schedule, 0.0)
    assert schedule.seconds == pytest.approx(remaining_sec)
    assert (("late", None) in recorder.events) == is_reported
