"""``bench journal-cost``."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from lab.commands.output import AsJson, Device, Model, print_result
from lab.commands.room_streams import seeds_of

_ROOMS = ("lively", "visits")
_CAPTIONS = 20


def journal_cost(
    model: Model = "demo",
    device: Device = "auto",
    streams: Annotated[int, typer.Option(help="Streams of each kind of room.", min=1)] = 2,
    minutes: Annotated[float, typer.Option(help="Length of each stream in minutes.", min=0.5)] = 60.0,
    rows: Annotated[int, typer.Option(help="Lines of the journal that is searched.", min=1)] = 100_000,
    as_json: AsJson = False,
) -> None:
    """Measure pairs that leave Star memory in an hour, the device time of their captions, and the journal's file."""
    # These import torch.
    import torch  # noqa: PLC0415

    from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine  # noqa: PLC0415
    from lab.bench.journal_cost import caption_sec, cost_json, evicted_pairs, store_json  # noqa: PLC0415

    torch.set_num_threads(1)  # processor time and device time are equal
    engine = DelayedBatchInferenceEngine.from_pretrained(model, device=device)
    rooms = {}
    for room in _ROOMS:
        every = [
            evicted_pairs(engine, seed, room, minutes, _CAPTIONS) for seed in seeds_of("held-out", streams)[:streams]
        ]
        pairs = [kept for _, first in every for kept in first]
        seconds = caption_sec(engine, pairs)
        counts = [count / minutes * 60.0 for count, _ in every]
        rooms[room] = {"caption_sec": round(seconds, 3), "streams": [cost_json(one, seconds) for one in counts]}
    with tempfile.TemporaryDirectory() as folder:
        store = store_json(Path(folder), rows)
    shape = {"model": model, "minutes": minutes, "load": [round(load, 1) for load in os.getloadavg()]}
    print_result({"shape": shape, "rooms": rooms, "store": store}, as_json=as_json)
