"""Python programs in processes forked from one that has imported their modules, which takes most of a program's start.

A forked program has its own arguments, environment, working folder and output, and it ends as a started one. It differs
in the modules that are imported before its first line. Tests whose subject is the start, the imports or the memory of a
process start it in a new interpreter.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[2]

_MAX_REQUEST_BYTES = 1 << 20


class ForkedProcess:
    """A process of a ``ForkServer``, with those parts of ``subprocess.Popen``'s interface that tests use."""

    def __init__(self, command: Sequence[str], status: IO[bytes]) -> None:
        self.args = command
        self.returncode: int | None = None
        self._status = status  # the server writes a line with the process's id, and one with its exit code
        line = status.readline()
        if not line:
            raise RuntimeError(f"cannot fork '{' '.join(command)}': the server has ended; its output says why")
        self.pid = int(line)

    def poll(self) -> int | None:
        """Return the exit code, negative after a signal; None while the process runs."""
        return self._end_within(0)

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code after the end of the process.

        Args:
            timeout: Longest time to wait, in seconds; None for no limit.

        Raises:
            subprocess.TimeoutExpired: The process has not ended in this time.
        """
        code = self._end_within(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL, unless the process has ended."""
        self.send_signal(signal.SIGKILL)

    def _end_within(self, timeout: float | None) -> int | None:
        if self.returncode is None:
            with selectors.DefaultSelector() as selector:
                selector.register(self._status, selectors.EVENT_READ)
                if not selector.select(timeout):
                    return None
            line = self._status.readline()
            if not line:
                raise RuntimeError(f"the exit code of '{' '.join(self.args)}' is unknown: its server has ended")
            self.returncode = int(line)
            self._status.close()
        return self.returncode


class ForkServer:
    """A process that forks programs. It ends with the process that has made it.

    Args:
        *modules: Modules that it imports; none may start a thread.
    """

    def __init__(self, *modules: str) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno()), *modules],
                pass_fds=[theirs.fileno()],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
            )

    def start(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        stdout: IO[str],
        stderr: IO[str],
        cwd: str | Path = ROOT,
    ) -> ForkedProcess:
        """Start a program.

        Args:
            command: The path of a file, or ``-m`` and the name of a module; then the arguments.
            environment: All environment variables.
            stdout: File for standard output.
            stderr: File for standard error.
            cwd: Working folder.
        """
        request = json.dumps([list(command), dict(environment), str(cwd)]).encode()
        reader, writer = os.pipe()
        try:
            with self._lock:
                socket.send_fds(self._socket, [request], [stdout.fileno(), stderr.fileno(), writer])
        finally:
            os.close(writer)
        return ForkedProcess(command, os.fdopen(reader, "rb", buffering=0))

    def close(self) -> None:
        """End the server. Its programs continue."""
        self._socket.close()
        self._process.wait()


@cache
def fork_server(*modules: str) -> ForkServer:
    """Return the server of this process that has imported these modules."""
    return ForkServer(*modules)


# The server's process -----------------------------------------------------------------------------------------------


def _serve(connection: socket.socket) -> list[str]:
    """Fork a process for each request, and return the command in the forked process."""
    statuses: dict[int, int] = {}  # by process id
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.data is not None:
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    _, ended = os.waitpid(key.data, 0)
                    _report(statuses[key.data], os.waitstatus_to_exitcode(ended))
                    os.close(statuses.pop(key.data))
                    continue
                request, descriptors, _, _ = socket.recv_fds(connection, _MAX_REQUEST_BYTES, 3)
                if not request:
                    sys.exit()
                *streams, status = descriptors
                pid = os.fork()
                if pid == 0:
                    for descriptor in (status, *statuses.values()):
                        os.close(descriptor)
                    return _begin(request, streams)
                for descriptor in streams:
                    os.close(descriptor)
                statuses[pid] = status
                _report(status, pid)
                selector.register(os.pidfd_open(pid), selectors.EVENT_READ, data=pid)


def _report(status: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # nobody waits for this process
        os.write(status, b"%d\n" % number)


def _begin(request: bytes, streams: list[int]) -> list[str]:
    """Give the forked process the environment and output of its program, and return the command."""
    command, environment, cwd = json.loads(request)
    for number, stream in enumerate(streams, start=1):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return command


def _run(command: list[str]) -> None:
    """Run a program in this process as Python would."""
    program, *arguments = command
    if program == "-m":
        sys.argv = arguments
        warnings.filterwarnings("ignore", message=".*found in sys.modules", module="runpy")  # it is imported twice
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = command
        sys.path[0] = str(Path(program).parent)
        runpy.run_path(program, run_name="__main__")


def _main(descriptor: str, *modules: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal ends the tests, which end the server
    for module in modules:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # programs must not copy all memory to look for garbage
    with socket.socket(fileno=int(descriptor)) as connection:
        command = _serve(connection)
    _run(command)


if __name__ == "__main__":
    _main(*sys.argv[1:])
