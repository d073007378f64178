"""Checks of what was seen of the ROS graph, without ROS: topics, clocks, node and model."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from delayed_vlm_ros.doctor import clocks, model, node, topics
from delayed_vlm_ros.doctor.finding import Level
from delayed_vlm_ros.doctor.observation import (
    Camera,
    ClockTopic,
    DiagnosticLine,
    Observation,
    Topic,
    from_json,
)
from delayed_vlm_ros.errors import DelayedVlmError, ModelNotFoundError, UnsupportedModelError
from delayed_vlm_ros.images.messages import COMPRESSED_TYPE, RAW_TYPE
from delayed_vlm_ros.resources import data_folder

NOW_NS = 1_796_000_000 * 10**9
STAMPS = tuple(NOW_NS + number * 10**8 for number in range(20))
TOPIC = Topic("/image", (RAW_TYPE,), ("/driver",), "reliable", "", 2.0, STAMPS, STAMPS, 900_000)
SEEN = Observation(
    "rmw_fastrtps_cpp",
    "/scene_memory",
    nodes=("/driver", "/scene_memory"),
    topics=(TOPIC,),
    state="active",
    parameters={"use_sim_time": False},
    diagnostics=(DiagnosticLine("lifecycle", 0, "active", {}),),
    cameras=(Camera("camera", "/image", RAW_TYPE),),
)
DEMO = data_folder("demo", "tiny_scene")


def with_topics(*changed, **changes):
    return replace(SEEN, topics=(replace(TOPIC, **changes), *changed))


def the_only(findings, level, *named):
    (found,) = findings
    assert found.level is level, found
    assert all(text in found.line for text in named), found.line
    return found


def test_observation_survives_json():
    assert from_json(json.loads(json.dumps(asdict(SEEN)))) == SEEN


# --- Topics ---------------------------------------------------------------------------------------------------------


def test_camera_that_publishes_is_ok():
    the_only(topics.topic_findings(SEEN), Level.OK, "/image (Image, reliable, 10.0 Hz, 0.9 MB each)")


def test_missing_remapping_is_an_error_that_names_the_published_topics():
    seen = replace(SEEN, topics=(replace(TOPIC, name="/front/color"), Topic("/image", (RAW_TYPE,))))
    the_only(
        topics.topic_findings(seen), Level.ERROR, "nobody publishes /image", "scene_memory_image_topic:=/front/color"
    )


def test_compressed_images_alone_are_an_error_that_names_the_transport():
    seen = replace(SEEN, topics=(replace(TOPIC, name="/front/color/compressed", types=(COMPRESSED_TYPE,)),))
    the_only(
        topics.topic_findings(seen),
        Level.ERROR,
        "scene_memory_image_topic:=/front/color scene_memory_image_transport:=compressed",
    )


def test_graph_without_images_is_an_error():
    the_only(topics.topic_findings(replace(SEEN, topics=())), Level.ERROR, "no node publishes images")


@pytest.mark.parametrize(
    ("kind", "named"),
    [(COMPRESSED_TYPE, "set image_transport to compressed"), ("std_msgs/msg/String", "std_msgs/msg/String")],
)
def test_topic_of_another_type_is_an_error(kind, named):
    the_only(topics.topic_findings(with_topics(types=(kind,), stamps_ns=())), Level.ERROR, named)


def test_quality_of_service_that_does_not_fit_is_an_error():
    seen = with_topics(incompatible="Best effort publisher and reliable subscription", stamps_ns=())
    the_only(
        topics.topic_findings(seen),
        Level.ERROR,
        "Best effort publisher",
        "qos_overrides./image.subscription.reliability",
    )


def test_silent_camera_is_a_warning():
    the_only(
        topics.topic_findings(with_topics(stamps_ns=(), arrivals_ns=())), Level.WARN, "no image on /image within 2.0 s"
    )


def test_two_publishers_are_a_warning():
    the_only(topics.topic_findings(with_topics(publishers=("/a", "/b"))), Level.WARN, "/a and /b")


def test_topics_are_listed_without_a_node():
    the_only(topics.topic_findings(replace(SEEN, cameras=())), Level.OK, "/image (Image, reliable, 10.0 Hz")
    the_only(topics.topic_findings(replace(SEEN, cameras=(), topics=())), Level.WARN, "no node publishes images")


def test_names_from_the_network_are_escaped():
    seen = with_topics(types=("\x1b[31m",), stamps_ns=())
    assert the_only(topics.topic_findings(seen), Level.ERROR).line.isprintable()


# --- Clocks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shift_sec", "level"), [(9, Level.OK), (11, Level.WARN), (-4, Level.OK), (-6, Level.WARN)])
def test_limits_of_a_stamps_age_are_those_of_the_node(shift_sec, level):
    arrivals = tuple(stamp + shift_sec * 10**9 for stamp in STAMPS)
    the_only(clocks.ros_clock_findings(with_topics(arrivals_ns=arrivals))[1:], level)


def levels(seen):
    return {one.subject: one.level.name for one in clocks.ros_clock_findings(seen)}


def test_present_stamps_are_ok():
    assert levels(SEEN) == {"ros clock": "OK", "stamps of camera": "OK"}


SIMULATED = replace(SEEN, parameters={"use_sim_time": True})


@pytest.mark.parametrize(
    ("clock", "expected"),
    [
        (ClockTopic(), {"ros clock": "ERROR"}),
        (ClockTopic(("/bag",), ()), {"ros clock": "WARN"}),
        (ClockTopic(("/bag", "/gazebo"), (NOW_NS,)), {"ros clock": "ERROR", "stamps of camera": "OK"}),
        (ClockTopic(("/bag",), (5, 5)), {"ros clock": "WARN", "stamps of camera": "WARN"}),
        (ClockTopic(("/bag",), (NOW_NS, STAMPS[-1])), {"ros clock": "OK", "stamps of camera": "OK"}),
    ],
)
def test_simulated_clock(clock, expected):
    assert levels(replace(SIMULATED, clock=clock)) == expected


def test_simulated_clock_that_the_node_ignores_is_a_warning():
    assert levels(replace(SEEN, clock=ClockTopic(("/bag",), (5, 6))))["ros clock"] == "WARN"


@pytest.mark.parametrize(
    ("stamps", "named"),
    [
        ((0,) * 20, "no stamp"),
        ((NOW_NS,) * 20, "all images on /image have the stamp 1796000000.000 s"),
        ((NOW_NS, NOW_NS + 10, NOW_NS) * 3, "go back"),
        (tuple(stamp - 600 * 10**9 for stamp in STAMPS), "600.0 s behind the node's clock"),
        (tuple(stamp + 600 * 10**9 for stamp in STAMPS), "600.0 s ahead of the node's clock"),
        (tuple(stamp - NOW_NS + 10**9 for stamp in STAMPS), "behind the node's clock"),
    ],
)
def test_wrong_stamps_are_a_warning(stamps, named):
    found = clocks.ros_clock_findings(with_topics(stamps_ns=stamps, arrivals_ns=STAMPS[: len(stamps)]))
    the_only(found[1:], Level.WARN, named)


# --- Node -----------------------------------------------------------------------------------------------------------


def test_active_node_is_ok():
    the_only(node.node_findings(SEEN), Level.OK, "/scene_memory on rmw_fastrtps_cpp is active")


def test_missing_node_is_a_warning_that_names_nodes_in_other_namespaces():
    the_only(node.node_findings(replace(SEEN, nodes=())), Level.WARN, "bringup.launch.py")
    the_only(node.node_findings(replace(SEEN, nodes=("/r/scene_memory",))), Level.WARN, "use --namespace /r")


def test_node_that_does_not_answer_is_an_error():
    the_only(node.node_findings(replace(SEEN, parameters=None, diagnostics=())), Level.ERROR, "does not answer")
    the_only(node.node_findings(replace(SEEN, diagnostics=())), Level.ERROR, "no diagnostics")


def test_node_that_is_busy_and_reports_is_a_warning():
    the_only(node.node_findings(replace(SEEN, parameters=None)), Level.WARN, "does not answer", "run this again")


@pytest.mark.parametrize(("level", "expected"), [(1, Level.WARN), (2, Level.ERROR), (3, Level.ERROR)])
def test_diagnostics_are_relayed(level, expected):
    line = DiagnosticLine("camera rear", level, "no image: check the camera", {})
    found = node.node_findings(replace(SEEN, diagnostics=(*SEEN.diagnostics, line)))
    the_only(found[1:], expected, "diagnostics of camera rear: no image: check the camera")


# --- Model ----------------------------------------------------------------------------------------------------------

GPU = {"name": "NVIDIA X", "free": 8 * 10**9, "total": 12 * 10**9, "bfloat16": True}


def check(settings, gpu=None, *, is_loaded=False):
    return model.model_findings(settings, {"devices": [gpu] if gpu else []}, is_loaded=is_loaded)


def copied(tmp_path):
    return Path(shutil.copytree(DEMO, tmp_path / "model"))


def test_demo_model_is_a_warning_and_fits():
    found = check(model.settings_of(None))
    assert [one.level.name for one in found] == ["WARN", "OK"]
    assert "auto is demo" in found[0].line


def test_local_checkpoint_is_ok_and_planned_for_the_gpu(tmp_path):
    found = check(model.ModelSettings(str(copied(tmp_path))), GPU)
    assert [one.level.name for one in found] == ["OK", "OK"]
    assert "on the GPU" in found[1].line


@pytest.mark.parametrize(
    ("free", "is_loaded", "level"),
    [(10**6, False, "ERROR"), (10**8, False, "WARN"), (10**6, True, "OK"), (10**10, False, "OK")],
)
def test_model_is_compared_with_the_free_memory(tmp_path, free, is_loaded, level):
    settings = model.ModelSettings(str(copied(tmp_path)))
    assert check(settings, {**GPU, "free": free}, is_loaded=is_loaded)[1].level.name == level


def test_plan_counts_cameras_and_the_number_format(tmp_path):
    settings = model.ModelSettings(str(copied(tmp_path)), device="cpu")
    one, two = check(settings), check(replace(settings, cameras=2))
    assert "weights 7 MB" in one[1].line
    assert "images 2 MB for 40 frames and 1 camera)" in one[1].line
    assert "images 4 MB for 40 frames and 2 cameras)" in two[1].line
    assert "weights 3 MB" in check(replace(settings, dtype="bfloat16"))[1].line


def test_number_format_that_overflows_is_a_warning(tmp_path):
    _, found, _ = check(model.ModelSettings(str(copied(tmp_path)), dtype="float16"))
    assert found.level is Level.WARN


def test_settings_are_those_of_the_node():
    parameters = {
        "model.name": "x/y",
        "model.device": "cuda",
        "memory.star.size": 10,
        "memory.stream.size": 30,
        "cameras": ["a", "b"],
    }
    assert model.settings_of(parameters) == model.ModelSettings("x/y", "cuda", "auto", frames=40, cameras=2)


def test_model_that_is_not_on_this_machine_is_an_error():
    with pytest.raises(ModelNotFoundError, match="hf download no/such"):
        check(model.ModelSettings("no/such"))


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_missing_file_is_an_error(tmp_path, name):
    folder = copied(tmp_path)
    (folder / name).unlink()
    with pytest.raises(DelayedVlmError):
        check(model.ModelSettings(str(folder)))


def test_truncated_weights_are_an_error(tmp_path):
    weights = copied(tmp_path) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(UnsupportedModelError, match=r"model\.safetensors"):
        check(model.ModelSettings(str(weights.parent)))


def test_missing_shard_is_an_error(tmp_path):
    folder = copied(tmp_path)
    shards = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    (folder / "model.safetensors").rename(folder / shards[0])
    index = {"weight_map": dict(zip("ab", shards, strict=True))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelNotFoundError, match="lacks model-00002-of-00002"):
        check(model.ModelSettings(str(folder)))


def test_free_memory_is_limited_by_the_container(tmp_path):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 2000 kB\nMemAvailable:  1000 kB\n")
    assert model.free_memory(meminfo, tmp_path) == 1_024_000
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("5\n")
    assert model.free_memory(meminfo, tmp_path) == 1_024_000
    (tmp_path / "memory.max").write_text("1005\n")
    assert model.free_memory(meminfo, tmp_path) == 1000
