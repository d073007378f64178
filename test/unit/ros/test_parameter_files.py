"""Parameter files: keys that select a node, keys that select none, and the rewriting of a node's key."""

import pytest
import yaml

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from delayed_vlm_ros.ros.parameter_files import selects, unused_key_warnings, with_namespace

NODE = "/robot1/scene_memory"


@pytest.mark.parametrize(  # as rcl matches them
    ("key", "expected"),
    [
        ("/**", True),
        ("**", True),
        ("/robot1/scene_memory", True),
        ("robot1/scene_memory", True),
        ("/*/scene_memory", True),
        ("/**/scene_memory", True),
        ("/robot1/*", True),
        ("/robot1/**", True),
        ("scene_memory", False),
        ("/scene_memory", False),
        ("/*", False),
        ("*", False),
        ("/robot2/scene_memory", False),
        ("/robot1/scene_memory/more", False),
        ("/robot1/scene.memory", False),
        ("", False),
    ],
)
def test_key_selects_the_nodes_that_ros_selects(key, expected):
    assert selects(key, NODE) is expected


def test_wildcard_selects_a_node_without_namespace():
    assert selects("/*", "/scene_memory")
    assert selects("scene_memory", "/scene_memory")


def warnings_of(tmp_path, text, *arguments, node=NODE):
    path = tmp_path / "my.yaml"
    path.write_text(text, encoding="utf-8")
    return unused_key_warnings(["program", "--ros-args", "--params-file", str(path), *arguments], node)


def parameters(*keys):
    return "".join(f"{key}:\n  ros__parameters: {{autostart: true}}\n" for key in keys)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (parameters("scene_memory"), "/scene_memory"),
        (parameters("/scene_memory"), "/scene_memory"),
        (parameters("/robot2/scene_memory"), "/robot2/scene_memory"),
        (parameters("/**", "scene_memory"), "/scene_memory"),
        (parameters("/**", "/robot1/scene_memmory"), "/robot1/scene_memmory"),
        ("scene_memory:\n  ros__parameters: {date: 2001-99-99}\n", "/scene_memory"),
        (parameters("amcl", "scene_memory_node"), "/scene_memory_node"),
        ("robot2:\n  scene_memory:\n    ros__parameters: {autostart: true}\n", "/robot2/scene_memory"),
    ],
)
def test_key_that_selects_another_node_is_reported(tmp_path, text, named):
    (warning,) = warnings_of(tmp_path, text)
    assert f"parameters for {named} are not used" in warning
    assert "my.yaml" in warning
    assert f"use the key {NODE} or /**" in warning


@pytest.mark.parametrize(
    "text",
    [
        parameters("/**"),
        parameters("/robot1/scene_memory"),
        parameters("/robot1/scene_memory", "/robot2/scene_memory", "other_node"),
        parameters("/**", "other_node"),
        "robot1:\n  scene_memory:\n    ros__parameters: {autostart: true}\n",
        parameters("amcl", "/a/camera", "controller_server"),  # one file for all nodes of a robot
        "",
        "# nothing\n",
    ],
)
def test_file_for_this_node_is_not_reported(tmp_path, text):
    assert warnings_of(tmp_path, text) == []


def test_override_of_another_node_is_reported(tmp_path):
    (warning,) = warnings_of(tmp_path, "", "-p", "scene_memory:autostart:=false", "-p", "model.name:=a:b", "-r", "a:=b")
    assert warning.startswith("argument -p scene_memory:autostart:=false: the parameters for scene_memory are not used")


def test_words_outside_the_ros_arguments_are_ignored():
    assert unused_key_warnings(["program", "-p", "a:b:=c", "--ros-args", "--", "-p", "a:b:=c"], NODE) == []


def test_plain_node_name_becomes_the_full_name_and_all_else_stays():
    text = (
        "# my robot\n"
        "scene_memory:  # ours\n"
        "  ros__parameters:\n"
        "    scene_memory: 1:30   # a name in the text\n"
        "    precompute: {mode: off}\n"
        "'/other':\n"
        "  ros__parameters: {}\n"
    )
    expected = text.replace("scene_memory:  # ours", "/robot1/scene_memory:  # ours")
    assert with_namespace(text, "scene_memory", "robot1") == expected
    assert with_namespace(text, "scene_memory", "/robot1/") == expected
    quoted = text.replace("scene_memory:  #", '"/scene_memory":  #')
    assert with_namespace(quoted, "scene_memory", "/robot1") == expected
    assert list(yaml.safe_load(with_namespace(text, "scene_memory", "/a/b"))) == ["/a/b/scene_memory", "/other"]


@pytest.mark.parametrize("text", ["", "- a\n", parameters("/**"), parameters("/robot1/scene_memory"), "robot1: {}\n"])
def test_file_without_the_plain_node_name_stays(text):
    assert with_namespace(text, "scene_memory", "robot1") == text


@pytest.mark.parametrize("namespace", ["", "/"])
def test_file_stays_without_a_namespace(namespace):
    text = parameters("scene_memory")
    assert with_namespace(text, "scene_memory", namespace) == text
