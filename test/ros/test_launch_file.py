"""The launch file: what can be told without ROS's launch system, and, where that is installed, a real launch.

The real launch runs the real launch system on stand-ins for the nodes, which write down how they were called.
"""

import ast
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
LAUNCH_FILE = ROOT / "launch" / "bringup.launch.py"
RVIZ_FILE = ROOT / "rviz" / "scene_memory.rviz"
ARGUMENTS = {  # name: default; None where it is computed
    "namespace": "",
    "use_sim_time": "false",
    "params_file": None,
    "autostart": "true",
    "log_level": "info",
    "use_respawn": "false",
    "model": "",
    "image_topic": "image",
    "image_transport": "",
    "cameras": "",
    "pose_topic": "pose",
    "demo_camera": "false",
    "video": "",
    "bag": "",
    "bag_topic": "",
    "web": "false",
    "web_params_file": None,
    "rviz": "false",
}
LAUNCH_MISSING = importlib.util.find_spec("launch") is None or importlib.util.find_spec("launch_ros") is None
needs_launch = pytest.mark.skipif(LAUNCH_MISSING, reason="ROS 2's launch and launch_ros are not installed")

# As `ros2 launch <path> <name>:=<value> …` does it.
LAUNCH = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import AnyLaunchDescriptionSource
path, *words = sys.argv[2:]
service = LaunchService(argv=words, noninteractive=True)
given = [tuple(word.split(":=", 1)) for word in words]
inclusion = IncludeLaunchDescription(AnyLaunchDescriptionSource(path), launch_arguments=given)
service.include_launch_description(LaunchDescription([inclusion]))
sys.exit(service.run())
"""
STAND_IN = """#!/bin/sh
{ echo "$@"; for word in "$@"; do if [ -f "$word" ]; then cat "$word"; fi; done; } > "$CALLS/$(basename "$0")"
"""
INCLUDING = """
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

def generate_launch_description():
    ours = PythonLaunchDescriptionSource({path!r})
    return LaunchDescription([
        DeclareLaunchArgument("robot"),
        IncludeLaunchDescription(ours, launch_arguments={{"namespace": "inner"}}.items()),
    ])
