"""Start scene_memory and, optionally, a camera, the web page and rviz2.

    ros2 launch delayed_vlm_ros bringup.launch.py scene_memory_demo_camera:=true
    ros2 launch delayed_vlm_ros bringup.launch.py namespace:=robot1 scene_memory_image_topic:=/robot1/front/image_raw
    ros2 launch delayed_vlm_ros bringup.launch.py scene_memory_cameras:="front:/front/image_raw rear:/rear/image_raw"
    ros2 launch delayed_vlm_ros bringup.launch.py scene_memory_image_topic:=/camera/image_raw scene_memory_web:=true
    ros2 launch delayed_vlm_ros bringup.launch.py --show-args

An argument on the command line overrides the parameter file. Without the argument the file's value is used.

A launch file that is included inherits all arguments of the including file, whatever its own defaults are. So arguments
that another file could use, too, begin with ``scene_memory_``. The others have the names and the meaning of nav2's. To
pass nothing else, include this file in ``GroupAction(scoped=True, forwarding=False)``: see docs/ros.md.
"""

from __future__ import annotations

import difflib
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.logging import get_logger
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from delayed_vlm_ros.ros.parameter_files import with_namespace

PACKAGE = "delayed_vlm_ros"
PREFIX = "scene_memory_"  # of arguments that an including file may have, too
# Arguments with nav2's names: their values are meant for all nodes of a launch.
NAV2_NAMES = ("namespace", "use_sim_time", "autostart", "log_level", "use_respawn")
# Names of 0.1.0 that another launch file uses for something else: not used in an inclusion. The others still are.
GENERIC_NAMES = ("model", "params_file", "web_params_file", "video", "bag", "bag_topic", "web", "rviz")
# Arguments of launch itself, valid for any launch file.
LAUNCH_OWN_NAMES = ("launch-prefix", "launch-prefix-filter", "sigterm_timeout", "sigkill_timeout")
RESPAWN_DELAY_SEC = 2.0
# Topics of rviz/scene_memory.rviz, relative to the namespace.
RVIZ_TOPICS = ("image", "scene_memory/star_mosaic", "scene_memory/stream_mosaic")


def generate_launch_description() -> LaunchDescription:
    """Return the checks, the arguments and the nodes."""
    default_params_file = str(Path(get_package_share_directory(PACKAGE)) / "config" / "scene_memory.yaml")
    arguments = [
        DeclareLaunchArgument(
            "namespace", default_value="", description="Namespace for all nodes, topics and services"
        ),
        DeclareLaunchArgument(
            "use_sim_time",
            default_value="false",
            description="Use the time of /clock. Without the argument: the value of the parameter file, or false",
        ),
        DeclareLaunchArgument(
            "scene_memory_params_file", default_value=default_params_file, description="Parameter file of scene_memory"
        ),
        DeclareLaunchArgument(
            "autostart",
            default_value="true",
            description="Configure and activate scene_memory at start. Without the argument: the value of the "
            "parameter file",
        ),
        DeclareLaunchArgument(
            "log_level", default_value="info", description="Log level of the nodes: debug, info, warn, error or fatal"
        ),
        DeclareLaunchArgument("use_respawn", default_value="false", description="Restart a node when it exits"),
        DeclareLaunchArgument(
            "scene_memory_model",
            default_value="",
            description="Parameter model.name: auto, demo, a folder or a hub name. Empty: the value of the parameter "
            "file",
        ),
        DeclareLaunchArgument(
            "scene_memory_image_topic",
            default_value="image",
            description="Image topic of a single camera, also of the demo camera, video and bag. For several cameras "
            "use scene_memory_cameras instead",
        ),
        DeclareLaunchArgument(
            "scene_memory_image_transport",
            default_value="",
            description="Parameter image_transport: raw, or compressed for <image_topic>/compressed. Empty: the value "
            "of the parameter file",
        ),
        DeclareLaunchArgument(
            "scene_memory_cameras",
            default_value="",
            description="Several cameras with their image topics: 'front:/front/image_raw rear:/rear/image_raw'. The "
            "default topic is <name>/image. The demo camera, video or bag is the first camera. Empty: the cameras of "
            "the parameter file. If these are several, the arguments of topics do not apply: images are expected on "
            "<name>/image and poses on <name>/pose. Remap them in your own launch file, or use this argument",
        ),
        DeclareLaunchArgument(
            "scene_memory_pose_topic",
            default_value="pose",
            description="Topic of the camera's poses (geometry_msgs/PoseStamped), shared by all cameras of "
            "scene_memory_cameras. With the default, each of several cameras uses <name>/pose",
        ),
        DeclareLaunchArgument(
            "scene_memory_demo_camera", default_value="false", description="Also start a camera in a synthetic room"
        ),
        DeclareLaunchArgument(
            "scene_memory_video",
            default_value="",
            description="Also start a camera that plays this video file, camera device (/dev/video0) or network stream",
        ),
        DeclareLaunchArgument(
            "scene_memory_bag",
            default_value="",
            description="Also play this ROS 2 bag or other recording in its own time. use_sim_time is then true by "
            "default",
        ),
        DeclareLaunchArgument(
            "scene_memory_bag_topic",
            default_value="",
            description="Image topic of the bag. Empty: its only image topic",
        ),
        DeclareLaunchArgument(
            "scene_memory_web",
            default_value="false",
            description="Serve the web page with the parameters of scene_memory_web_params_file. Requires NiceGUI (the "
            "extra web)",
        ),
        DeclareLaunchArgument(
            "scene_memory_web_params_file",
            default_value=str(Path(default_params_file).with_name("web_dashboard.yaml")),
            description="Parameter file of the web page",
        ),
        DeclareLaunchArgument(
            "scene_memory_rviz", default_value="false", description="Show camera and memory in rviz2. Requires rviz2"
        ),
    ]
    names = [argument.name for argument in arguments]
    given: set[str] = set()
    return LaunchDescription(
        [
            OpaqueFunction(function=_check_names, args=[names]),
            # Before the declarations: these give every argument a value.
            OpaqueFunction(function=_record_given, args=[names, given]),
            *arguments,
            OpaqueFunction(function=_make_nodes, args=[given]),
        ]
    )


