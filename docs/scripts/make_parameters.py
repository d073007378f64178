"""Write docs/parameters.md from the nodes' parameter dataclasses; a test compares page and code."""

from __future__ import annotations

from pathlib import Path

from delayed_vlm_ros.cameras.bag_camera import BagCameraParameters
from delayed_vlm_ros.cameras.demo_camera import DemoCameraParameters
from delayed_vlm_ros.cameras.video_camera import VideoCameraParameters
from delayed_vlm_ros.ros.parameters import ParameterSpec, specifications
from delayed_vlm_ros.ros.scene_memory.parameters import SceneMemoryParameters
from delayed_vlm_ros.web.dashboard_node import WebDashboardParameters

PAGE = Path(__file__).parents[1] / "parameters.md"

_INTRODUCTION = """\
# Parameters

Made by `docs/scripts/make_parameters.py` from the code. The files `config/*.yaml` hold the same values with longer
comments. Copy one, edit it, and pass it:

```
ros2 launch delayed_vlm_ros bringup.launch.py scene_memory_params_file:=/path/to/my.yaml
```

*When*: `start` is read when the node starts. `configure` is read when the node is configured, and can be changed while
the node is unconfigured. `any time` takes effect immediately. An invalid value is rejected with the reason.

A file's first key selects the nodes: `/**` any node, `/robot1/scene_memory` one. ROS ignores the values of a key that
selects another node, so a node logs a warning for a key that seems to be its own: in the namespace `/robot1`,
`scene_memory` is `/scene_memory`. The launch file changes that plain key to the full name, as nav2's does. An unknown
parameter name is logged with the name that is meant.

YAML reads `off`, `no`, `on` and `yes` without quotes as booleans. A node takes them where only one meaning is possible
(`precompute.mode: off`), as it takes `5` or `"5"` for a number, and otherwise says what to write. `ros2 param load`
works with the files in `config/`: a value that cannot be changed now is accepted if it is the present one.
"""

_NODES = {
    "scene_memory": SceneMemoryParameters,
    "demo_camera": DemoCameraParameters,
    "video_camera": VideoCameraParameters,
    "bag_camera": BagCameraParameters,
    "web_dashboard": WebDashboardParameters,
}


def page() -> str:
    """Return the text of the page."""
    return "\n".join([_INTRODUCTION, *(_section(node, parameters) for node, parameters in _NODES.items())])


def _section(node: str, parameters: type) -> str:
    rows = [_row(spec) for spec in specifications(parameters).values()]
    return "\n".join(
        [
            f"## {node}",
            "",
            "| parameter | default | range | when | meaning |",
            "| --- | --- | --- | --- | --- |",
            *rows,
            "",
        ]
    )


def _row(spec: ParameterSpec) -> str:
    default = f"`{_in_yaml(spec.default)}`" if spec.default != "" else ""
    bounds = f"{spec.minimum:g} … {spec.maximum:g}" if spec.minimum is not None and spec.maximum is not None else ""
    span = ", ".join(spec.choices) or " ".join(word for word in (bounds, spec.unit) if word)
    when = "configure" if spec.at_configure else "start" if spec.read_only else "any time"
    return f"| `{spec.name}` | {default} | {span} | {when} | {spec.description} |"


def _in_yaml(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(value)}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
