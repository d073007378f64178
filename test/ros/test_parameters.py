"""Parameters of a real node: values that YAML misreads, unknown names, and ``ros2 param load``."""

from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from rcl_interfaces.srv import SetParameters
from rclpy.parameter import parameter_dict_from_yaml_file

from delayed_vlm_ros.memory import MemoryConfig

CONFIG = Path(__file__).parents[2] / "config" / "scene_memory.yaml"


def load(client, path):
    """Set all values of a file as ``ros2 param load`` does; return the results by name."""
    values = parameter_dict_from_yaml_file(str(path), use_wildcard=True)
    request = SetParameters.Request(parameters=list(values.values()))
    response = client.call(SetParameters, "scene_memory/set_parameters", request)
    return dict(zip(values, response.results, strict=True))


def test_misread_values_are_taken_and_unused_ones_are_reported(start, tmp_path):
    # given a file without this namespace, YAML's off, a list of one, and a name that does not exist
    other = tmp_path / "other.yaml"
    other.write_text("scene_memory:\n  ros__parameters:\n    autostart: false\n", encoding="utf-8")
    command = ["-c", RUN_FAKE_WITH_FILE, str(other)]
    process, client = start(command=command, precompute__mode="off", cameras="front", sampel_fps=3, autostart="'on'")
    client.wait_until_active()

    # then
    assert f"{other}: the parameters for /scene_memory are not used" in process.log
    assert "unknown parameter sampel_fps: its value is not used; did you mean memory.sample_fps?" in process.log
    assert "front" in client.wait_for_status("camera front").name


RUN_FAKE_WITH_FILE = """
import runpy, sys
from pathlib import Path
path = sys.argv.pop(1)
sys.path.append(str(Path("test/helpers").resolve()))
sys.argv += ["--params-file", path]
runpy.run_path(str(Path("test/helpers/fake_scene_memory.py").resolve()), run_name="__main__")
"""


def test_shipped_file_can_be_loaded_into_a_running_node(start, tmp_path):
    star, stream = MemoryConfig.star_memory_size, MemoryConfig.stream_window_size
    _, client = start(model__name="demo", memory__star__size=star, memory__stream__size=stream)
    client.wait_until_active()
    edited = tmp_path / "my.yaml"
    text = CONFIG.read_text(encoding="utf-8").replace("name: auto", "name: demo")
    edited.write_text(text.replace("sample_fps: 2.0", "sample_fps: 5").replace('mode: "off"', "mode: off"))

    # when it is loaded
    results = load(client, edited)

    # then every value is accepted
    assert {name: result.reason for name, result in results.items() if not result.successful} == {}
    assert len(results) > 30

    # and a change of a fixed value is refused
    edited.write_text(text.replace('folder: ""', "folder: /tmp").replace("autostart: true", "autostart: false"))
    refused = {name: result.reason for name, result in load(client, edited).items() if not result.successful}
    assert set(refused) == {"autostart", "persistence.folder"}
    assert all("fixed when the node starts" in reason for reason in refused.values())