def _check_names(context: LaunchContext, names: list[str]) -> None:
    """Take the names of 0.1.0 with a warning; refuse misspelled ones, which launch would ignore.

    In an including file a generic name may be an argument of its own, so its value is not used.
    """
    old_names = [name.removeprefix(PREFIX) for name in names if name.startswith(PREFIX)]
    if _launched_by_command_line(sys.argv[1:]):
        given = [argument.partition(":=")[0] for argument in context.argv]
        _refuse_unknown(given, [*names, *old_names])
        used = [name for name in old_names if name in given]
    else:
        used = _inherited(context.launch_configurations, old_names)
        unused = [name for name in old_names if name in context.launch_configurations and name not in used]
        if unused:
            get_logger(Path(__file__).name).info(_unused(unused))
    for name in used:
        _warn(f"the argument {name} is now {PREFIX}{name}; the old name will be removed in 0.3.0")
        context.launch_configurations.setdefault(PREFIX + name, context.launch_configurations[name])


def _inherited(configurations: dict[str, Any], old_names: list[str]) -> list[str]:
    """Return the names of 0.1.0 whose values in an including file are used."""
    exclusive = ("image_topic", "cameras")
    given = [name for name in old_names if name not in GENERIC_NAMES and str(configurations.get(name, "")).strip()]
    if any(PREFIX + name in configurations for name in exclusive):
        given = [name for name in given if name not in exclusive]
    if all(name in given for name in exclusive):
        given.remove("image_topic")
    return [name for name in given if PREFIX + name not in configurations]


def _unused(names: list[str]) -> str:
    return (
        f"not used are these arguments of the including file: {', '.join(names)}. If they are meant for scene_memory, "
        f"add the prefix {PREFIX}, such as {PREFIX}{names[0]}"
    )


def _refuse_unknown(given: list[str], names: list[str]) -> None:
    for name in given:
        if name not in names and name not in LAUNCH_OWN_NAMES:
            known = [one for one in names if one.startswith(PREFIX) or PREFIX + one not in names]
            plain = [name.removeprefix(PREFIX)] if name.removeprefix(PREFIX) in known else []
            close = plain or [
                one for word in (name, PREFIX + name) for one in difflib.get_close_matches(word, known, n=1)
            ]
            hint = f"did you mean '{close[0]}'?" if close else f"the arguments are {', '.join(known)}"
            raise RuntimeError(f"{Path(__file__).name} has no argument '{name}': {hint}")


