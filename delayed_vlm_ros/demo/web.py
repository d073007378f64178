"""The demo of the page: a synthetic camera, the memory node and the page, each in its own process."""

from __future__ import annotations

import time
from collections.abc import Callable

from delayed_vlm_ros.errors import NodeNotFoundError
from delayed_vlm_ros.resources import config_file
from delayed_vlm_ros.ros.isolation import isolated_environment
from delayed_vlm_ros.ros.process_group import NodeGroup, exit_on_signals
from delayed_vlm_ros.web.dashboard_node import URL_PREFIX

_START_TIMEOUT_SEC = 120.0
_POLL_PERIOD_SEC = 0.2


def run_web_demo(*, model: str, address: str, port: int, on_ready: Callable[[str], None]) -> None:
    """Run camera, memory and page until Ctrl-C.

    Args:
        model: Value of the memory node's parameter ``model.name``.
        address: Address to serve the page at.
        port: Port to serve the page at; 0 for any free port.
        on_ready: Function called with the line that contains the URL of the page.

    Raises:
        DelayedVlmError: A node died, or the page did not start in time.
    """
    settings = {"address": address, "port": port}
    with exit_on_signals(), NodeGroup(isolated_environment()) as group:
        group.start("web_dashboard", params_file=config_file("web_dashboard.yaml"), parameters=settings)
        group.start("scene_memory", params_file=config_file("scene_memory.yaml"), parameters={"model.name": model})
        group.start("demo_camera", params_file=config_file("demo_camera.yaml"), parameters={"story": True})
        try:
            on_ready(_wait_for_url(group))
            while True:
                group.check()
                time.sleep(_POLL_PERIOD_SEC)
        except KeyboardInterrupt:
            return


def _wait_for_url(group: NodeGroup) -> str:
    """Return the line of the page's log that contains its URL."""
    deadline = time.monotonic() + _START_TIMEOUT_SEC
    while time.monotonic() < deadline:
        group.check()
        for line in group.log("web_dashboard").splitlines():
            if line.startswith(URL_PREFIX):
                return line
        time.sleep(_POLL_PERIOD_SEC)
    raise NodeNotFoundError(f"the page did not start within {_START_TIMEOUT_SEC:g} s: reduce the load and try again")
