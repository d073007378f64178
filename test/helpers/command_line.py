"""The command line without its start, for tests whose subject is not the start: in this process, or in a forked one."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

from fork_server import ROOT, fork_server
from waiting import PATIENCE_SEC

from delayed_vlm_ros.cli.main import main

# What the commands that talk to a node import.
_MODULES = ("typer", "rich.table", "delayed_vlm_ros.ros.client", "delayed_vlm_ros.ros.watch_client")


class ForkedCommand:
    """``delayed-vlm`` in a process forked from one with its imports.

    Args:
        *arguments: Arguments of the command.
        cwd: Working folder.
        columns: Width of the terminal.
    """

    def __init__(self, *arguments: object, cwd: Path = ROOT, columns: int = 200) -> None:
        # Append: reading moves the position that the process shares.
        self._files = [tempfile.TemporaryFile("a+") for _ in range(2)]  # noqa: SIM115  closed with the process
        self.process = fork_server(*_MODULES).start(
            ["-m", "delayed_vlm_ros.cli.main", *map(str, arguments)],
            {**os.environ, "COLUMNS": str(columns)},
            *self._files,
            cwd,
        )

    @property
    def stdout(self) -> str:
        """Standard output so far."""
        return self._read(0)

    @property
    def stderr(self) -> str:
        """Standard error so far."""
        return self._read(1)

    def _read(self, number: int) -> str:
        self._files[number].seek(0)
        return self._files[number].read()

    def wait(self) -> subprocess.CompletedProcess[str]:
        """Wait for the end; return exit code and output."""
        code = self.process.wait(PATIENCE_SEC)
        return subprocess.CompletedProcess(self.process.args, code, self.stdout, self.stderr)

    def close(self) -> None:
        """End the process if it still runs."""
        self.process.kill()
        self.process.wait()
        for file in self._files:
            file.close()


def run_forked(*arguments: object, cwd: Path = ROOT, columns: int = 200) -> subprocess.CompletedProcess[str]:
    """Run ``delayed-vlm`` in a forked process; return its exit code and output."""
    command = ForkedCommand(*arguments, cwd=cwd, columns=columns)
    try:
        return command.wait()
    finally:
        command.close()


def run_here(*arguments: object, cwd: Path, columns: int = 100) -> subprocess.CompletedProcess[str]:
    """Run ``delayed-vlm`` in this process. An exception that would print a traceback is raised.

    Args:
        *arguments: Arguments of the command.
        cwd: Working folder during the run.
        columns: Width of the terminal.

    Returns:
        Exit code and output, as from ``subprocess.run``.
    """
    command = ["delayed-vlm", *map(str, arguments)]
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    before = Path.cwd()
    os.chdir(cwd)
    try:
        with (
            mock.patch.object(sys, "argv", command),
            mock.patch.dict(os.environ, COLUMNS=str(columns)),
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            code = _exit_code()
    finally:
        os.chdir(before)
        logging.captureWarnings(capture=False)  # the command captures them for the rest of its process
    return subprocess.CompletedProcess(command, code, _text(out), _text(err))


def _exit_code() -> int:
    try:
        main()
    except SystemExit as exited:
        return int(exited.code or 0)
    return 0


def _text(stream: io.TextIOWrapper) -> str:
    stream.seek(0)
    return stream.read()
