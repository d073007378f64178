"""Recall of searches in synthetic rooms: which events count, and ``bench find``."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from delayed_vlm_ros.scenes.sprites import PERSON
from lab.__main__ import app
from lab.bench import find as bench
from lab.bench.watched_rooms import Visit, WatchedObject


def watched(*visits, unclear=()):
    """Return an object that is visible in some times, unclearly at some stamps, of frames every half second."""
    stamps = [0.5 * number for number in range(200)]
    truths = {
        stamp: None if stamp in unclear else any(visit.begin <= stamp <= visit.end for visit in visits)
        for stamp in stamps
    }
    return WatchedObject("red box", "", visits, truths)


def test_pair_shows_an_event_only_if_both_images_show_it_clearly():
    visit = Visit(10.0, 20.0, 10.0)
    one = watched(visit, unclear=(12.0,))
    assert bench._shows(one, visit, (10.0, 10.5))
    assert not bench._shows(one, visit, (9.5, 10.0))
    assert not bench._shows(one, visit, (12.0, 12.5))
    assert not bench._shows(one, visit, (20.0, 20.5))


def test_event_is_found_by_a_pair_that_overlaps_it_and_counts_once():
    events = [Visit(10.0, 20.0, 10.0), Visit(30.0, 40.0, 30.0)]
    assert bench._found(events, [(19.5, 20.5), (11.0, 11.5)]) == 1
    assert bench._found(events, [(20.5, 29.5)]) == 0
    assert bench._found(events, [(15.0, 35.0)]) == 2
    many = [Visit(float(number), number + 0.5, None) for number in range(0, 100, 2)]
    assert (bench._countable(many), bench._found(many, [(0.0, 100.0)])) == (10, 10)


def test_descriptions_are_in_the_words_of_the_model():
    assert [bench.describe(one) for one in ("red box", "orange ball", "green", "cone", PERSON)] == [
        "a red box",
        "an orange ball",
        "a green object",
        "a cone",
        "anyone",
    ]


def test_command_prints_recall_and_the_cost_of_the_journal(tmp_path):
    arguments = "--room visits --streams 1 --minutes 1.5 --star 6 --stream 6 --journal --worlds tuning --json --work"
    shown = [CliRunner().invoke(app, ["bench", "find", *arguments.split(), str(tmp_path)]) for _ in range(2)]
    assert shown[0].exit_code == 0, shown[0].output
    first, again = (json.loads(one.stdout) for one in shown)
    assert first["all"] == again["all"]  # kept in the folder
    whole = first["all"]
    assert whole["kept_events"] > 0
    assert whole["recall_first_10"]["search"]["mean"] >= 0.5
    assert whole["journal"]["lines_per_hour"] > 0
