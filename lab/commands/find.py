"""``bench find``."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from delayed_vlm_ros.cli.progress import remaining_time
from lab.commands.output import AsJson, Device, Model, print_result
from lab.commands.room_streams import chosen_rooms, seeds_of

_ROOMS = ("lively", "visits")


def find(
    model: Model = "demo",
    device: Device = "auto",
    room: Annotated[
        list[str] | None, typer.Option(help="lively (objects come and go) or visits (for 3 to 10 s); repeatable.")
    ] = None,
    streams: Annotated[int, typer.Option(help="Streams of each kind of room.", min=1)] = 3,
    minutes: Annotated[float, typer.Option(help="Length of each stream in minutes.", min=0.5)] = 120.0,
    star: Annotated[int, typer.Option(help="Frames in Star memory.", min=2)] = 100,
    stream: Annotated[int, typer.Option(help="Frames in Stream memory.", min=2)] = 20,
    journal: Annotated[bool, typer.Option("--journal", help="Caption evicted pairs, and search the captions.")] = False,
    worlds: Annotated[str, typer.Option(help="Seeds of the scenes: held-out or tuning.")] = "held-out",
    work: Annotated[
        Path | None, typer.Option(help="Folder for the result of each stream; a further run makes the missing ones.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure which described events a search finds among its first ten moments."""
    rooms = chosen_rooms(room, _ROOMS)
    pool = seeds_of(worlds, streams)
    console = Console(stderr=as_json)

    # These import torch.
    import torch  # noqa: PLC0415

    from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine  # noqa: PLC0415
    from lab.bench.find import FindPlan, StreamGrade, find_json, search_room  # noqa: PLC0415

    torch.set_num_threads(1)  # processor time and duration are equal
    with console.status("loading the model"):
        engine = DelayedBatchInferenceEngine.from_pretrained(model, device=device)
    grades: dict[str, list[StreamGrade]] = {}
    for one in rooms:
        plan = FindPlan(one, minutes, star, stream, journal)
        described = json.dumps([model, asdict(plan)], sort_keys=True)
        folder = None if work is None else work / hashlib.sha256(described.encode()).hexdigest()[:12]
        with remaining_time(console) as progress:
            for seed in progress.track(pool[:streams], description=f"{one} rooms"):
                file = None if folder is None else folder / f"{seed}.pickle"
                if file is not None and file.exists():
                    grade = pickle.loads(file.read_bytes())  # noqa: S301  written below
                else:
                    with tempfile.TemporaryDirectory() as empty:
                        grade = search_room(engine, seed, plan, Path(empty))
                    if file is not None:
                        file.parent.mkdir(parents=True, exist_ok=True)
                        file.write_bytes(pickle.dumps(grade))
                grades.setdefault(one, []).append(grade)
    result = {
        "shape": {
            "model": model,
            "worlds": worlds,
            "minutes": minutes,
            "star_frames": star,
            "stream_frames": stream,
            "load": [round(load, 1) for load in os.getloadavg()],
        },
        "rooms": {one: find_json(of_room) for one, of_room in grades.items()},
        "all": find_json([grade for of_room in grades.values() for grade in of_room]),
    }
    print_result(result, as_json=as_json)
