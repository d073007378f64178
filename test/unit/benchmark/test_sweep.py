"""The sweep over the memory's parameters: resuming, storage of results, and the result table."""

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
def measured(monkeypatch):
    """Patrol units that are measured, in order."""
    units = []

    def counting(unit, run=sweep.run_patrol):
        units.append(unit)
        return run(unit)

    monkeypatch.setattr(sweep, "run_patrol", counting)
    return units


def _run(out, *pixels):
    chosen = [part for one in pixels for part in ("--max-pixels", one)]
    done = CliRunner().invoke(app, [*SMALL, *chosen, "--out", str(out)])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)["cells"]


def test_command_measures_only_missing_results(tmp_path, measured, monkeypatch):
    # when
    (only,) = _run(tmp_path, "3136")

    # then
    assert 0.0 <= only["evidence_low"] <= only["evidence"] <= only["evidence_high"] <= 1.0
    assert only["places"] > 0.0
    assert only["kept_pairs"] <= 10
    assert only["bytes"] == only["image_bytes"] + only["feature_bytes"] + only["kv_bytes"]
    assert only["first_ask_sec"] > 0.0
    assert only["best"]
    assert len(measured) == 1

    # when one more cell is requested after an interruption in the middle of a line
    with (tmp_path / sweep.RESULTS_FILE).open("a") as file:
        file.write('{"key": "torn')
    cells = _run(tmp_path, "12544", "3136")

    # then
    assert len(measured) == 2
    assert [one["max_pixels"] for one in cells] == [3136, 12544]
    assert cells[0] == only | {"best": cells[0]["best"]}
    assert cells[0]["image_bytes"] < cells[1]["image_bytes"]
    with (tmp_path / "sweep.csv").open() as file:
        assert [row["max_pixels"] for row in csv.DictReader(file)] == ["3136", "12544"]
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert _run(tmp_path, "12544", "3136") == cells
    assert len(measured) == 2

    # when the code of the memory changes
    monkeypatch.setattr(sweep, "_memory_code", lambda: "other")
    _run(tmp_path, "3136")

    # then
    assert len(measured) == 3


def test_interruption_ends_the_processes():
    # given more results than are read
    units = [replace(UNIT, seed=seed, hours=hours) for seed, hours in enumerate((0.05, 2.0, 2.0, 2.0))]
    results = sweep.run_patrols(units, jobs=2)
    unit, kept = next(results)
    assert unit == units[0]
    assert kept["kept_pairs"] > 0

    # when
    with pytest.raises(KeyboardInterrupt):
        results.throw(KeyboardInterrupt)

    # then
    until = time.monotonic() + 20.0
    while multiprocessing.active_children():
        assert time.monotonic() < until, "processes still run"
        time.sleep(0.05)


def test_result_is_on_disk_when_add_returns(tmp_path):
    # given
    results = ResultStore(tmp_path)
    results.add("one", {"evidence": 0.5})
    (tmp_path / sweep.RESULTS_FILE).open("a").write("half a li")

    # when
    again = ResultStore(tmp_path)
    again.add("two", {"evidence": 0.25})

    # then
    assert "one" in again
    last = ResultStore(tmp_path)
    assert (last["one"], last["two"]) == ({"evidence": 0.5}, {"evidence": 0.25})


def test_best_cells_are_pareto_optimal(tmp_path):
    # given
    found = {(10, 100): 0.5, (20, 200): 0.4, (40, 300): 0.7, (60, 300): 0.7}
    results, patrols, costs = ResultStore(tmp_path), [], {}
    for (star, size), evidence in found.items():
        unit = replace(UNIT, cell=replace(UNIT.cell, star_memory_size=star))
        patrols.append(unit)
        costs[unit.cell] = CostUnit(star, 12544, "tiny", "cpu")
        results.add(unit.key, {"evidence": evidence, "places": 1.0, "kept_pairs": 3})
        results.add(costs[unit.cell].key, {"bytes": size})

    # when
    table = sweep.rows(patrols, costs, results)

    # then
    assert [(row["star_memory_size"], row["best"]) for row in table] == [
        (10, True),
        (20, False),
        (40, True),
        (60, True),
    ]


def test_invalid_option_is_rejected_before_anything_is_written(tmp_path):
    out = ["--out", str(tmp_path / "new")]
    assert CliRunner().invoke(app, ["sweep", "--shape", "huge", *out]).exit_code == 2
    assert CliRunner().invoke(app, ["sweep", "--importance-threshold", "2", *out]).exit_code == 2
    assert "star" in str(CliRunner().invoke(app, ["sweep", "--star", "1", *out]).exception)
    assert not (tmp_path / "new").exists()
