"""Processes forked from one that has imported torch: a new process takes ten seconds for that."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkServerContext
from multiprocessing.forkserver import _forkserver

from hidden_packages import hide_here
from waiting import PATIENCE_SEC


@contextmanager
def preloaded(module: str) -> Iterator[ForkServerContext]:
    """Yield a context of ``multiprocessing`` whose processes have imported a module, and nothing of this process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([module])
    yield context
    _forkserver._stop()  # it would keep its memory until this process ends


def run_without(context: ForkServerContext, package: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run ``delayed-vlm`` in a process of the context that does not find a package; return its exit code and output."""
    command = ["delayed-vlm", *map(str, arguments)]
    with tempfile.NamedTemporaryFile("w+") as out, tempfile.NamedTemporaryFile("w+") as err:
        process = context.Process(target=_command_without, args=(package, command, out.name, err.name))
        process.start()
        process.join(PATIENCE_SEC)
        return subprocess.CompletedProcess(command, process.exitcode or 0, out.read(), err.read())


def _command_without(package: str, command: list[str], out: str, err: str) -> None:
    for descriptor, file in ((1, out), (2, err)):
        os.dup2(os.open(file, os.O_WRONLY), descriptor)
    hide_here(package)
    sys.argv = command
    from delayed_vlm_ros.cli.main import main  # noqa: PLC0415  without the package

    main()