def _warn(text: str) -> None:
    get_logger(Path(__file__).name).warning(text)


def _launched_by_command_line(words: list[str]) -> bool:
    """Return whether it has ``launch delayed_vlm_ros bringup.launch.py`` or ``launch path/to/bringup.launch.py``."""
    this_file = Path(__file__)
    for before, word in pairwise(words):
        if before == PACKAGE and word == this_file.name:
            return True
        if (before == "launch" or before.startswith("-")) and Path(word).is_file() and this_file.samefile(word):
            return True
    return False


def _record_given(context: LaunchContext, names: list[str], given: set[str]) -> None:
    given.clear()
    given.update(name.removeprefix(PREFIX) for name in names if name in context.launch_configurations)


def _make_nodes(context: LaunchContext, given: set[str]) -> list[Node]:
    settings = _settings(context.launch_configurations)
    use_sim_time = {"use_sim_time": _boolean(settings, "use_sim_time")} if "use_sim_time" in given else {}
    if settings["bag"] and not use_sim_time:
        use_sim_time = {"use_sim_time": True}
    memory: dict[str, Any] = dict(use_sim_time)
    if "autostart" in given:
        memory["autostart"] = _boolean(settings, "autostart")
    if settings["model"]:
        memory["model.name"] = _text(settings["model"])
    if settings["image_transport"]:
        memory["image_transport"] = _text(settings["image_transport"])
    topics = _topics_of_cameras(settings["cameras"], given)
    if topics:
        memory["cameras"] = list(topics)
    remappings = _remappings(settings, topics)
    nodes = [_node("scene_memory", settings, _given_file(settings, "params_file"), memory, remappings)]
    nodes += _cameras(settings, use_sim_time, [("image", _first_topic(settings, topics))])
    if _boolean(settings, "web"):
        nodes.append(_node("web_dashboard", settings, _given_file(settings, "web_params_file"), use_sim_time, []))
    if _boolean(settings, "rviz"):
        nodes.append(_rviz(settings, use_sim_time, topics))
    return nodes


def _settings(configurations: dict[str, Any]) -> dict[str, str]:
    """Return the values of this file's arguments by their names without the prefix."""
    own = {name: value for name, value in configurations.items() if name.startswith(PREFIX) or name in NAV2_NAMES}
    return {name.removeprefix(PREFIX): str(value).strip() for name, value in own.items()}


def _cameras(settings: dict[str, str], use_sim_time: dict[str, Any], remappings: list[tuple[str, str]]) -> list[Node]:
    """Return the node of the selected camera; empty if there is none."""
    camera_kind = _selected_camera(settings)
    if camera_kind == "demo_camera":
        return [_node("demo_camera", settings, _own_file("demo_camera"), use_sim_time, remappings)]
    if camera_kind == "video":
        camera = {**use_sim_time, "video": _text(settings["video"])}
        return [_node("video_camera", settings, _own_file("video_camera"), camera, remappings)]
    if camera_kind == "bag":
        # Without use_sim_time: this node publishes /clock.
        camera = {"bag": _text(settings["bag"]), "topic": _text(settings["bag_topic"])}
        return [_node("bag_camera", settings, _own_file("bag_camera"), camera, remappings)]
    return []


def _selected_camera(settings: dict[str, str]) -> str:
    """Return the argument that selects a camera; empty if none does."""
    given = {"demo_camera": _boolean(settings, "demo_camera"), "video": settings["video"], "bag": settings["bag"]}
    names = [name for name, value in given.items() if value]
    if len(names) > 1:
        arguments = " and ".join(PREFIX + name for name in names)
        raise RuntimeError(f"arguments {arguments} would publish the same image topic: choose one")
    return names[0] if names else ""


