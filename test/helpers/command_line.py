"""The command line in this process, for tests whose subject is not the process: importing torch takes seconds."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

from delayed_vlm_ros.cli.main import main


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
