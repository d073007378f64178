"""Start scene_memory and, optionally, a camera, the web page and rviz2.

    ros2 launch delayed_vlm_ros bringup.launch.py demo_camera:=true
    ros2 launch delayed_vlm_ros bringup.launch.py namespace:=robot1 image_topic:=/robot1/front/image_raw
    ros2 launch delayed_vlm_ros bringup.launch.py cameras:="front:/front/image_raw rear:/rear/image_raw"
    ros2 launch delayed_vlm_ros bringup.launch.py image_topic:=/camera/image_raw web:=true
    ros2 launch delayed_vlm_ros bringup.launch.py --show-args

An argument on the command line overrides the parameter file. Without the argument the file's value is used. To include
this file in another one, put the inclusion into a GroupAction, so that its arguments do not affect later inclusions.
"""

from __future__ import annotations

import difflib
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

PACKAGE = "delayed_vlm_ros"
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
            description="Use the time of /clock. Without the argument: the value of params_file, or false",
        ),
        DeclareLaunchArgument(
            "params_file", default_value=default_params_file, description="Parameter file of scene_memory"
        ),
        DeclareLaunchArgument(
            "autostart",
            default_value="true",
            description="Configure and activate scene_memory at start. Without the argument: the value of params_file",
        ),
        DeclareLaunchArgument(
            "log_level", default_value="info", description="Log level of the nodes: debug, info, warn, error or fatal"
        ),
        DeclareLaunchArgument("use_respawn", default_value="false", description="Restart a node when it exits"),
        DeclareLaunchArgument(
            "model",
            default_value="",
            description="Parameter model.name: auto, demo, a folder or a hub name. Empty: the value of params_file",
        ),
        DeclareLaunchArgument(
            "image_topic",
            default_value="image",
            description="Image topic of a single camera, also of demo_camera, video and bag. For several cameras use "
            "the argument cameras instead",
        ),
        DeclareLaunchArgument(
            "image_transport",
            default_value="",
            description="Parameter image_transport: raw, or compressed for <image_topic>/compressed. Empty: the value "
            "of params_file",
        ),
        DeclareLaunchArgument(
            "cameras",
            default_value="",
            description="Several cameras with their image topics: 'front:/front/image_raw rear:/rear/image_raw'. The "
            "default topic is <name>/image. demo_camera, video and bag are the first camera. Empty: the cameras of "
            "params_file. If these are several, image_topic and pose_topic do not apply: images are expected on "
            "<name>/image and poses on <name>/pose. Remap them in your own launch file, or use this argument",
        ),
        DeclareLaunchArgument(
            "pose_topic",
            default_value="pose",
            description="Topic of the camera's poses (geometry_msgs/PoseStamped), shared by all cameras of the "
            "argument cameras. With the default, each of several cameras uses <name>/pose",
        ),
        DeclareLaunchArgument(
            "demo_camera", default_value="false", description="Also start a camera in a synthetic room"
        ),
        DeclareLaunchArgument(
            "video",
            default_value="",
            description="Also start a camera that plays this video file or camera device, such as /dev/video0",
        ),
        DeclareLaunchArgument(
            "bag",
            default_value="",
            description="Also play this ROS 2 bag or other recording in its own time. use_sim_time is then true by "
            "default",
        ),
        DeclareLaunchArgument(
            "bag_topic", default_value="", description="Image topic of the bag. Empty: its only image topic"
        ),
        DeclareLaunchArgument(
            "web",
            default_value="false",
            description="Serve the web page with the parameters of web_params_file. Requires NiceGUI (the extra web)",
        ),
        DeclareLaunchArgument(
            "web_params_file",
            default_value=str(Path(default_params_file).with_name("web_dashboard.yaml")),
            description="Parameter file of the web page",
        ),
        DeclareLaunchArgument(
            "rviz", default_value="false", description="Show camera and memory in rviz2. Requires rviz2"
        ),
    ]
    names = [argument.name for argument in arguments]
    given: set[str] = set()
    return LaunchDescription(
        [
            OpaqueFunction(function=_reject_unknown_arguments, args=[names]),
            # Before the declarations: these give every argument a value.
            OpaqueFunction(function=_record_given, args=[names, given]),
            *arguments,
            OpaqueFunction(function=_make_nodes, args=[given]),
        ]
    )


def _reject_unknown_arguments(context: LaunchContext, names: list[str]) -> None:
    """Raise an error for a misspelled argument, which launch would ignore.

    Only if the command line launches this file: a file that includes it has other arguments.
    """
    if not _launched_by_command_line(sys.argv[1:]):
        return
    for argument in context.argv:
        name = argument.partition(":=")[0]
        if name not in names and name not in LAUNCH_OWN_NAMES:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"the arguments are {', '.join(names)}"
            raise RuntimeError(f"{Path(__file__).name} has no argument '{name}': {hint}")


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
    given.update(name for name in names if name in context.launch_configurations)


def _make_nodes(context: LaunchContext, given: set[str]) -> list[Node]:
    settings = {name: str(value).strip() for name, value in context.launch_configurations.items()}
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
    nodes = [_node("scene_memory", settings, settings["params_file"], memory, remappings)]
    nodes += _cameras(settings, use_sim_time, [("image", _first_topic(settings, topics))])
    if _boolean(settings, "web"):
        nodes.append(_node("web_dashboard", settings, settings["web_params_file"], use_sim_time, []))
    if _boolean(settings, "rviz"):
        nodes.append(_rviz(settings, use_sim_time, topics))
    return nodes


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
        raise RuntimeError(f"arguments {' and '.join(names)} would publish the same image topic: choose one")
    return names[0] if names else ""


def _topics_of_cameras(text: str, given: set[str]) -> dict[str, str]:
    """Return the image topics of the argument ``cameras``, by camera name."""
    if text and "image_topic" in given:
        raise RuntimeError("arguments cameras and image_topic exclude each other: use cameras:=<name>:<topic>")
    topics: dict[str, str] = {}
    for item in text.replace(",", " ").split():
        name, _, topic = item.partition(":")
        if name in topics:
            raise RuntimeError(f"argument cameras has the name '{name}' twice")
        topics.update({name: topic or f"{name}/image"})
    return topics


def _node(
    name: str, settings: dict[str, str], params_file: str, overrides: dict[str, Any], remappings: list[tuple[str, str]]
) -> Node:
    """Return a node with its parameter file, overridden by the launch arguments.

    With an explicit node name, launch applies the overrides to this node only, and they also override a parameter file
    that contains the node's name.
    """
    path = Path(params_file).expanduser()
    if not path.is_file():
        raise RuntimeError(f"cannot find the parameter file {path} of {name}: check the argument params_file")
    respawn = _boolean(settings, "use_respawn")
    return Node(
        package=PACKAGE,
        executable=name,
        name=name,
        namespace=settings["namespace"],
        parameters=[str(path), *([overrides] if overrides else [])],
        remappings=remappings,
        ros_arguments=["--log-level", settings["log_level"]],
        respawn=respawn,
        respawn_delay=RESPAWN_DELAY_SEC,
        output="screen",
        emulate_tty=True,
    )


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
        raise RuntimeError(f"argument {name} must be true or false, got '{settings[name]}'")
    return value in ("true", "1")
