"""The launch file: static checks, and real launches where ROS's launch system is installed.

A real launch starts fake nodes, which record their command lines.
"""

import ast
import difflib
import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml

from delayed_vlm_ros.ros.parameter_files import with_namespace

ROOT = Path(__file__).resolve().parents[2]
LAUNCH_FILE = ROOT / "launch" / "bringup.launch.py"
RVIZ_FILE = ROOT / "rviz" / "scene_memory.rviz"
PREFIX = "scene_memory_"
ARGUMENTS = {  # name: default; None if it is computed
    "namespace": "",
    "use_sim_time": "false",
    "scene_memory_params_file": None,
    "autostart": "true",
    "log_level": "info",
    "use_respawn": "false",
    "scene_memory_model": "",
    "scene_memory_image_topic": "image",
    "scene_memory_image_transport": "",
    "scene_memory_cameras": "",
    "scene_memory_pose_topic": "pose",
    "scene_memory_demo_camera": "false",
    "scene_memory_video": "",
    "scene_memory_bag": "",
    "scene_memory_bag_topic": "",
    "scene_memory_web": "false",
    "scene_memory_web_params_file": None,
    "scene_memory_rviz": "false",
}
LAUNCH_MISSING = importlib.util.find_spec("launch") is None or importlib.util.find_spec("launch_ros") is None
needs_launch = pytest.mark.skipif(LAUNCH_MISSING, reason="ROS 2's launch and launch_ros are not installed")

# Launches a file like `ros2 launch <path> <name>:=<value> …`.
LAUNCH = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import AnyLaunchDescriptionSource
path, *arguments = sys.argv[2:]
service = LaunchService(argv=arguments, noninteractive=True)
given = [tuple(word.split(":=", 1)) for word in arguments]
inclusion = IncludeLaunchDescription(AnyLaunchDescriptionSource(path), launch_arguments=given)
service.include_launch_description(LaunchDescription([inclusion]))
sys.exit(service.run())
"""
FAKE_NODE = """#!/bin/sh
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


