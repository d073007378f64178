"""The page with everything behind it: a synthetic camera, the memory node and the page, each in its own process."""

from __future__ import annotations

import time
from collections.abc import Callable

from delayed_vlm_ros.errors import NodeNotFoundError
from delayed_vlm_ros.resources import config_file
from delayed_vlm_ros.ros.isolation import isolated_environment
from delayed_vlm_ros.ros.process_group import NodeGroup, exit_on_signals
from delayed_vlm_ros.web.dashboard_node import URL_PREFIX

_START_TIMEOUT_SEC = 120.0
_LOOK_EVERY_SEC = 0.2


def run_web_demo(*, model: str, address: str, port: int, say: Callable[[str], None]) -> None:
    """Run the three until Ctrl-C.

    Args:
        model: As the memory node's parameter ``model.name``.
        address: What the page is bound to.
        port: Its port; 0: any that is free.
        say: Told where the page is.

    Raises:
        DelayedVlmError: A node has ended, or the page did not come up.
    """
    settings = {"address": address, "port": port}
    with exit_on_signals(), NodeGroup(isolated_environment()) as group:
        group.start("web_dashboard", params_file=config_file("web_dashboard.yaml"), parameters=settings)
        group.start("scene_memory", params_file=config_file("scene_memory.yaml"), parameters={"model.name": model})
        group.start("demo_camera", params_file=config_file("demo_camera.yaml"), parameters={"story": True})
        try:
            say(_where(group))
            while True:
                group.check()
                time.sleep(_LOOK_EVERY_SEC)
        except KeyboardInterrupt:
            return


def _where(group: NodeGroup) -> str:
    """The line in which the page says where it is."""
    deadline = time.monotonic() + _START_TIMEOUT_SEC
    while time.monotonic() < deadline:
        group.check()
        for line in group.log("web_dashboard").splitlines():
            if line.startswith(URL_PREFIX):
                return line
        time.sleep(_LOOK_EVERY_SEC)
    raise NodeNotFoundError(f"the page did not come up within {_START_TIMEOUT_SEC:g} s: this machine is too busy")
