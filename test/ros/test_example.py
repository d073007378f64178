"""The program ``examples/ask.py`` as a user runs it."""

import os
import subprocess
import sys

from harness import ROOT


def run_example(namespace, *arguments):
    command = [sys.executable, "examples/ask.py", *arguments, "--ros-args", "-r", f"__ns:={namespace}"]
    return subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=300, check=False)


def test_example_prints_the_answer_and_its_frames(start):
    _, client = start(memory__sample_fps=50.0)
    client.wait_until_ready()
    client.show_images(4)
    done = run_example(client.namespace, "What is on the table?", "--last-sec", "60")
    assert done.returncode == 0, done.stderr
    assert "What is on the table?" in done.stdout
    assert " pairs of frames" in done.stdout


def test_example_prints_an_error_in_one_line(start):
    _, client = start()
    client.wait_until_active()
    done = run_example(client.namespace, "What is on the table?")
    assert done.returncode == 1, done.stdout
    assert done.stderr.startswith("error 1: no frames")
    assert "Traceback" not in done.stderr
