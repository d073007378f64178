"""The example program, run as its user would."""

import os
import subprocess
import sys

from harness import ROOT


def ask(namespace, *arguments):
    command = [sys.executable, "examples/ask.py", *arguments, "--ros-args", "-r", f"__ns:={namespace}"]
    return subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=300, check=False)


def test_the_example_prints_an_answer_and_what_it_rests_on(start):
    _, client = start(memory__sample_fps=50.0)
    client.wait_until_ready()
    client.show_images(4)
    done = ask(client.namespace, "What is on the table?", "--last-sec", "60")
    assert done.returncode == 0, done.stderr
    assert "What is on the table?" in done.stdout
    assert " pairs of frames, the newest " in done.stdout


def test_the_example_prints_an_error_as_one_line(start):
    _, client = start()
    client.wait_until_active()
    done = ask(client.namespace, "What is on the table?")
    assert done.returncode == 1, done.stdout
    assert done.stderr.startswith("error 1: no frames")
    assert "Traceback" not in done.stderr