def test_arguments_are_the_documented_ones():
    declared = {}
    for node in ast.walk(tree(LAUNCH_FILE)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "DeclareLaunchArgument":
            arguments = {keyword.arg: keyword.value for keyword in node.keywords}
            assert ast.literal_eval(arguments["description"])
            default = arguments["default_value"]
            declared[ast.literal_eval(node.args[0])] = default.value if isinstance(default, ast.Constant) else None
    assert declared == ARGUMENTS


def test_started_nodes_are_installed():
    executables = {path.name for path in (ROOT / "scripts").iterdir()}
    started = {
        ast.literal_eval(node.args[0])
        for node in ast.walk(tree(LAUNCH_FILE))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_node"
    }
    assert started == {"scene_memory", "demo_camera", "video_camera", "bag_camera", "web_dashboard"}
    assert started <= executables
    assert all((ROOT / "config" / f"{name}.yaml").is_file() for name in started)


def test_overridden_parameters_exist():
    # ROS silently ignores a parameter that no node declares.
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


def test_topics_of_rviz_are_remapped():
    (remapped,) = [
        ast.literal_eval(node.value)
        for node in ast.walk(tree(LAUNCH_FILE))
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "RVIZ_TOPICS"
    ]
    displays = yaml.safe_load(RVIZ_FILE.read_text(encoding="utf-8"))["Visualization Manager"]["Displays"]
    assert [display["Topic"]["Value"] for display in displays] == [f"/{topic}" for topic in remapped]


def test_only_the_launch_file_imports_launch():
    for path in [*(ROOT / "delayed_vlm_ros").rglob("*.py"), *(ROOT / "scripts").iterdir()]:
        for node in ast.walk(tree(path)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            assert not {name.split(".")[0] for name in names} & {"launch", "launch_ros"}, path


# Functions that need no launch system


def helper(name):
    """Return a function of the launch file, compiled with the other functions that do not use launch."""
    pure = (
        *("_topics_of_cameras", "_first_topic", "_remappings", "_absolute", "_selected_camera", "_boolean"),
        *("_settings", "_given_file", "_for_namespace", "_refuse_unknown", "_inherited", "_unused"),
    )
    constants = ("PREFIX", "NAV2_NAMES", "GENERIC_NAMES", "LAUNCH_OWN_NAMES")
    found = ast.Module(
        [
            node
            for node in tree(LAUNCH_FILE).body
            if getattr(node, "name", "") in pure
            or (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in constants)
        ],
        [],
    )
    names = {
        "Any": object,
        "Path": Path,
        "__file__": str(LAUNCH_FILE),
        "difflib": difflib,
        "tempfile": tempfile,
        "with_namespace": with_namespace,
    }
    exec(compile(found, str(LAUNCH_FILE), "exec"), names)
    return names[name]


def settings(**given):
    defaults = {name.removeprefix(PREFIX): value for name, value in ARGUMENTS.items() if value is not None}
    return defaults | given


def test_one_camera_is_remapped_by_plain_names():
    assert helper("_remappings")(settings(), {}) == [("image", "image"), ("pose", "pose")]
    given = settings(image_topic="/front/image_raw", pose_topic="/tracker/pose")
    expected = [("image", "/front/image_raw"), ("pose", "/tracker/pose")]
    assert helper("_remappings")(given, {}) == expected
    assert helper("_remappings")(settings(pose_topic="/tracker/pose"), {"front": "/front/image_raw"}) == expected


def test_several_cameras_have_image_topics_and_share_the_pose_topic():
    # given
    topics = helper("_topics_of_cameras")("front:/front/image_raw, rear", {"cameras"})
    assert topics == {"front": "/front/image_raw", "rear": "rear/image"}
    images = [("front/image", "/front/image_raw"), ("rear/image", "rear/image")]

    # then
    assert helper("_remappings")(settings(), topics) == images
    poses = [("front/pose", "/tracker/pose"), ("rear/pose", "/tracker/pose")]
    assert helper("_remappings")(settings(pose_topic="/tracker/pose"), topics) == [*images, *poses]


def test_started_camera_is_the_first_camera():
    assert helper("_first_topic")(settings(image_topic="eye"), {}) == "eye"
    assert helper("_first_topic")(settings(), {"front": "/front/image_raw", "rear": "rear/image"}) == "/front/image_raw"


def test_at_most_one_camera_is_started():
    assert helper("_selected_camera")(settings()) == ""
    assert helper("_selected_camera")(settings(demo_camera="true")) == "demo_camera"
    assert helper("_selected_camera")(settings(video="0")) == "video"
    assert helper("_selected_camera")(settings(bag="my_bag")) == "bag"
    with pytest.raises(RuntimeError, match="scene_memory_video and scene_memory_bag"):
        helper("_selected_camera")(settings(video="0", bag="my_bag"))


@pytest.mark.parametrize(
    ("text", "given", "named"),
    [
        ("front:/a", {"cameras", "image_topic"}, "scene_memory_cameras and scene_memory_image_topic"),
        ("front:/a front:/b", {"cameras"}, "'front'"),
    ],
)
def test_ambiguous_cameras_are_rejected(text, given, named):
    with pytest.raises(RuntimeError, match=named):
        helper("_topics_of_cameras")(text, given)


def test_image_topic_without_cameras_is_accepted():
    assert helper("_topics_of_cameras")("", {"image_topic"}) == {}


def test_settings_are_the_own_arguments_without_prefix():
    configurations = {"namespace": "robot1", "scene_memory_model": " demo ", "model": "urdf", "rviz": "true", "x": "y"}
    assert helper("_settings")(configurations) == {"namespace": "robot1", "model": "demo"}


OLD_NAMES = [name.removeprefix(PREFIX) for name in ARGUMENTS if name.startswith(PREFIX)]


@pytest.mark.parametrize(
    ("configurations", "expected"),
    [
        ({name: "x" for name in OLD_NAMES if name != "cameras"}, "image_topic image_transport pose_topic demo_camera"),
        ({"model": "urdf", "rviz": "true", "video": "true", "web": "true", "bag": "b", "params_file": "nav2.yaml"}, ""),
        ({"cameras": "a:/a b:/b"}, "cameras"),
        ({"image_topic": "/a", "scene_memory_image_topic": "/b"}, ""),
        ({"image_topic": "/a", "pose_topic": "/p", "scene_memory_cameras": "a:/a"}, "pose_topic"),
        ({"image_topic": "/a", "cameras": "a:/a"}, "cameras"),
        ({"image_topic": "/a", "cameras": " "}, "image_topic"),
    ],
)
def test_old_names_of_an_including_file_are_used_unless_generic(configurations, expected):
    assert helper("_inherited")(configurations, OLD_NAMES) == expected.split()


def test_generic_names_are_arguments_of_before():
    (names,) = [
        ast.literal_eval(node.value)
        for node in tree(LAUNCH_FILE).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "GENERIC_NAMES"
    ]
    assert set(names) <= set(OLD_NAMES)


def test_unused_names_of_an_including_file_are_one_line():
    line = helper("_unused")(["model", "rviz"])
    assert "model, rviz. " in line
    assert line.endswith("scene_memory_model")


@pytest.mark.parametrize("argument", ["params_file", "web_params_file"])
def test_missing_file_names_its_argument(argument):
    with pytest.raises(RuntimeError, match=f"/no/such.yaml: check the argument scene_memory_{argument}"):
        helper("_given_file")({argument: "/no/such.yaml"}, argument)


def test_plain_node_name_in_a_file_becomes_the_full_name(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text("scene_memory:\n  ros__parameters: {autostart: false}\n", encoding="utf-8")
    assert helper("_for_namespace")(str(path), "scene_memory", "") == str(path)
    changed = Path(helper("_for_namespace")(str(path), "scene_memory", "robot1"))
    assert changed.read_text(encoding="utf-8").startswith("/robot1/scene_memory:\n")
    changed.unlink()


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("scene_memory_modle", "scene_memory_model"),
        ("modle", "scene_memory_model"),
        ("param_file", "scene_memory_params_file"),
        ("namspace", "namespace"),
        ("scene_memory_namespace", "namespace"),
    ],
)
def test_misspelled_argument_is_refused_with_the_one_that_is_meant(given, meant):
    known = [*ARGUMENTS, *(name.removeprefix(PREFIX) for name in ARGUMENTS)]
    with pytest.raises(RuntimeError, match=f"no argument '{given}': did you mean '{meant}'"):
        helper("_refuse_unknown")([given], known)
    helper("_refuse_unknown")([*known, "sigterm_timeout"], known)


# Real launches


@pytest.fixture
def launch(tmp_path):
    """Return a function that launches a file and returns exit code, output and the command line of each node."""
    prefix, calls = tmp_path / "prefix", tmp_path / "calls"
    share, executables = prefix / "share" / "delayed_vlm_ros", prefix / "lib" / "delayed_vlm_ros"
    index = prefix / "share" / "ament_index" / "resource_index" / "packages"
    for folder in (share / "config", executables, index, calls):
        folder.mkdir(parents=True)
    (index / "delayed_vlm_ros").touch()
    (index / "rviz2").touch()
    (prefix / "lib" / "rviz2").mkdir()
    (prefix / "lib" / "rviz2" / "rviz2").write_text(FAKE_NODE)
    (prefix / "lib" / "rviz2" / "rviz2").chmod(0o755)
    for name in ("scene_memory", "demo_camera", "video_camera", "bag_camera", "web_dashboard"):
        (share / "config" / f"{name}.yaml").write_text(f"# the file of {name}\n")
        (executables / name).write_text(FAKE_NODE)
        (executables / name).chmod(0o755)
    paths = os.pathsep.join(filter(None, [str(prefix), os.environ.get("AMENT_PREFIX_PATH")]))
    environment = {**os.environ, "AMENT_PREFIX_PATH": paths, "CALLS": str(calls), "ROS_LOG_DIR": str(tmp_path / "log")}

    def run(*arguments, path=LAUNCH_FILE):
        command = [sys.executable, "-c", LAUNCH, "launch", str(path), *arguments]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        return (
            result.returncode,
            result.stdout + result.stderr,
            {call.name: call.read_text() for call in calls.iterdir()},
        )

    return run


@needs_launch
def test_parameter_file_is_used_without_arguments(launch):
    code, output, calls = launch()
    assert code == 0, output
    assert set(calls) == {"scene_memory"}
    assert "# the file of scene_memory" in calls["scene_memory"]
    assert "--log-level info" in calls["scene_memory"]
    assert calls["scene_memory"].count("--params-file") == 1
    assert "__ns:=/ " in calls["scene_memory"]


@needs_launch
def test_arguments_override_the_parameter_file(launch):
    _, output, calls = launch("scene_memory_model:=123", "autostart:=false", "use_sim_time:=true", "namespace:=robot1")
    call = calls["scene_memory"]
    assert call.count("--params-file") == 2, output
    own, override = call.split("# the file of scene_memory")
    assert "__ns:=/robot1" in own
    assert "/robot1/scene_memory:" in override  # for this node, so it overrides the file
    assert "model.name: '123'" in override
    assert "autostart: false" in override
    assert "use_sim_time: true" in override


@needs_launch
@pytest.mark.parametrize(
    ("word", "camera"),
    [
        ("scene_memory_demo_camera:=true", "demo_camera"),
        ("scene_memory_video:=0", "video_camera"),
        ("scene_memory_bag:=0", "bag_camera"),
    ],
)
def test_camera_and_memory_use_the_same_topic(launch, word, camera):
    _, output, calls = launch(word, "namespace:=robot1", "scene_memory_image_topic:=front/image")
    assert set(calls) == {"scene_memory", camera}, output
    for name, call in calls.items():
        assert "__ns:=/robot1" in call
        assert "image:=front/image" in call
        assert f"# the file of {name}" in call
    assert ("video: '0'" in calls[camera]) == (camera == "video_camera")
    assert ("bag: '0'" in calls[camera]) == (camera == "bag_camera")


@needs_launch
def test_page_is_in_the_namespace_of_the_memory(launch):
    _, output, calls = launch("scene_memory_web:=true", "namespace:=robot1")
    assert set(calls) == {"scene_memory", "web_dashboard"}, output
    assert "__ns:=/robot1" in calls["web_dashboard"]
    assert "# the file of web_dashboard" in calls["web_dashboard"]


@needs_launch
def test_bag_sets_use_sim_time_unless_given(launch):
    _, output, calls = launch(
        "scene_memory_bag:=my_bag",
        "scene_memory_bag_topic:=/front/image_raw",
        "scene_memory_image_transport:=compressed",
    )
    assert "use_sim_time: true" in calls["scene_memory"], output
    assert "image_transport: compressed" in calls["scene_memory"]
    assert "topic: /front/image_raw" in calls["bag_camera"]
    assert "use_sim_time:" not in calls["bag_camera"]
    _, output, calls = launch("scene_memory_bag:=my_bag", "use_sim_time:=false")
    assert "use_sim_time: false" in calls["scene_memory"], output


@needs_launch
@pytest.mark.parametrize(
    ("arguments", "image", "star"),
    [
        ([], "/image", "/scene_memory/star_mosaic"),
        (["namespace:=robot1"], "/robot1/image", "/robot1/scene_memory/star_mosaic"),
        (["namespace:=/robot1", "scene_memory_image_topic:=/front"], "/front", "/robot1/scene_memory/star_mosaic"),
    ],
)
def test_rviz_is_remapped_to_the_topics_of_the_nodes(launch, arguments, image, star):
    code, output, calls = launch("scene_memory_rviz:=true", *arguments)
    assert code == 0, output
    assert "rviz/scene_memory.rviz" in calls["rviz2"]
    assert f"/image:={image}" in calls["rviz2"]
    assert f"/scene_memory/star_mosaic:={star}" in calls["rviz2"]


@needs_launch
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["scene_memory_params_file:=/no/such/file.yaml"], "check the argument scene_memory_params_file"),
        (["params_file:=/no/such/file.yaml"], "check the argument scene_memory_params_file"),
        (
            ["scene_memory_web:=true", "scene_memory_web_params_file:=/no/such/file.yaml"],
            "check the argument scene_memory_web_params_file",
        ),
        (["modle:=x"], "no argument 'modle': did you mean 'scene_memory_model'?"),
        (["zzz:=x"], "no argument 'zzz'"),
        (["scene_memory_demo_camera:=yes"], "scene_memory_demo_camera must be true or false"),
        (
            ["scene_memory_demo_camera:=true", "scene_memory_video:=0"],
            "scene_memory_demo_camera and scene_memory_video",
        ),
        (["scene_memory_bag:=my_bag", "scene_memory_video:=0"], "scene_memory_video and scene_memory_bag"),
    ],
)
def test_invalid_argument_stops_the_launch(launch, arguments, named):
    code, output, calls = launch(*arguments)
    assert code == 1
    assert named in output
    assert calls == {}


