"""A handful of nodes, each in its own process, started and ended together."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType

from delayed_vlm_ros.errors import NodeDiedError

_END_TIMEOUT_SEC = 5.0
_SHOWN_LOG_LINES = 12


class NodeGroup:
    """Context manager that runs nodes of this package and ends them with SIGINT, as a terminal would.

    Args:
        environment: Of the processes; ``isolated_environment`` keeps them to themselves.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self._logs = Path(tempfile.mkdtemp(prefix="delayed-vlm-"))
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, node: str, *, params_file: Path, parameters: dict[str, str]) -> None:
        """Start a node.

        Args:
            node: Module in ``delayed_vlm_ros.nodes``.
            params_file: Its parameter file.
            parameters: Values that go over those in the file.
        """
        command = [
            sys.executable,
            "-m",
            f"delayed_vlm_ros.nodes.{node}",
            "--ros-args",
            "--params-file",
            str(params_file),
        ]
        for name, value in parameters.items():
            command += ["-p", f"{name}:={value}"]
        with self._log_file(node).open("wb") as log:
            # A session of its own: a Ctrl-C in this terminal reaches the nodes once, from here.
            self._processes[node] = subprocess.Popen(  # noqa: S603  our own modules
                command, env=self._environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def check(self) -> None:
        """Return while every node runs.

        Raises:
            NodeDiedError: One has ended; the message holds the end of its output.
        """
        for node, process in self._processes.items():
            if process.poll() is not None:
                raise NodeDiedError(
                    f"the node {node} ended with exit code {process.returncode}. The end of its output:\n"
                    f"{self.log(node)}"
                )

    def log(self, node: str) -> str:
        """The last lines of a node's output."""
        text = self._log_file(node).read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.strip().splitlines()[-_SHOWN_LOG_LINES:])

    def stop(self) -> dict[str, int]:
        """End all nodes, and say how they ended.

        Returns:
            Exit code of each node; negative: killed by that signal.
        """
        for process in self._processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + _END_TIMEOUT_SEC
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
