"""``bench replay-memory``."""

from __future__ import annotations

from typing import Annotated

import typer

from lab.commands.output import AsJson, print_json


def replay_memory(
    gigabytes: Annotated[float, typer.Option(help="Size of the images in the bag, in 10⁹ bytes.", min=0.05)] = 1.0,
    storage: Annotated[str, typer.Option(help="Storage format of the bag: sqlite3 or mcap.")] = "sqlite3",
    as_json: AsJson = False,
) -> None:
    """Measure memory and the estimated remaining time while a large bag is replayed."""
    from lab.bench.replay_memory import measure  # noqa: PLC0415  imports torch

    result = measure(gigabytes, storage)
    if as_json:
        print_json(result)
        return
    shape, resident = result["shape"], result["resident_mb"]
    print(f"{shape['images_mb']:.0f} MB of images in {shape['storage']}, {result['images_per_sec']:.0f} images/s")
    print(f"resident memory after a quarter of the images: {resident['after_a_quarter']:.0f} MB")
    print(f"largest from then on: {resident['largest_after_a_quarter']:.0f} MB")
    print(f"linear growth from then on, over the whole bag: {resident['slope_over_the_bag']:+.1f} MB")
    for share, one in result["remaining_time"].items():
        estimated = "none" if one["estimated_sec"] is None else f"{one['estimated_sec']:.1f} s"
        print(f"at {share}: estimated remaining time {estimated}, actual {one['actual_sec']:.1f} s")
