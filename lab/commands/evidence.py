"""``bench evidence`` and ``evidence-heads``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress, track
from rich.table import Table

from delayed_vlm_ros.resources import data_folder
from delayed_vlm_ros.scenes import HELD_OUT_SEEDS, TUNING_SEEDS
from lab.commands.output import AsJson, Device, Model, print_json

_FITTED_SCENES = 750


def evidence(
    model: Model = "demo",
    device: Device = "auto",
    scenes: Annotated[int, typer.Option(help="Held-out scenes; about two seconds of one core each.", min=2)] = 225,
    references: Annotated[
        int, typer.Option(help="Scenes whose pairs are also masked and left out; a minute each.", min=0)
    ] = 0,
    patrols: Annotated[int, typer.Option(help="Held-out patrols of rooms with poses.", min=1)] = 60,
    as_json: AsJson = False,
) -> None:
    """Measure how often the pairs ranked first show what a question about the past or its order is about."""
    # These import torch.
    from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine  # noqa: PLC0415
    from lab.bench.evidence import evidence_json, patrol_json, rank_scene  # noqa: PLC0415

    console = Console(stderr=as_json)
    engine = DelayedBatchInferenceEngine.from_pretrained(model, device=device)
    seeds = HELD_OUT_SEEDS[:scenes]
    ranked = [
        one
        for number, seed in enumerate(track(seeds, "scenes", console=console, transient=True))
        for one in rank_scene(engine, seed, with_references=number < references)
    ]
    shape = {"model": model, "seeds": [seeds.start, seeds.stop], "patrols": patrols}
    result = {"shape": shape, **evidence_json(ranked), "patrol": patrol_json(engine, HELD_OUT_SEEDS[:patrols])}
    if as_json:
        print_json(result)
    else:
        _show(console, result)


def _show(console: Console, result: Mapping[str, Any]) -> None:
    title = f"{result['answered_right']} of {result['questions']} questions answered right; cost ÷ a second question"
    table = Table(title=title, box=None)
    for heading in ("method", "questions", "hit@1", "hit@3", "cost"):
        table.add_column(heading, justify="left" if heading == "method" else "right")
    rows = [
        *result["methods"].items(),
        *((f"evidence: {kind}", one["evidence"]) for kind, one in result["kinds"].items()),
    ]
    for name, figures in rows:
        hits = (f"{figures[key]:.3f}" for key in ("hit_at_1", "hit_at_3"))
        table.add_row(name, str(figures["questions"]), *hits, f"{figures['cost']:.2f}" if "cost" in figures else "")
    console.print(table)
    patrol = result["patrol"]
    console.print(
        f"patrol: pose of the event in {patrol['pose_of_event']} of {patrol['answered_right']} right answers, "
        f"chance {patrol['chance']}"
    )
    console.print(f"AUC of the best pair's relevance, right against wrong answers: {result['strength_auc']}")


def evidence_heads(
    scenes: Annotated[
        int, typer.Option(help="Tuning scenes; about a second of one core each.", min=10)
    ] = _FITTED_SCENES,
    out: Annotated[Path | None, typer.Option(help="Config to write.  [default: the embedded model's]")] = None,
) -> None:
    """Fit the weights of the embedded model's attention heads, and write them to its config."""
    # These import torch.
    from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine  # noqa: PLC0415
    from delayed_vlm_ros.inference.local.evidence import FITTED_WEIGHTS  # noqa: PLC0415
    from lab.training.evidence_heads import fit_heads  # noqa: PLC0415

    stored = data_folder("demo", "tiny_scene") / "config.json"
    engine = DelayedBatchInferenceEngine.from_pretrained("demo", device="cpu")
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("scenes", total=scenes)
        fitted = fit_heads(engine, TUNING_SEEDS[:scenes], lambda: progress.advance(task))
    config = {**json.loads(stored.read_text(encoding="utf-8")), FITTED_WEIGHTS: fitted}
    (out or stored).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
