"""Start scene_memory and, if asked for, a camera to go with it.

    ros2 launch delayed_vlm_ros bringup.launch.py demo_camera:=true
    ros2 launch delayed_vlm_ros bringup.launch.py namespace:=robot1 image_topic:=/robot1/front/image_raw
    ros2 launch delayed_vlm_ros bringup.launch.py cameras:="front:/front/image_raw rear:/rear/image_raw"
    ros2 launch delayed_vlm_ros bringup.launch.py image_topic:=/camera/image_raw web:=true
    ros2 launch delayed_vlm_ros bringup.launch.py --show-args

An argument given here overrides the parameter file; one not given leaves the file's value alone. To include this file
in another one, put the inclusion into a GroupAction, so that its arguments do not reach the files included after it.
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
# Names that launch itself understands on the command line of any launch file.
LAUNCH_OWN_NAMES = ("launch-prefix", "launch-prefix-filter", "sigterm_timeout", "sigkill_timeout")
RESPAWN_DELAY_SEC = 2.0
# What rviz/scene_memory.rviz shows, by the names that these topics have in the namespace.
RVIZ_TOPICS = ("image", "scene_memory/star_mosaic", "scene_memory/stream_mosaic")


def generate_launch_description() -> LaunchDescription:
    """What to launch: the checks, the arguments, the nodes."""
    default_params_file = str(Path(get_package_share_directory(PACKAGE)) / "config" / "scene_memory.yaml")
    arguments = [
        DeclareLaunchArgument(
            "namespace", default_value="", description="Namespace for all nodes, topics and services"
        ),
        DeclareLaunchArgument(
            "use_sim_time",
            default_value="false",
            description="Take the time from /clock (not given: what params_file says, else false)",
        ),
        DeclareLaunchArgument(
            "params_file", default_value=default_params_file, description="Parameter file of scene_memory"
        ),
        DeclareLaunchArgument(
            "autostart",
            default_value="true",
            description="scene_memory configures and activates itself (not given: what params_file says, else true)",
        ),
        DeclareLaunchArgument(
            "log_level", default_value="info", description="Log level of the nodes: debug, info, warn, error or fatal"
        ),
        DeclareLaunchArgument("use_respawn", default_value="false", description="Start a node again when it ends"),
        DeclareLaunchArgument(
            "model",
            default_value="",
            description="Parameter model.name: auto, demo, a folder, a name on the hub (empty: what params_file says)",
        ),
        DeclareLaunchArgument(
            "image_topic",
            default_value="image",
            description="Topic with the images of the camera, where there is one; of several, each has its own: see "
            "cameras. It is also where demo_camera, video and bag publish, unless cameras is given",
        ),
        DeclareLaunchArgument(
            "image_transport",
            default_value="",
            description="Parameter image_transport: raw, or compressed for <image_topic>/compressed (empty: what "
            "params_file says)",
        ),
        DeclareLaunchArgument(
            "cameras",
            default_value="",
            description="Several cameras with their topics: 'front:/front/image_raw rear:/rear/image_raw'; without a "
            "topic, <name>/image. demo_camera, video and bag are the first one. Empty: what params_file says; if that "
            "names several, their images are expected on <name>/image and their poses on <name>/pose, whatever "
            "image_topic and pose_topic say: remap those in a launch file of your own, or name the cameras here",
        ),
        DeclareLaunchArgument(
            "pose_topic",
            default_value="pose",
            description="Topic with the camera's poses (optional, PoseStamped); all cameras named in cameras share it. "
            "If it is left at pose, each of several has <name>/pose",
        ),
        DeclareLaunchArgument(
            "demo_camera", default_value="false", description="Start a camera in a synthetic room as well"
        ),
        DeclareLaunchArgument(
            "video",
            default_value="",
            description="Start a camera that plays this video file or camera device, such as /dev/video0, as well",
        ),
        DeclareLaunchArgument(
            "bag",
            default_value="",
            description="Play this ROS 2 bag (or another recording) with its own time as well: scene_memory then has "
            "use_sim_time, unless that is given",
        ),
        DeclareLaunchArgument(
            "bag_topic", default_value="", description="Which images of the bag (empty: those of its only topic)"
        ),
        DeclareLaunchArgument(
            "web",
            default_value="false",
            description="Serve the web page, with the parameters of web_params_file; needs NiceGUI (the extra web)",
        ),
        DeclareLaunchArgument(
            "web_params_file",
            default_value=str(Path(default_params_file).with_name("web_dashboard.yaml")),
            description="Parameter file of the web page",
        ),
        DeclareLaunchArgument(
            "rviz", default_value="false", description="Show camera and memory in rviz2, which must be installed"
        ),
    ]
    names = [argument.name for argument in arguments]
    given: set[str] = set()
    return LaunchDescription(
        [
            OpaqueFunction(function=_refuse_unknown_names, args=[names]),
            # Before the declarations: they give every argument a value, and what the user said can no longer be told.
            OpaqueFunction(function=_note_given, args=[names, given]),
            *arguments,
            OpaqueFunction(function=_make_nodes, args=[given]),
        ]
    )


def _refuse_unknown_names(context: LaunchContext, names: list[str]) -> None:
    """Stop at a mistyped argument, which launch would ignore.

    Only when the command line launches this very file: one that includes it has arguments of its own.
    """
    if not _launched_by_command_line(sys.argv[1:]):
        return
    for word in context.argv:
        name = word.partition(":=")[0]
        if name not in names and name not in LAUNCH_OWN_NAMES:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"it has {', '.join(names)}"
            raise RuntimeError(f"{Path(__file__).name} has no argument '{name}': {hint}")


def _launched_by_command_line(words: list[str]) -> bool:
    """Whether it is ``launch delayed_vlm_ros bringup.launch.py`` or ``launch path/to/bringup.launch.py``."""
    this = Path(__file__)
    for before, word in pairwise(words):
        if before == PACKAGE and word == this.name:
            return True
        if (before == "launch" or before.startswith("-")) and Path(word).is_file() and this.samefile(word):
            return True
    return False


def _note_given(context: LaunchContext, names: list[str], given: set[str]) -> None:
    given.clear()
    given.update(name for name in names if name in context.launch_configurations)


def _make_nodes(context: LaunchContext, given: set[str]) -> list[Node]:
    settings = {name: str(value).strip() for name, value in context.launch_configurations.items()}
    use_sim_time = {"use_sim_time": _truth(settings, "use_sim_time")} if "use_sim_time" in given else {}
    if settings["bag"] and not use_sim_time:
        use_sim_time = {"use_sim_time": True}
    memory: dict[str, Any] = dict(use_sim_time)
    if "autostart" in given:
        memory["autostart"] = _truth(settings, "autostart")
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
    if _truth(settings, "web"):
        nodes.append(_node("web_dashboard", settings, settings["web_params_file"], use_sim_time, []))
    if _truth(settings, "rviz"):
        nodes.append(_rviz(settings, use_sim_time, topics))
    return nodes


def _cameras(settings: dict[str, str], use_sim_time: dict[str, Any], remappings: list[tuple[str, str]]) -> list[Node]:
    """The camera that is started as well, where one is wanted."""
    wanted = _wanted_camera(settings)
    if wanted == "demo_camera":
        return [_node("demo_camera", settings, _own_file("demo_camera"), use_sim_time, remappings)]
    if wanted == "video":
        camera = {**use_sim_time, "video": _text(settings["video"])}
        return [_node("video_camera", settings, _own_file("video_camera"), camera, remappings)]
    if wanted == "bag":
        # Not with the time that it makes itself.
        camera = {"bag": _text(settings["bag"]), "topic": _text(settings["bag_topic"])}
        return [_node("bag_camera", settings, _own_file("bag_camera"), camera, remappings)]
    return []


def _wanted_camera(settings: dict[str, str]) -> str:
    """The argument that asks for a camera; empty where none does."""
    given = {"demo_camera": _truth(settings, "demo_camera"), "video": settings["video"], "bag": settings["bag"]}
    names = [name for name, value in given.items() if value]
    if len(names) > 1:
        raise RuntimeError(f"{' and '.join(names)} are given, and each would publish the image topic: choose one")
    return names[0] if names else ""


def _topics_of_cameras(words: str, given: set[str]) -> dict[str, str]:
    """The topics of several cameras by name; of a single one, too, whose images the node expects on ``image``."""
    if words and "image_topic" in given:
        raise RuntimeError("both cameras and image_topic are given: write the topic behind the camera's name")
    topics: dict[str, str] = {}
    for word in words.replace(",", " ").split():
        name, _, topic = word.partition(":")
        if name in topics:
            raise RuntimeError(f"argument cameras names '{name}' twice")
        topics.update({name: topic or f"{name}/image"})
    return topics


def _node(
    name: str, settings: dict[str, str], params_file: str, overrides: dict[str, Any], remappings: list[tuple[str, str]]
) -> Node:
    """A node with its parameter file and, after it, what was given as arguments.

    The node's name is given although it is its own: launch then addresses the overrides to this node alone, and they
    also win over a parameter file that names the node.
    """
    path = Path(params_file).expanduser()
    if not path.is_file():
        raise RuntimeError(f"there is no parameter file {path} for {name}: check the argument params_file")
    respawn = _truth(settings, "use_respawn")
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
    """Where the first camera's images come from, and so where a camera that is started as well publishes."""
    return next(iter(cameras.values()), settings["image_topic"])


