"""``bench watches`` and ``bench watch-cost``."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from delayed_vlm_ros.cli.bench import random_model_setup
from delayed_vlm_ros.cli.progress import elapsed_time, remaining_time
from delayed_vlm_ros.errors import BadRequestError
from delayed_vlm_ros.memory import MemoryConfig
from delayed_vlm_ros.watches import Watch, check_watch
from lab.commands.output import AsJson, Device, Model, print_json
from lab.commands.room_streams import chosen_rooms, seeds_of

if TYPE_CHECKING:
    from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine
    from lab.bench.watches import RoomGrade, WatchPlan

_ROOMS = ("lively", "visits")
_WORD_SCENES = 20
_DEMO = "demo"
_ANSWER_TOKENS = (16, 1)


def watches(
    model: Model = _DEMO,
    device: Device = "auto",
    room: Annotated[
        list[str] | None, typer.Option(help="lively (objects come and go) or visits (for 3 to 10 s); repeatable.")
    ] = None,
    streams: Annotated[int, typer.Option(help="Streams of each kind of room.", min=1)] = 60,
    compared: Annotated[int, typer.Option(help="Streams of each that the other methods see, too.", min=0)] = 10,
    minutes: Annotated[float, typer.Option(help="Length of each stream in minutes.", min=0.5)] = 3.0,
    threshold: Annotated[
        float, typer.Option(help="Probability of yes from which a check counts as yes.")
    ] = Watch.threshold,
    release: Annotated[float, typer.Option(help="Probability of yes below which yes ends.")] = Watch.release,
    hold: Annotated[float, typer.Option(help="Seconds for which all checks must count as yes.")] = Watch.hold_sec,
    confirm: Annotated[
        tuple[int, int], typer.Option(help="Instead: checks that must count as yes, and of how many.")
    ] = (Watch.yes_checks, Watch.of_checks),
    last: Annotated[float, typer.Option(help="Seconds before the newest frame that questions are about.")] = (
        Watch.last_sec
    ),
    every: Annotated[float, typer.Option(help="Seconds between two checks.")] = Watch.period_sec,
    star: Annotated[int, typer.Option(help="Frames in Star memory.", min=2)] = MemoryConfig.star_memory_size,
    stream: Annotated[int, typer.Option(help="Frames in Stream memory.", min=2)] = MemoryConfig.stream_window_size,
    worlds: Annotated[str, typer.Option(help="Seeds of the scenes: held-out or tuning.")] = "held-out",
    work: Annotated[
        Path | None, typer.Option(help="Folder for the result of each stream; a further run makes the missing ones.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure the alerts of watches against the truth, and those of decoded answers."""
    rooms = chosen_rooms(room, _ROOMS)
    pool = seeds_of(worlds, streams)
    settings = replace(
        Watch("watch", "?", last_sec=last, period_sec=every, threshold=threshold, release=release),
        hold_sec=hold,
        yes_checks=confirm[0],
        of_checks=confirm[1],
    )
    try:
        check_watch(settings)
    except BadRequestError as error:
        raise typer.BadParameter(str(error)) from error
    console = Console(stderr=as_json)

    # These import torch.
    import torch  # noqa: PLC0415

    from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine  # noqa: PLC0415
    from lab.bench import unknown_words  # noqa: PLC0415
    from lab.bench.watches import ANSWERS, CLIPS, METHODS, WATCHES, WatchPlan, grades_json  # noqa: PLC0415

    torch.set_num_threads(1)  # processor time and duration of a check are equal
    with console.status("loading the model"):
        engine = DelayedBatchInferenceEngine.from_pretrained(model, device=device)
    plans = [WatchPlan(settings, one, minutes, star=star, stream=stream) for one in rooms]
    shown = {WATCHES: streams, ANSWERS: min(compared, streams), CLIPS: min(compared, streams)}
    grades = {
        (method, plan.room): _graded(console, engine, model, pool[: shown[method]], plan, method, work)
        for method in METHODS
        for plan in plans
    }
    words = list(unknown_words.score_unknown_words(engine, pool[: min(streams, _WORD_SCENES)]))
    result = {
        "shape": {
            "model": model,
            "worlds": worlds,
            "minutes": minutes,
            "star_frames": star,
            "stream_frames": stream,
            "load": [round(load, 1) for load in os.getloadavg()],
            **{name: getattr(settings, name) for name in _SETTINGS},
        },
        "rooms": {one: grades_json(grades[WATCHES, one]) for one in rooms},
        "all": grades_json([grade for one in rooms for grade in grades[WATCHES, one]]),
        "compared": {
            method: grades_json([grade for one in rooms for grade in grades[method, one][:compared]])
            for method in METHODS
            if compared
        },
        "unknown_words": unknown_words.unknown_words_json(words),
    }
    if as_json:
        print_json(result)
        return
    _show(console, result)


_SETTINGS = ("threshold", "release", "hold_sec", "yes_checks", "of_checks", "last_sec", "period_sec")


