"""``bench remote-reuse``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from delayed_vlm_ros.inference.remote.settings import Encoding, RemoteSettings
from delayed_vlm_ros.memory import MemoryConfig
from delayed_vlm_ros.scenes import HELD_OUT_SEEDS
from lab.commands.output import AsJson, print_json
from lab.commands.remote_answers import FrameMultiple, JpegQuality, Server

_MAX_PIXELS = 128 * 160
_SCENES = 100


def remote_reuse(
    server: Server,
    encoding: Annotated[list[Encoding] | None, typer.Option(help="How frames are sent; repeatable.")] = None,
    pairs: Annotated[int, typer.Option(help="Pairs in memory at the first question.", min=1)] = 12,
    questions: Annotated[int, typer.Option(help="Questions of a robot's rhythm; 0: none.", min=0)] = 30,
    eviction_chunk: Annotated[
        list[int] | None, typer.Option(help="Frames that leave the memory together; repeatable.")
    ] = None,
    star: Annotated[int, typer.Option(help="Key frames over the whole past, in frames.", min=0)] = 20,
    stream: Annotated[int, typer.Option(help="Newest frames, in frames.", min=2)] = 20,
    block_tokens: Annotated[int, typer.Option(help="Tokens of a block of the server's prefix cache.", min=1)] = 128,
    frame_multiple: FrameMultiple = 32,
    max_pixels: Annotated[int, typer.Option(help="Largest height × width of a kept frame.", min=1)] = _MAX_PIXELS,
    seed: Annotated[int, typer.Option(help="Seed of the scenes; a server knows those of earlier runs.", min=0)] = 0,
    jpeg_quality: JpegQuality = RemoteSettings.jpeg_quality,
    as_json: AsJson = False,
) -> None:
    """Measure what a server computes and receives again for further questions."""
    # This imports the client library.
    from lab.bench.remote_reuse import Rhythm, measure_reuse, measure_rhythm  # noqa: PLC0415

    console = Console(stderr=as_json)
    settings = RemoteSettings(jpeg_quality=jpeg_quality, frame_multiple=frame_multiple)
    seeds = iter(HELD_OUT_SEEDS[1 + _SCENES * seed :])  # a scene for each run: nothing of it is cached
    chosen = [replace(settings, encoding=one) for one in encoding or (Encoding.TIMED_IMAGES, Encoding.VIDEO)]
    with console.status("asking"):
        reuse = {
            one.encoding.value: measure_reuse(server, one, next(seeds), pairs, block_tokens, max_pixels)
            for one in chosen
        }
        rhythms = {
            f"{one.encoding.value}, eviction chunk {chunk}": measure_rhythm(
                server,
                one,
                next(seeds),
                Rhythm(MemoryConfig(star, stream, eviction_chunk=chunk), questions),
                max_pixels,
            )
            for one in chosen
            for chunk in (eviction_chunk or (0, 8))
            if questions > 1
        }
    if as_json:
        shape = {"pairs": pairs, "star": star, "stream": stream, "block_tokens": block_tokens, "quality": jpeg_quality}
        print_json({"shape": shape, "reuse": reuse, "rhythm": rhythms})
        return
    _show(console, {f"{name}, {what}": row for name, rows in reuse.items() for what, row in rows.items()})
    _show(console, rhythms)


def _show(console: Console, rows: Mapping[str, Mapping[str, object]]) -> None:
    if not rows:
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("")
    for heading in next(iter(rows.values())):
        table.add_column(heading.replace("_", " "), justify="right")
    for name, row in rows.items():
        table.add_row(name, *map(str, row.values()))
    console.print(table)