@needs_launch
@pytest.mark.parametrize("name", ["robot.launch.py", "bringup.launch.py"])
def test_including_file_may_have_other_arguments(launch, tmp_path, name):
    including = tmp_path / name
    including.write_text(INCLUDING.format(path=str(LAUNCH_FILE)))
    code, output, calls = launch("robot:=r2", "anything:=else", path=including)
    assert code == 0, output
    assert "__ns:=/inner" in calls["scene_memory"]


@needs_launch
def test_several_cameras_have_names_and_topics(launch):
    _, output, calls = launch("scene_memory_cameras:=front:/eyes/front/image_raw, rear")
    call = calls["scene_memory"]
    assert "front/image:=/eyes/front/image_raw" in call, output
    assert "rear/image:=rear/image" in call
    names = call[call.index("cameras:") :]
    assert names.index("- front") < names.index("- rear")


@needs_launch
@pytest.mark.parametrize(
    ("word", "camera"),
    [
        ("scene_memory_demo_camera:=true", "demo_camera"),
        ("scene_memory_video:=0", "video_camera"),
        ("scene_memory_bag:=0", "bag_camera"),
    ],
)
@pytest.mark.parametrize("cameras", ["front:/eyes/front rear", "front:/eyes/front"])
def test_started_camera_publishes_on_the_first_cameras_topic(launch, word, camera, cameras):
    _, output, calls = launch(word, f"scene_memory_cameras:={cameras}")
    assert " image:=/eyes/front" in calls[camera], output
    assert "image:=/eyes/front" in calls["scene_memory"]


