"""The ``delayed-vlm`` command: registration of the subcommands, ``--version``, and error handling.

Subcommands import torch, ROS and optional packages inside functions. ``--help`` therefore answers quickly, and commands
without ROS work without it.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.markup import escape

from delayed_vlm_ros import __version__
from delayed_vlm_ros.cli import bench, terminal
from delayed_vlm_ros.cli.ask import ask
from delayed_vlm_ros.cli.basic import basic
from delayed_vlm_ros.cli.compare import compare
from delayed_vlm_ros.cli.demo import demo
from delayed_vlm_ros.cli.doctor import doctor
from delayed_vlm_ros.cli.export import export
from delayed_vlm_ros.cli.find import find
from delayed_vlm_ros.cli.journal import journal
from delayed_vlm_ros.cli.mcp import mcp
from delayed_vlm_ros.cli.plan import plan
from delayed_vlm_ros.cli.record_scene import record_scene
from delayed_vlm_ros.cli.replay import replay
from delayed_vlm_ros.cli.server_check import server_check
from delayed_vlm_ros.cli.status import status
from delayed_vlm_ros.cli.sweep import sweep
from delayed_vlm_ros.cli.watch import watch
from delayed_vlm_ros.cli.web import web
from delayed_vlm_ros.dependencies import dependency_error
from delayed_vlm_ros.errors import DelayedVlmError
from delayed_vlm_ros.text import escape_output

app = typer.Typer(
    name="delayed-vlm",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (
    demo,
    web,
    ask,
    find,
    journal,
    export,
    watch,
    status,
    doctor,
    server_check,
    plan,
    mcp,
    basic,
    compare,
    replay,
    record_scene,
    sweep,
):
    app.command()(command)
app.add_typer(bench.app, name="bench")


def _show_version(requested: bool) -> None:
    if requested:
        terminal.write(f"delayed-vlm {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Scene memory for camera robots: keep a bounded set of frames, and ask questions about them at any time."""


def main() -> None:
    """Run the command line. An error of this package prints one line and exits with code 1."""
    escape_output()
    try:
        app()
    except DelayedVlmError as error:
        _fail(str(error))
    except ImportError as error:
        explained = dependency_error(error)
        if explained is None:
            raise
        _fail(str(explained))


def _fail(message: str) -> None:
    terminal.console(stderr=True).print(f"[bold red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