def _graded(
    console: Console,
    engine: DelayedBatchInferenceEngine,
    model: str,
    seeds: Sequence[int],
    plan: WatchPlan,
    method: str,
    work: Path | None,
) -> list[RoomGrade]:
    """Return the grades of a method, and keep those of each stream in a folder, by model and plan."""
    from lab.bench.watches import watch_room  # noqa: PLC0415  imports torch

    folder = None
    if work is not None:
        described = json.dumps([model, method, asdict(plan)], default=str, sort_keys=True)
        folder = work / hashlib.sha256(described.encode()).hexdigest()[:12]
        folder.mkdir(parents=True, exist_ok=True)
    grades = []
    with remaining_time(console) as progress:
        for seed in progress.track(seeds, description=f"{plan.room} rooms, {method}"):
            file = None if folder is None else folder / f"{seed}.pickle"
            if file is not None and file.exists():
                grades.append(pickle.loads(file.read_bytes()))  # noqa: S301  written below
                continue
            grades.append(watch_room(engine, seed, plan, method))
            if file is not None:
                file.write_bytes(pickle.dumps(grades[-1]))
    return grades


def _show(console: Console, result: dict[str, Any]) -> None:
    table = Table(
        title="Alerts of watches", caption="false/h: watches of objects that never come; time/h: on the device"
    )
    for heading in ("", "events", "precision", "recall", "F1", "delay", "false/h", "time/h"):
        table.add_column(heading, justify="right" if heading else "left")
    rows = {**result["rooms"], "all": result["all"]} | {
        f"{name} (part)": one for name, one in result["compared"].items()
    }
    for name, one in rows.items():
        table.add_row(
            name,
            str(one["events"]),
            _text(one["precision"], 3),
            _text(one["recall"], 3),
            f"{one['f1']['mean']:.3f}",
            _text(one["delay_sec"]["median"], 1, " s"),
            _text(one["absent_false_alarms_per_hour"], 2),
            _text(one["device_sec_per_hour"], 0, " s"),
        )
    console.print(table)
    words = result["unknown_words"]
    console.print(
        f"questions with unknown words: {words['unknown_share']:.1%} of {words['outcomes']} outcomes are unknown"
    )


def _text(value: float | None, digits: int, unit: str = "") -> str:
    return "" if value is None else f"{value:.{digits}f}{unit}"


def watch_cost(
    shape: Annotated[
        str, typer.Option(help="Random-weight model as for 'delayed-vlm bench ask', or 'demo': the embedded model.")
    ] = _DEMO,
    tokens_per_pair: Annotated[int, typer.Option(help="Merged tokens per pair; not for 'demo'.", min=4)] = 64,
    pairs: Annotated[int, typer.Option(help="Pairs in memory.", min=4)] = 20,
    runs: Annotated[int, typer.Option(help="Number of rounds.", min=1)] = 9,
    last: Annotated[float, typer.Option(help="Window on a moving scene in seconds.", min=1.0)] = Watch.last_sec,
    device: Device = "cpu",
    dtype: Annotated[str, typer.Option(help="Number format of random weights.")] = "float32",
    seed: Annotated[int, typer.Option(help="Seed of weights and images.", min=0)] = 3,
    as_json: AsJson = False,
) -> None:
    """Measure twenty watches against decoded answers and native inference, and checks of a moving scene."""
    # These import torch.
    import torch  # noqa: PLC0415

    from delayed_vlm_ros.benchmark.ask_cost import BenchmarkSetup  # noqa: PLC0415
    from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine  # noqa: PLC0415
    from lab.bench import watch_cost as bench  # noqa: PLC0415

    torch.set_num_threads(1)
    console = Console(stderr=as_json)
    if shape == _DEMO:
        engine = DelayedBatchInferenceEngine.from_pretrained(_DEMO, device=device)
        size = engine.model.config.frame_size
        setup = BenchmarkSetup(engine.model, engine.processor, (size[0], size[1]), pairs, canonical=True)
    else:
        setup = random_model_setup(shape, tokens_per_pair, pairs, seed, canonical=True, device=device, dtype=dtype)
    plan = bench.WatchCostPlan(setup, last, _ANSWER_TOKENS, has_random_weights=shape != _DEMO)
    rounds = []
    with elapsed_time(console) as progress:
        for times in progress.track(bench.measure(plan, runs, seed), total=runs, description="rounds"):
            rounds.append(times)  # noqa: PERF402  the bar follows the loop
    result = {
        "shape": {
            "name": shape,
            "parameters": setup.model.num_parameters(),
            "pairs": pairs,
            "tokens_per_pair": setup.tokens_per_pair,
            "question_tokens": bench.question_tokens(setup),
            "device": str(setup.model.device),
            "runs": runs,
            "load": [round(load, 1) for load in os.getloadavg()],
        },
        **bench.cost_json(rounds, _ANSWER_TOKENS),
    }
    if as_json:
        print_json(result)
        return
    for name, value in (*result["ratios"].items(), *result["median_sec"].items()):
        console.print(f"{name}: {value:g}", highlight=False)