def _remappings(settings: dict[str, str], cameras: dict[str, str]) -> list[tuple[str, str]]:
    """Where the memory gets the cameras' images and poses from."""
    if len(cameras) > 1:
        images = [(f"{name}/image", topic) for name, topic in cameras.items()]
        poses = [(f"{name}/pose", settings["pose_topic"]) for name in cameras if settings["pose_topic"] != "pose"]
        return [*images, *poses]
    return [("image", _first_topic(settings, cameras)), ("pose", settings["pose_topic"])]


def _rviz(settings: dict[str, str], overrides: dict[str, Any], cameras: dict[str, str]) -> Node:
    """Rviz2 with our displays, of the first camera. Its file has absolute topics, remapped to where ours are."""
    places = {"image": _first_topic(settings, cameras)}
    return Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", str(Path(get_package_share_directory(PACKAGE)) / "rviz" / "scene_memory.rviz")],
        parameters=[overrides] if overrides else [],
        remappings=[(f"/{topic}", _absolute(places.get(topic, topic), settings["namespace"])) for topic in RVIZ_TOPICS],
    )


def _absolute(topic: str, namespace: str) -> str:
    return topic if topic.startswith("/") else "/".join(["", *filter(None, [namespace.strip("/"), topic])])


def _own_file(name: str) -> str:
    return str(Path(get_package_share_directory(PACKAGE)) / "config" / f"{name}.yaml")


def _text(value: str) -> ParameterValue:
    """A string parameter; launch would make a number of ``123``."""
    return ParameterValue(value, value_type=str)


def _truth(settings: dict[str, str], name: str) -> bool:
    word = settings[name].lower()
    if word not in ("true", "false", "1", "0"):
        raise RuntimeError(f"argument {name} is '{settings[name]}'; it must be true or false")
    return word in ("true", "1")
