"""docs/tutorial_webcam.md, with its synthetic camera, as a newcomer runs it in an empty folder."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tutorial import commands, missing_lines
from waiting import end_process, wait_until

ROOT = Path(__file__).parents[2]


@pytest.fixture
def terminals(ros, tmp_path):
    """Return a function that runs commands to their end, or in a terminal of their own; both return their output."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "REPO": str(ROOT), "PATH": path, "COLUMNS": "200"}
    opened = []

    def run(block):
        log = tmp_path / f"terminal_{len(opened)}.log"
        command = ["bash", "-euc", f"exec {block.text}" if block.has_terminal else block.text]
        with log.open("w") as out:
            process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=out, stderr=subprocess.STDOUT)
        opened.append(process)

        def is_ready():
            return block.has_terminal and not missing_lines(block.shown, log.read_text())

        wait_until(lambda: process.poll() is not None or is_ready(), log.read_text)
        assert process.poll() is None if block.has_terminal else process.returncode == 0, log.read_text()
        return log.read_text()

    yield run
    for process in reversed(opened):
        if process.poll() is None:
            end_process(process, signal.SIGINT)


def test_tutorial_leads_to_an_alert_and_an_export(terminals, tmp_path):
    blocks = [block for block in commands("tutorial_webcam.md") if block.is_run]
    assert [block.has_terminal for block in blocks] == [False, True, True, False, False]
    for block in blocks:
        assert missing_lines(block.shown, terminals(block)) == []
    assert (tmp_path / "first_alert" / "index.html").is_file()
