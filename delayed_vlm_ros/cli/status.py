"""``delayed-vlm status``: show the state of a running ``scene_memory`` node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from delayed_vlm_ros.cli import options, output, terminal
from delayed_vlm_ros.cli.ask import DISCOVERY_SEC, not_found_message
from delayed_vlm_ros.errors import NodeNotFoundError

if TYPE_CHECKING:
    from diagnostic_msgs.msg import DiagnosticStatus

_STATISTICS_WAIT_SEC = 3.0  # the node publishes once per second


def status(namespace: options.Namespace = "/", as_json: options.Json = False) -> None:
    """Show the diagnostics and statistics of a running scene_memory node."""
    # Requires ROS.
    from delayed_vlm_ros.ros.client import SceneMemoryClient  # noqa: PLC0415

    with SceneMemoryClient.connect(namespace) as client:

        def found() -> dict[str, DiagnosticStatus]:
            return {name: one for name, one in client.diagnostics.items() if name.startswith(client.status_prefix)}

        if not client.wait_until(lambda: bool(found()), DISCOVERY_SEC):
            raise NodeNotFoundError(not_found_message(f"diagnostics of {client.status_prefix.rstrip(': ')}"))
        prefix = f"{client.status_prefix}camera "
        # An unconfigured node has no cameras and publishes no statistics.
        cameras = [name.removeprefix(prefix) for name in found() if name.startswith(prefix)]
        client.wait_until(lambda: client.statistics_by_camera.keys() >= set(cameras), _STATISTICS_WAIT_SEC)
        by_camera = client.statistics_by_camera
        statuses = list(found().values())
    # In the node's order of cameras.
    statistics = {name: output.message_fields(by_camera[name]) for name in cameras if name in by_camera}
    if as_json:
        terminal.write_json({"statistics": statistics, "diagnostics": output.diagnostics_json(statuses)})
        return
    output.show_diagnostics(terminal.console(), statuses)
    for name, fields in statistics.items():
        output.show_camera_statistics(terminal.console(), name, fields)
