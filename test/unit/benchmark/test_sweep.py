"""A memory's parameters one against the other."""

from __future__ import annotations

import csv
import json
import multiprocessing
import time
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from delayed_vlm_ros.benchmark import sweep
from delayed_vlm_ros.benchmark.sweep import Cell, CostUnit, PatrolUnit, ResultStore
from delayed_vlm_ros.cli.main import app

UNIT = PatrolUnit(Cell(10, 10, 0.6, 12544), seed=0, hours=0.05, events=2, places=2)
SMALL = ["sweep", "--star", "10", "--stream", "10", "--importance-threshold", "0.6", "--hours", "0.05", "--seeds", "1",
         "--events", "2", "--places", "2", "--shape", "tiny", "--json"]  # fmt: skip


@pytest.fixture
def shown(monkeypatch):
    """The units that are really worked on, in their order."""
    units = []

    def counting(unit, show=sweep.show_patrol):
        units.append(unit)
        return show(unit)

    monkeypatch.setattr(sweep, "show_patrol", counting)
    return units


def _run(out, *pixels):
    chosen = [part for one in pixels for part in ("--max-pixels", one)]
    done = CliRunner().invoke(app, [*SMALL, *chosen, "--out", str(out)])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)["cells"]


def test_the_command_measures_only_what_is_missing(tmp_path, shown, monkeypatch):
    # when
    (only,) = _run(tmp_path, "3136")

    # then
    assert 0.0 <= only["evidence_low"] <= only["evidence"] <= only["evidence_high"] <= 1.0
    assert only["places"] > 0.0
    assert only["kept_pairs"] <= 10
    assert only["bytes"] == only["image_bytes"] + only["feature_bytes"] + only["kv_bytes"]
    assert only["first_ask_sec"] > 0.0
    assert only["best"]
    assert len(shown) == 1

    # when one more is asked for, after an interruption in the middle of a line
    with (tmp_path / sweep.LINES_FILE).open("a") as file:
        file.write('{"key": "torn')
    cells = _run(tmp_path, "12544", "3136")

    # then
    assert len(shown) == 2
    assert [one["max_pixels"] for one in cells] == [3136, 12544]
    assert cells[0] == only | {"best": cells[0]["best"]}
    assert cells[0]["image_bytes"] < cells[1]["image_bytes"]
    with (tmp_path / "sweep.csv").open() as file:
        assert [row["max_pixels"] for row in csv.DictReader(file)] == ["3136", "12544"]
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert _run(tmp_path, "12544", "3136") == cells
    assert len(shown) == 2

    # when what is kept is decided by other code
    monkeypatch.setattr(sweep, "_memory_code", lambda: "other")
    _run(tmp_path, "3136")

    # then
    assert len(shown) == 3


def test_an_interruption_ends_the_processes():
    # given more work than is taken
    units = [replace(UNIT, seed=seed, hours=hours) for seed, hours in enumerate((0.05, 2.0, 2.0, 2.0))]
    working = sweep.show_patrols(units, jobs=2)
    unit, kept = next(working)
    assert unit == units[0]
    assert kept["kept_pairs"] > 0

    # when
    with pytest.raises(KeyboardInterrupt):
        working.throw(KeyboardInterrupt)

    # then
    until = time.monotonic() + 20.0
    while multiprocessing.active_children():
        assert time.monotonic() < until, "they work on"
        time.sleep(0.05)


def test_lines_are_on_the_disk_at_once(tmp_path):
    # given
    lines = ResultStore(tmp_path)
    lines.add("one", {"evidence": 0.5})
    (tmp_path / sweep.LINES_FILE).open("a").write("half a li")

    # when
    again = ResultStore(tmp_path)
    again.add("two", {"evidence": 0.25})

    # then
    assert "one" in again
    last = ResultStore(tmp_path)
    assert (last["one"], last["two"]) == ({"evidence": 0.5}, {"evidence": 0.25})


def test_the_best_are_those_that_nothing_beats(tmp_path):
    # given
    found = {(10, 100): 0.5, (20, 200): 0.4, (40, 300): 0.7, (60, 300): 0.7}
    lines, patrols, costs = ResultStore(tmp_path), [], {}
    for (star, size), evidence in found.items():
        unit = replace(UNIT, cell=replace(UNIT.cell, star_memory_size=star))
        patrols.append(unit)
        costs[unit.cell] = CostUnit(star, 12544, "tiny", "cpu")
        lines.add(unit.key, {"evidence": evidence, "places": 1.0, "kept_pairs": 3})
        lines.add(costs[unit.cell].key, {"bytes": size})

    # when
    table = sweep.rows(patrols, costs, lines)

    # then
    assert [(row["star_memory_size"], row["best"]) for row in table] == [
        (10, True),
        (20, False),
        (40, True),
        (60, True),
    ]


def test_what_cannot_work_is_refused_at_once(tmp_path):
    out = ["--out", str(tmp_path / "not made")]
    assert CliRunner().invoke(app, ["sweep", "--shape", "huge", *out]).exit_code == 2
    assert CliRunner().invoke(app, ["sweep", "--importance-threshold", "2", *out]).exit_code == 2
    assert "star" in str(CliRunner().invoke(app, ["sweep", "--star", "1", *out]).exception)
    assert not (tmp_path / "not made").exists()