"""


def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def test_it_declares_the_documented_arguments():
    declared = {}
    for node in ast.walk(tree(LAUNCH_FILE)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "DeclareLaunchArgument":
            words = {keyword.arg: keyword.value for keyword in node.keywords}
            assert ast.literal_eval(words["description"])
            default = words["default_value"]
            declared[ast.literal_eval(node.args[0])] = default.value if isinstance(default, ast.Constant) else None
    assert declared == ARGUMENTS


def test_it_starts_only_what_is_installed():
    executables = {path.name for path in (ROOT / "scripts").iterdir()}
    started = {
        ast.literal_eval(node.args[0])
        for node in ast.walk(tree(LAUNCH_FILE))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_node"
    }
    assert started == {"scene_memory", "demo_camera", "video_camera", "bag_camera", "web_dashboard"}
    assert started <= executables
    assert all((ROOT / "config" / f"{name}.yaml").is_file() for name in started)


def test_it_overrides_only_parameters_that_there_are():
    """A parameter nobody declares is ignored in silence."""

    def names(values, group=""):
        for key, value in values.items():
            yield from names(value, f"{group}{key}.") if isinstance(value, dict) else [f"{group}{key}"]

    text = (ROOT / "config" / "scene_memory.yaml").read_text(encoding="utf-8")
    overridden = {
        ast.literal_eval(node.slice)
        for node in ast.walk(tree(LAUNCH_FILE))
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store)
    }
    assert overridden == {"autostart", "cameras", "image_transport", "model.name"}
    assert overridden <= set(names(yaml.safe_load(text)["/**"]["ros__parameters"]))


def test_it_remaps_all_topics_that_rviz_shows():
    (remapped,) = [
        ast.literal_eval(node.value)
        for node in ast.walk(tree(LAUNCH_FILE))
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "RVIZ_TOPICS"
    ]
    displays = yaml.safe_load(RVIZ_FILE.read_text(encoding="utf-8"))["Visualization Manager"]["Displays"]
    assert [display["Topic"]["Value"] for display in displays] == [f"/{topic}" for topic in remapped]


def test_nothing_else_needs_the_launch_system():
    for path in [*(ROOT / "delayed_vlm_ros").rglob("*.py"), *(ROOT / "scripts").iterdir()]:
        for node in ast.walk(tree(path)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            assert not {name.split(".")[0] for name in names} & {"launch", "launch_ros"}, path


# What it works out without the launch system


def helper(name):
    """A function of the launch file, compiled out of it with those of its others that need nothing of launch."""
    pure = ("_topics_of_cameras", "_first_topic", "_remappings", "_absolute", "_wanted_camera", "_truth")
    found = ast.Module([node for node in tree(LAUNCH_FILE).body if getattr(node, "name", "") in pure], [])
    names = {}
    exec(compile(found, str(LAUNCH_FILE), "exec"), names)
    return names[name]


def settings(**given):
    return {name: default for name, default in ARGUMENTS.items() if default is not None} | given


def test_one_camera_is_remapped_by_the_plain_names():
    assert helper("_remappings")(settings(), {}) == [("image", "image"), ("pose", "pose")]
    given = settings(image_topic="/front/image_raw", pose_topic="/tracker/pose")
    expected = [("image", "/front/image_raw"), ("pose", "/tracker/pose")]
    assert helper("_remappings")(given, {}) == expected
    assert helper("_remappings")(settings(pose_topic="/tracker/pose"), {"front": "/front/image_raw"}) == expected


def test_several_cameras_have_their_topics_and_share_the_poses():
    # given
    topics = helper("_topics_of_cameras")("front:/front/image_raw, rear", {"cameras"})
    assert topics == {"front": "/front/image_raw", "rear": "rear/image"}
    images = [("front/image", "/front/image_raw"), ("rear/image", "rear/image")]

    # then
    assert helper("_remappings")(settings(), topics) == images
    poses = [("front/pose", "/tracker/pose"), ("rear/pose", "/tracker/pose")]
    assert helper("_remappings")(settings(pose_topic="/tracker/pose"), topics) == [*images, *poses]


def test_a_camera_that_is_started_as_well_is_the_first_one():
    assert helper("_first_topic")(settings(image_topic="eye"), {}) == "eye"
    assert helper("_first_topic")(settings(), {"front": "/front/image_raw", "rear": "rear/image"}) == "/front/image_raw"


def test_one_camera_at_most_is_started_as_well():
    assert helper("_wanted_camera")(settings()) == ""
    assert helper("_wanted_camera")(settings(demo_camera="true")) == "demo_camera"
    assert helper("_wanted_camera")(settings(video="0")) == "video"
    assert helper("_wanted_camera")(settings(bag="my_bag")) == "bag"
    with pytest.raises(RuntimeError, match=r"video and bag are given, .* choose one"):
        helper("_wanted_camera")(settings(video="0", bag="my_bag"))


@pytest.mark.parametrize(
    ("words", "given", "complaint"),
    [
        ("front:/a", {"cameras", "image_topic"}, "both cameras and image_topic are given"),
        ("front:/a front:/b", {"cameras"}, "names 'front' twice"),
    ],
)
def test_cameras_that_cannot_be_meant_are_refused(words, given, complaint):
    with pytest.raises(RuntimeError, match=complaint):
        helper("_topics_of_cameras")(words, given)


def test_the_topic_of_one_camera_may_be_given_when_no_cameras_are():
    assert helper("_topics_of_cameras")("", {"image_topic"}) == {}


# Real launches


@pytest.fixture
def launch(tmp_path):
    """Launches a file with arguments; gives the exit code, what launch said, and how each node was called."""
    prefix, calls = tmp_path / "prefix", tmp_path / "calls"
    share, executables = prefix / "share" / "delayed_vlm_ros", prefix / "lib" / "delayed_vlm_ros"
    index = prefix / "share" / "ament_index" / "resource_index" / "packages"
    for folder in (share / "config", executables, index, calls):
        folder.mkdir(parents=True)
    (index / "delayed_vlm_ros").touch()
    (index / "rviz2").touch()
    (prefix / "lib" / "rviz2").mkdir()
    (prefix / "lib" / "rviz2" / "rviz2").write_text(STAND_IN)
    (prefix / "lib" / "rviz2" / "rviz2").chmod(0o755)
    for name in ("scene_memory", "demo_camera", "video_camera", "bag_camera", "web_dashboard"):
        (share / "config" / f"{name}.yaml").write_text(f"# the file of {name}\n")
        (executables / name).write_text(STAND_IN)
        (executables / name).chmod(0o755)
    paths = os.pathsep.join(filter(None, [str(prefix), os.environ.get("AMENT_PREFIX_PATH")]))
    environment = {**os.environ, "AMENT_PREFIX_PATH": paths, "CALLS": str(calls), "ROS_LOG_DIR": str(tmp_path / "log")}

    def run(*words, path=LAUNCH_FILE):
        command = [sys.executable, "-c", LAUNCH, "launch", str(path), *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout + done.stderr, {call.name: call.read_text() for call in calls.iterdir()}

    return run


@needs_launch
def test_without_arguments_the_parameter_file_alone_speaks(launch):
    code, said, calls = launch()
    assert code == 0, said
    assert set(calls) == {"scene_memory"}
    assert "# the file of scene_memory" in calls["scene_memory"]
    assert "--log-level info" in calls["scene_memory"]
    assert calls["scene_memory"].count("--params-file") == 1
    assert "__ns:=/ " in calls["scene_memory"]


@needs_launch
def test_what_is_given_overrides_the_parameter_file(launch):
    _, said, calls = launch("model:=123", "autostart:=false", "use_sim_time:=true", "namespace:=robot1")
    call = calls["scene_memory"]
    assert call.count("--params-file") == 2, said
    own, override = call.split("# the file of scene_memory")
    assert "__ns:=/robot1" in own
    assert "/robot1/scene_memory:" in override  # addressed to this node, so that it wins over the file
    assert "model.name: '123'" in override
    assert "autostart: false" in override
    assert "use_sim_time: true" in override


@needs_launch
@pytest.mark.parametrize(
    ("word", "camera"), [("demo_camera:=true", "demo_camera"), ("video:=0", "video_camera"), ("bag:=0", "bag_camera")]
)
def test_a_camera_and_the_memory_meet_on_one_topic(launch, word, camera):
    _, said, calls = launch(word, "namespace:=robot1", "image_topic:=front/image")
    assert set(calls) == {"scene_memory", camera}, said
    for name, call in calls.items():
        assert "__ns:=/robot1" in call
        assert "image:=front/image" in call
        assert f"# the file of {name}" in call
    assert ("video: '0'" in calls[camera]) == (camera == "video_camera")
    assert ("bag: '0'" in calls[camera]) == (camera == "bag_camera")


@needs_launch
def test_the_page_is_in_the_memorys_namespace(launch):
    _, said, calls = launch("web:=true", "namespace:=robot1")
    assert set(calls) == {"scene_memory", "web_dashboard"}, said
    assert "__ns:=/robot1" in calls["web_dashboard"]
    assert "# the file of web_dashboard" in calls["web_dashboard"]


@needs_launch
def test_with_a_bag_the_time_is_the_bags(launch):
    _, said, calls = launch("bag:=my_bag", "bag_topic:=/front/image_raw", "image_transport:=compressed")
    assert "use_sim_time: true" in calls["scene_memory"], said
    assert "image_transport: compressed" in calls["scene_memory"]
    assert "topic: /front/image_raw" in calls["bag_camera"]
    assert "use_sim_time" not in calls["bag_camera"]
    _, said, calls = launch("bag:=my_bag", "use_sim_time:=false")
    assert "use_sim_time: false" in calls["scene_memory"], said


@needs_launch
@pytest.mark.parametrize(
    ("words", "image", "star"),
    [
        ([], "/image", "/scene_memory/star_mosaic"),
        (["namespace:=robot1"], "/robot1/image", "/robot1/scene_memory/star_mosaic"),
        (["namespace:=/robot1", "image_topic:=/front"], "/front", "/robot1/scene_memory/star_mosaic"),
    ],
)
def test_rviz_shows_the_topics_of_the_nodes(launch, words, image, star):
    code, said, calls = launch("rviz:=true", *words)
    assert code == 0, said
    assert "rviz/scene_memory.rviz" in calls["rviz2"]
    assert f"/image:={image}" in calls["rviz2"]
    assert f"/scene_memory/star_mosaic:={star}" in calls["rviz2"]


@needs_launch
@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["params_file:=/no/such/file.yaml"], "there is no parameter file /no/such/file.yaml"),
        (["modle:=x"], "no argument 'modle': did you mean 'model'?"),
        (["zzz:=x"], "no argument 'zzz': it has namespace, use_sim_time"),
        (["demo_camera:=yes"], "demo_camera is 'yes'; it must be true or false"),
        (["demo_camera:=true", "video:=0"], "choose one"),
        (["bag:=my_bag", "video:=0"], "video and bag are given"),
    ],
)
def test_what_cannot_work_stops_the_launch(launch, words, complaint):
    code, said, calls = launch(*words)
    assert code == 1
    assert complaint in said
    assert calls == {}


@needs_launch
@pytest.mark.parametrize("name", ["robot.launch.py", "bringup.launch.py"])
def test_a_file_that_includes_it_may_have_arguments_of_its_own(launch, tmp_path, name):
    including = tmp_path / name
    including.write_text(INCLUDING.format(path=str(LAUNCH_FILE)))
    code, said, calls = launch("robot:=r2", "anything:=else", path=including)
    assert code == 0, said
    assert "__ns:=/inner" in calls["scene_memory"]


@needs_launch
def test_several_cameras_get_their_names_and_their_topics(launch):
    _, said, calls = launch("cameras:=front:/eyes/front/image_raw, rear")
    call = calls["scene_memory"]
    assert "front/image:=/eyes/front/image_raw" in call, said
    assert "rear/image:=rear/image" in call
    names = call[call.index("cameras:") :]
    assert names.index("- front") < names.index("- rear")


@needs_launch
@pytest.mark.parametrize(
    ("word", "camera"), [("demo_camera:=true", "demo_camera"), ("video:=0", "video_camera"), ("bag:=0", "bag_camera")]
)
@pytest.mark.parametrize("cameras", ["front:/eyes/front rear", "front:/eyes/front"])
def test_a_camera_that_is_started_as_well_meets_the_first_of_the_cameras(launch, word, camera, cameras):
    _, said, calls = launch(word, f"cameras:={cameras}")
    assert " image:=/eyes/front" in calls[camera], said
    assert "image:=/eyes/front" in calls["scene_memory"]


@needs_launch
def test_one_camera_with_a_name_is_heard_on_its_topic(launch):
    _, said, calls = launch("cameras:=front:/eyes/front/image_raw")
    assert " image:=/eyes/front/image_raw" in calls["scene_memory"], said


@needs_launch
def test_a_camera_named_twice_is_refused(launch):
    code, said, calls = launch("cameras:=front:/a,front:/b")
    assert code != 0
    assert "argument cameras names 'front' twice" in said
    assert calls == {}
