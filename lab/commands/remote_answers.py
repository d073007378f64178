"""``bench remote-answers``."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from delayed_vlm_ros.inference.remote.address import parse_address
from delayed_vlm_ros.inference.remote.settings import Encoding, RemoteSettings
from delayed_vlm_ros.scenes import HELD_OUT_SEEDS
from delayed_vlm_ros.scenes.schedule import SPACINGS
from lab.commands.output import AsJson, Device, Model, print_json

Server = Annotated[str, typer.Option(help="Address of the model server, such as openai:http://localhost:8000/v1.")]
FrameMultiple = Annotated[int, typer.Option(help="Patch size × merge size of the model, in pixels.", min=1)]
JpegQuality = Annotated[int, typer.Option(help="Quality of the frames that are sent.", min=1, max=100)]


def remote_answers(
    server: Server,
    model: Model = "demo",
    device: Device = "cpu",
    encoding: Annotated[list[Encoding] | None, typer.Option(help="How frames are sent; repeatable.")] = None,
    scenes: Annotated[int, typer.Option(help="Held-out scenes for each spacing.", min=1)] = 10,
    pairs: Annotated[int, typer.Option(help="Pairs in memory.", min=2)] = 12,
    frame_multiple: FrameMultiple = 28,
    jpeg_quality: JpegQuality = RemoteSettings.jpeg_quality,
    as_json: AsJson = False,
) -> None:
    """Compare answers of a server with those of the same checkpoint on this machine."""
    # These import torch and the client library.
    from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine  # noqa: PLC0415
    from delayed_vlm_ros.inference.remote.connection import ServerConnection  # noqa: PLC0415
    from lab.bench.remote_answers import compare_scene, compared_json  # noqa: PLC0415

    console = Console(stderr=as_json)
    seeds = HELD_OUT_SEEDS[1 : 1 + scenes]
    engine = DelayedBatchInferenceEngine.from_pretrained(model, device=device)
    figures = {}
    for one in encoding or [Encoding.VIDEO]:
        settings = RemoteSettings(one, jpeg_quality=jpeg_quality, frame_multiple=frame_multiple)
        connection = ServerConnection(parse_address(server), settings)
        for spacing in SPACINGS:
            drawn = track(seeds, f"{one.value}, {spacing} stamps", console=console, transient=True)
            answers = [
                answer for seed in drawn for answer in compare_scene(engine, connection, settings, seed, spacing, pairs)
            ]
            figures[f"{one.value}, {spacing} stamps"] = compared_json(answers)
        connection.close()
    if as_json:
        shape = {"model": model, "seeds": [seeds.start, seeds.stop], "pairs": pairs, "jpeg_quality": jpeg_quality}
        print_json({"shape": shape, "encodings": figures})
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("encoding and stamps", "questions", "equal answers", "correct here", "correct there"):
        table.add_column(heading, justify="left" if heading.startswith("encoding") else "right")
    for name, found in figures.items():
        shares = (f"{100 * found[key]:.1f} %" for key in ("equal", "correct_local", "correct_remote"))
        table.add_row(name, str(found["questions"]), *shares)
    console.print(table)
