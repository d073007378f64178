"""The command ``delayed-vlm doctor`` as users run it, in a terminal and in a pipe, also without ROS and torch."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest
from hidden_packages import ROOT, hide

PATIENCE_SEC = 120
LEVELS = ("OK     ", "WARN   ", "ERROR  ")
PLANTED = """
import sys
from delayed_vlm_ros.doctor import diagnosis
from delayed_vlm_ros.doctor.finding import error, ok, warn
found = (ok("python", "fine"), warn("[bold]disk[/]", "\\x1b[31mred " + "long text " * 20, "free it"))
bad = (error("ros", "not here", "source it"),) if sys.argv.pop(1) == "bad" else ()
diagnosis.diagnose = lambda *_: diagnosis.Diagnosis((*found, *bad), None)
from delayed_vlm_ros.cli.main import main
sys.argv[0] = "delayed-vlm"
main()
"""


def planted(kind, *arguments, cwd, **variables):
    """Run the command with planted findings in a pipe."""
    command = [sys.executable, "-c", PLANTED, kind, "doctor", *arguments]
    return subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SEC,
        check=False,
    )


def in_terminal(*arguments, **variables):
    """Run the command with planted findings in a terminal of 80 columns; return its output."""
    terminal, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", **variables}
    environment.pop("COLUMNS", None)
    command = [sys.executable, "-c", PLANTED, "bad", "doctor", *arguments]
    process = subprocess.Popen(command, stdin=end, stdout=end, stderr=subprocess.PIPE, env=environment)
    os.close(end)
    output = b""
    while True:
        try:
            part = os.read(terminal, 4096)
        except OSError:  # closed by the process
            break
        output += part
    os.close(terminal)
    process.communicate(timeout=PATIENCE_SEC)
    return output.decode()


def test_pipe_has_one_line_for_each_finding(tmp_path):
    done = planted("bad", cwd=tmp_path)
    lines = done.stdout.splitlines()
    assert [line[:7] for line in lines] == list(LEVELS)
    assert lines[1].startswith("WARN   [bold]disk[/]: \\x1b[31mred long")
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize(("kind", "code"), [("good", 0), ("bad", 1)])
def test_exit_code_is_1_only_after_an_error(tmp_path, kind, code):
    done = planted(kind, "--json", cwd=tmp_path)
    assert done.returncode == code
    printed = json.loads(done.stdout)
    assert printed["success"] is (kind == "good")
    assert printed["findings"][0] == {"level": "OK", "subject": "python", "finding": "fine", "remedy": ""}


def test_terminal_shows_wrapped_and_indented_lines():
    output = in_terminal(NO_COLOR="1")
    assert "\x1b[3" not in output, "colours"
    lines = [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m|\r", "", output).splitlines()]
    assert all(len(line) <= 80 for line in lines)
    assert [line[:5].strip() for line in lines if line.strip() and line[0] != " "] == ["OK", "WARN", "ERROR"]
    assert sum(line.startswith("       ") for line in lines) >= 2


def test_terminal_shows_colours():
    assert "\x1b[33mWARN" in in_terminal()


def test_bundle_is_written_and_never_overwritten(tmp_path):
    done = planted("bad", "--bundle", "case.zip", cwd=tmp_path)
    assert done.returncode == 1
    assert (tmp_path / "case.zip").stat().st_size > 500
    assert "wrote case.zip: README.txt, doctor.txt" in done.stderr
    before = (tmp_path / "case.zip").read_bytes()
    again = planted("bad", "--bundle", "case.zip", cwd=tmp_path)
    assert again.returncode == 1
    assert again.stderr.startswith("error: 'case.zip' exists")
    assert again.stdout == ""
    assert (tmp_path / "case.zip").read_bytes() == before


def test_images_without_a_bundle_are_refused(tmp_path):
    done = planted("good", "--with-images", cwd=tmp_path)
    assert done.returncode == 1
    assert "--bundle" in done.stderr


@pytest.mark.timeout(PATIENCE_SEC + 60)
def test_command_without_ros_and_torch_checks_everything_else(tmp_path):
    # given
    environment = {**os.environ, **hide(tmp_path / "hidden", "rclpy", "torch")}
    # when
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "delayed-vlm", "doctor", "--timeout", "60"],
        cwd="/",
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SEC,
        check=False,
    )
    # then
    lines = done.stdout.splitlines()
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert all(line.startswith(LEVELS) for line in lines)
    (torch,) = [line for line in lines if line.startswith("ERROR  torch: ")]
    (ros,) = [line for line in lines if line.startswith("ERROR  ros: ")]
    assert "torch is not installed in this Python" in torch
    assert "'.[vlm]'" in torch
    assert "rclpy is not installed" in ros
    assert "source your ROS workspace" in ros
    subjects = {line[7:].split(":")[0] for line in lines}
    assert subjects >= {
        "python",
        "model",
        "ROS_DOMAIN_ID",
        "shared memory",
        "multicast",
        "system clock",
        "log files",
        "page",
    }
