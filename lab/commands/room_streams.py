"""Options of the benchmarks that watch streams of synthetic rooms."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from delayed_vlm_ros.scenes import HELD_OUT_SEEDS, TUNING_SEEDS

_SEEDS = {"held-out": HELD_OUT_SEEDS, "tuning": TUNING_SEEDS}


def chosen_rooms(chosen: Sequence[str] | None, rooms: Sequence[str]) -> tuple[str, ...]:
    """Return the kinds of rooms of ``--room``, each once; all if none was chosen.

    Raises:
        typer.BadParameter: A kind is unknown.
    """
    for one in chosen or ():
        if one not in rooms:
            raise typer.BadParameter(f"unknown room '{one}': use {' or '.join(rooms)}", param_hint="--room")
    return tuple(dict.fromkeys(chosen or rooms))


def seeds_of(worlds: str, streams: int) -> range:
    """Return the seeds of ``--worlds``.

    Raises:
        typer.BadParameter: The worlds are unknown, or have fewer seeds than ``--streams``.
    """
    if worlds not in _SEEDS:
        raise typer.BadParameter(f"unknown worlds '{worlds}': use {' or '.join(_SEEDS)}", param_hint="--worlds")
    pool = _SEEDS[worlds]
    if streams > len(pool):
        raise typer.BadParameter(f"{streams} streams requested, {len(pool)} available", param_hint="--streams")
    return pool
