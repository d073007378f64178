"""Nodes of this package in child processes, started and stopped together.

The nodes also stop when this process ends (SIGTERM, or SIGHUP of a closed terminal) or is killed.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from delayed_vlm_ros.errors import NodeDiedError

# Module of each node's process, by node name.
NODE_MODULES = {
    "scene_memory": "delayed_vlm_ros.ros.scene_memory.node",
    "demo_camera": "delayed_vlm_ros.cameras.demo_camera",
    "video_camera": "delayed_vlm_ros.cameras.video_camera",
    "bag_camera": "delayed_vlm_ros.cameras.bag_camera",
    "web_dashboard": "delayed_vlm_ros.web.dashboard_node",
}

_STOP_TIMEOUT_SEC = 5.0
_SHOWN_LOG_LINES = 12


class NodeGroup:
    """Context manager that runs nodes of this package and stops them with SIGINT, as a terminal does.

    Args:
        environment: Environment of the processes, such as ``isolated_environment()``.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self._logs = Path(tempfile.mkdtemp(prefix="delayed-vlm-"))
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, node: str, *, params_file: Path, parameters: Mapping[str, Any]) -> None:
        """Start a node.

        Args:
            node: A key of ``NODE_MODULES``.
            params_file: Parameter file of the node.
            parameters: Values that override those of the file.
        """
        command = [
            *parent_death_prefix(),
            sys.executable,
            "-m",
            NODE_MODULES[node],
            "--ros-args",
            "--params-file",
            str(params_file),
        ]
        for name, value in parameters.items():
            command += ["-p", f"{name}:={json.dumps(value)}"]  # ROS parses YAML, where a bare 5 or yes is not a string
        with self._log_file(node).open("wb") as log:
            # In a new session: a Ctrl-C in this terminal reaches the nodes once, through this process.
            self._processes[node] = subprocess.Popen(  # noqa: S603  our own modules
                command, env=self._environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def check(self) -> None:
        """Check that every node runs.

        Raises:
            NodeDiedError: A node has ended. The message has the last lines of its output.
        """
        for node, process in self._processes.items():
            if process.poll() is not None:
                raise NodeDiedError(
                    f"node {node} ended with exit code {process.returncode}. Last lines of its output:\n"
                    f"{self.log(node)}"
                )

    def pid(self, node: str) -> int:
        """Return the process id of a node."""
        return self._processes[node].pid

    def log(self, node: str) -> str:
        """Return the last lines of a node's output."""
        text = self._log_file(node).read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.strip().splitlines()[-_SHOWN_LOG_LINES:])

    def stop(self) -> dict[str, int]:
        """Stop all nodes.

        Returns:
            Exit code of each node; a negative one is the signal that killed it.
        """
        for process in self._processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + _STOP_TIMEOUT_SEC
        exit_codes = {}
        for node, process in self._processes.items():
            try:
                exit_codes[node] = process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                exit_codes[node] = process.wait()
        self._processes.clear()
        return exit_codes

    def __enter__(self) -> NodeGroup:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        shutil.rmtree(self._logs, ignore_errors=True)

    def _log_file(self, node: str) -> Path:
        return self._logs / f"{node}.log"


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """Make SIGTERM and SIGHUP raise ``SystemExit``, so that ``finally`` clauses run, as Ctrl-C does.

    Only for the main thread, the only one that can set signal handlers in Python.
    """

    def exit_process(number: int, frame: FrameType | None) -> None:
        del frame
        sys.exit(128 + number)

    before = {number: signal.signal(number, exit_process) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def parent_death_prefix() -> list[str]:
    """Return a command prefix that makes the kernel end the command when this process dies.

    Empty where util-linux has no ``setpriv``.
    """
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM"] if setpriv else []