@needs_launch
def test_single_named_camera_has_its_topic(launch):
    _, output, calls = launch("scene_memory_cameras:=front:/eyes/front/image_raw")
    assert " image:=/eyes/front/image_raw" in calls["scene_memory"], output


@needs_launch
def test_duplicate_camera_name_is_rejected(launch):
    code, output, calls = launch("scene_memory_cameras:=front:/a,front:/b")
    assert code != 0
    assert "'front'" in output
    assert calls == {}


PARENT = """
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, GroupAction, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

NAMES = {names!r}

def generate_launch_description():
    ours = IncludeLaunchDescription(PythonLaunchDescriptionSource({path!r}), launch_arguments={{**{given!r}}}.items())
    return LaunchDescription([
        *(DeclareLaunchArgument(name, default_value=value) for name, value in NAMES.items()),
        GroupAction([ours], scoped=True, forwarding={forwarding}),
    ])
"""
PARENT_ARGUMENTS = {
    "params_file": "/robot/nav2.yaml",
    "model": "/robot/robot.urdf",
    "rviz": "true",
    "web": "true",
    "video": "0",
    "bag": "my_bag",
    "bag_topic": "/t",
    "web_params_file": "/robot/web.yaml",
}


@needs_launch
@pytest.mark.parametrize("forwarding", [True, False])
def test_generic_arguments_of_an_including_file_are_not_inherited(launch, tmp_path, forwarding):
    including = tmp_path / "robot.launch.py"
    names = {**PARENT_ARGUMENTS, "namespace": "robot1"}
    including.write_text(PARENT.format(names=names, path=str(LAUNCH_FILE), given={}, forwarding=forwarding))
    code, output, calls = launch(path=including)
    assert code == 0, output
    assert set(calls) == {"scene_memory"}
    assert "image:=image" in calls["scene_memory"]
    assert "pose:=pose" in calls["scene_memory"]
    assert calls["scene_memory"].count("--params-file") == 1
    assert ("__ns:=/robot1" in calls["scene_memory"]) is forwarding
    assert output.count("not used are these arguments of the including file") == forwarding
    assert "[WARNING]" not in output