def _topics_of_cameras(text: str, given: set[str]) -> dict[str, str]:
    """Return the image topics of the argument ``cameras``, by camera name."""
    if text and "image_topic" in given:
        raise RuntimeError(
            f"arguments {PREFIX}cameras and {PREFIX}image_topic exclude each other: use {PREFIX}cameras:=<name>:<topic>"
        )
    topics: dict[str, str] = {}
    for item in text.replace(",", " ").split():
        name, _, topic = item.partition(":")
        if name in topics:
            raise RuntimeError(f"argument {PREFIX}cameras has the name '{name}' twice")
        topics.update({name: topic or f"{name}/image"})
    return topics


def _node(
    name: str, settings: dict[str, str], params_file: str, overrides: dict[str, Any], remappings: list[tuple[str, str]]
) -> Node:
    """Return a node with its parameter file, overridden by the launch arguments.

    With an explicit node name, launch applies the overrides to this node only, and they also override a parameter file
    that contains the node's name.
    """
    respawn = _boolean(settings, "use_respawn")
    return Node(
        package=PACKAGE,
        executable=name,
        name=name,
        namespace=settings["namespace"],
        parameters=[_for_namespace(params_file, name, settings["namespace"]), *([overrides] if overrides else [])],
        remappings=remappings,
        ros_arguments=["--log-level", settings["log_level"]],
        respawn=respawn,
        respawn_delay=RESPAWN_DELAY_SEC,
        output="screen",
        emulate_tty=True,
    )


def _given_file(settings: dict[str, str], argument: str) -> str:
    """Return the path of a parameter file that the user gives."""
    path = Path(settings[argument]).expanduser()
    if not path.is_file():
        raise RuntimeError(f"cannot find the parameter file {path}: check the argument {PREFIX}{argument}")
    return str(path)


def _for_namespace(path: str, node: str, namespace: str) -> str:
    """Return the path of a parameter file whose plain key of the node is changed to the node's full name.

    The changed copy stays until the machine deletes its temporary files, as the files that launch writes itself.
    """
    text = Path(path).read_text(encoding="utf-8")
    changed = with_namespace(text, node, namespace)
    if changed == text:
        return path
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", prefix=f"{node}_", suffix=".yaml", delete=False) as copy:
        copy.write(changed)
    return copy.name


def _first_topic(settings: dict[str, str], cameras: dict[str, str]) -> str:
    """Return the image topic of the first camera, on which a camera started here publishes."""
    return next(iter(cameras.values()), settings["image_topic"])


def _remappings(settings: dict[str, str], cameras: dict[str, str]) -> list[tuple[str, str]]:
    """Return the remappings of the cameras' images and poses."""
    if len(cameras) > 1:
        images = [(f"{name}/image", topic) for name, topic in cameras.items()]
        poses = [(f"{name}/pose", settings["pose_topic"]) for name in cameras if settings["pose_topic"] != "pose"]
        return [*images, *poses]
    return [("image", _first_topic(settings, cameras)), ("pose", settings["pose_topic"])]


def _rviz(settings: dict[str, str], overrides: dict[str, Any], cameras: dict[str, str]) -> Node:
    """Return rviz2 with the displays of the first camera; the absolute topics of its file are remapped."""
    topics = {"image": _first_topic(settings, cameras)}
    return Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", str(Path(get_package_share_directory(PACKAGE)) / "rviz" / "scene_memory.rviz")],
        parameters=[overrides] if overrides else [],
        remappings=[(f"/{topic}", _absolute(topics.get(topic, topic), settings["namespace"])) for topic in RVIZ_TOPICS],
    )


def _absolute(topic: str, namespace: str) -> str:
    return topic if topic.startswith("/") else "/".join(["", *filter(None, [namespace.strip("/"), topic])])


def _own_file(name: str) -> str:
    return str(Path(get_package_share_directory(PACKAGE)) / "config" / f"{name}.yaml")


def _text(value: str) -> ParameterValue:
    """Return a string parameter; launch would convert ``123`` to a number."""
    return ParameterValue(value, value_type=str)


def _boolean(settings: dict[str, str], name: str) -> bool:
    value = settings[name].lower()
    if value not in ("true", "false", "1", "0"):
        argument = name if name in NAV2_NAMES else PREFIX + name
        raise RuntimeError(f"argument {argument} must be true or false, got '{settings[name]}'")
    return value in ("true", "1")
