"""Command line of the lab: ``python -m lab``."""

from __future__ import annotations

import typer

from lab.commands.answers import answers
from lab.commands.camera_load import camera_load
from lab.commands.evidence import evidence, evidence_heads
from lab.commands.familiar_images import familiar_images
from lab.commands.find import find
from lab.commands.fleet import fleet
from lab.commands.gpu import gpu
from lab.commands.journal_cost import journal_cost
from lab.commands.load import load
from lab.commands.memory import memory
from lab.commands.old_frames import old_frames
from lab.commands.outage import outage
from lab.commands.quality import quality
from lab.commands.remote_answers import remote_answers
from lab.commands.remote_reuse import remote_reuse
from lab.commands.replay_memory import replay_memory
from lab.commands.soak import soak
from lab.commands.time_text import time_text
from lab.commands.trace import trace
from lab.commands.train import train
from lab.commands.waiting_questions import waiting_questions
from lab.commands.watches import watch_cost, watches
from lab.commands.web_page import web_page

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Benchmarks and training for developers of this project.",
)
bench = typer.Typer(no_args_is_help=True, help="Measure answers, memory, latency and load.")
for command in (
    quality,
    memory,
    answers,
    evidence,
    old_frames,
    time_text,
    trace,
    load,
    soak,
    camera_load,
    waiting_questions,
    outage,
    web_page,
    replay_memory,
    watches,
    watch_cost,
    remote_answers,
    remote_reuse,
    fleet,
    find,
    journal_cost,
    gpu,
):
    bench.command()(command)
app.add_typer(bench, name="bench")
app.command()(train)
app.command()(familiar_images)
app.command()(evidence_heads)

if __name__ == "__main__":
    app(prog_name="python -m lab")