@needs_launch
def test_other_old_names_of_an_including_file_are_inherited_with_a_warning(launch, tmp_path):
    including = tmp_path / "robot.launch.py"
    names = {"image_topic": "/robot/eye", "pose_topic": "/robot/pose", "image_transport": "compressed"}
    including.write_text(PARENT.format(names=names, path=str(LAUNCH_FILE), given={}, forwarding=True))
    code, output, calls = launch(path=including)
    assert code == 0, output
    assert "image:=/robot/eye" in calls["scene_memory"]
    assert "pose:=/robot/pose" in calls["scene_memory"]
    assert "image_transport: compressed" in calls["scene_memory"]
    assert "the argument image_topic is now scene_memory_image_topic" in output


@needs_launch
def test_including_file_passes_arguments_by_their_names(launch, tmp_path):
    including = tmp_path / "robot.launch.py"
    given = {"scene_memory_model": "demo", "scene_memory_image_topic": "/front", "namespace": "robot2"}
    including.write_text(PARENT.format(names=PARENT_ARGUMENTS, path=str(LAUNCH_FILE), given=given, forwarding=False))
    code, output, calls = launch(path=including)
    assert code == 0, output
    assert "model.name: demo" in calls["scene_memory"]
    assert "image:=/front" in calls["scene_memory"]
    assert "__ns:=/robot2" in calls["scene_memory"]


@needs_launch
def test_old_names_are_taken_from_the_command_line_with_a_warning(launch):
    code, output, calls = launch("model:=demo", "image_topic:=/front")
    assert code == 0, output
    assert "model.name: demo" in calls["scene_memory"]
    assert "image:=/front" in calls["scene_memory"]
    assert "the argument model is now scene_memory_model" in output


@needs_launch
def test_new_name_overrides_the_old_one(launch):
    _, output, calls = launch("scene_memory_model:=new", "model:=old")
    assert "model.name: new" in calls["scene_memory"], output


@needs_launch
def test_plain_node_name_in_the_parameter_file_works_in_a_namespace(launch, tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text("scene_memory:\n  ros__parameters:\n    autostart: false\n", encoding="utf-8")
    _, output, calls = launch(f"scene_memory_params_file:={path}", "namespace:=robot1")
    assert "/robot1/scene_memory:\n" in calls["scene_memory"], output
