"""Run checks so that none can hide another: with a time limit, errors as findings, native code in child processes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from importlib import import_module
from typing import Any, TypeVar

from delayed_vlm_ros.child_process import python_command
from delayed_vlm_ros.dependencies import explained_imports
from delayed_vlm_ros.doctor.finding import Finding, error
from delayed_vlm_ros.errors import DelayedVlmError

_Result = TypeVar("_Result")

_ERROR_LINE = re.compile(r"[\w.]*(?:Error|Exception)\b")  # the last part of a traceback, which may have several lines


@dataclass(frozen=True)
class Answer:
    """What a child process returned.

    Attributes:
        value: The result; None if it failed.
        error: Why it failed; empty if it did not.
        has_ended: Whether it ended without a result, so that ``error`` names no remedy.
    """

    value: Any = None
    error: str = ""
    has_ended: bool = False


def in_background(work: Callable[[], _Result]) -> Future[_Result]:
    """Run a function in a daemon thread, which never delays the end of the process."""
    future: Future[_Result] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as failure:  # noqa: BLE001  the future carries it
            future.set_exception(failure)

    threading.Thread(target=run, name="doctor check", daemon=True).start()
    return future


def run_check(subject: str, check: Callable[[], Sequence[Finding]], timeout_sec: float = 5.0) -> list[Finding]:
    """Run a check. Never raises an error of the check.

    Args:
        subject: Subject of the finding if the check fails.
        check: Returns the findings.
        timeout_sec: Longest time in seconds.

    Returns:
        The findings, or one ERROR with the reason why the check failed.
    """
    try:
        return list(in_background(check).result(timeout_sec))
    except FutureTimeoutError:
        return [error(subject, f"the check did not end within {timeout_sec:g} s", "see what blocks, then run it again")]
    except DelayedVlmError as failure:
        return [error(subject, str(failure))]
    except Exception as failure:  # noqa: BLE001  a defect must not hide the other checks
        text = f"the check failed ({type(failure).__name__}: {failure})"
        return [error(subject, text, "report it with the file of --bundle")]


def run_child(function: str, *arguments: Any, timeout_sec: float) -> Answer:
    """Call a function in a Python process of its own, which a crash of a library or the time limit may end.

    Args:
        function: ``module:function`` in this package's folder ``doctor``.
        arguments: Arguments of the function, representable in JSON.
        timeout_sec: Longest time in seconds.
    """
    command = python_command(f"{__name__}:serve", function, json.dumps(arguments))
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)  # noqa: S603
    try:
        output, complaints = process.communicate(timeout=timeout_sec)
    except subprocess.TimeoutExpired:
        process.kill()  # without waiting: a process that hangs in a driver ends when that returns
        return Answer(
            error=f"no result within {timeout_sec:g} s: run it again with a longer --timeout; if it hangs, restart"
        )
    if process.returncode == 0:
        return Answer(**json.loads(output))
    return Answer(error=_reason(process.returncode, complaints.decode(errors="replace")), has_ended=True)


def serve(function: str, arguments: str) -> None:
    """Call a function and write its result as JSON; run in the child process."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # end on Ctrl-C without a traceback
    result = os.dup(1)
    os.dup2(2, 1)  # libraries may print
    module, _, name = function.partition(":")
    try:
        with explained_imports():
            value = getattr(import_module(f"delayed_vlm_ros.doctor.{module}"), name)(*json.loads(arguments))
        answer = {"value": value}
    except DelayedVlmError as failure:
        answer = {"error": str(failure)}
    with os.fdopen(result, "w", encoding="utf-8") as stream:
        json.dump(answer, stream)
    sys.stderr.flush()
    os._exit(0)  # with torch loaded, the interpreter takes seconds to finalise


def _reason(code: int, complaints: str) -> str:
    lines = [line.strip() for line in complaints.splitlines() if line.strip()]
    errors = [number for number, line in enumerate(lines) if _ERROR_LINE.match(line)]
    last = " ".join(lines[errors[-1] :] if errors else lines[-1:])
    end = f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return f"the process {end}: {last}" if last else f"the process {end}"
