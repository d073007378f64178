"""Playback of a bag through ROS: the memory equals that of the same bag read without ROS, also with time jumps."""

import itertools
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from delayed_vlm_ros.srv import GetFrames
from harness import BAG_CAMERA, NodeProcess, nanoseconds, values_of
from recorded_bag import SECOND, START_NS, TOPIC, regular_stamps, write_bag
from waiting import wait_until

from delayed_vlm_ros.errors import ImageError
from delayed_vlm_ros.inference.local.models.checkpoint import resolve_checkpoint
from delayed_vlm_ros.ingest.ingestor import SamplingIngestor
from delayed_vlm_ros.memory import MemoryConfig
from delayed_vlm_ros.replay.recordings import open_recording
from delayed_vlm_ros.replay.runner import Replay, ReplaySettings
from delayed_vlm_ros.ros.scene_memory.parameters import SceneMemoryParameters, memory_config
from delayed_vlm_ros.time import seconds_of

# Small sizes: frames are evicted from Stream, and some are kept in Star.
SIZES = {"star_size": 8, "stream_size": 6, "sample_fps": 2.0}
QUEUE_DEPTH = 1000  # messages that may wait while a busy machine starves a node

_numbers = itertools.count(1)


@pytest.fixture
def start_memory(start):
    """Start a memory that loses no image on a busy machine; return it with its client."""

    def start_one(transport="raw", **parameters):
        namespace = f"/bag_{next(_numbers)}"
        topic = f"{namespace}/image" + ("/compressed" if transport == "compressed" else "")
        process, client = start(
            namespace=namespace,
            image_transport=transport,
            memory__sample_fps=SIZES["sample_fps"],
            **{
                f"qos_overrides.{topic}.subscription.{name}": value
                for name, value in (("reliability", "reliable"), ("depth", QUEUE_DEPTH))
            },
            **{"use_sim_time": "true", **parameters},
        )
        return process, client

    return start_one


@pytest.fixture
def play(ros):
    """Play a recording to the memory of a client."""
    players = []

    def start_one(client, bag, transport="raw", **parameters):
        topic = f"{client.namespace}/image" + ("/compressed" if transport == "compressed" else "")
        depth = {f"qos_overrides.{topic}.publisher.depth": QUEUE_DEPTH}
        players.append(NodeProcess(client.namespace, BAG_CAMERA, {"bag": bag, **depth, **parameters}, {}, {}))
        return players[-1]

    yield start_one
    for player in players:
        player.close()


def kept_without_ros(bag, *, restarts):
    """Return the pairs that a memory of ``SIZES`` keeps of a bag: stamps, memories and pixels."""
    parameters = SceneMemoryParameters(**SIZES)
    memory = memory_config(parameters).build()
    geometry = resolve_checkpoint("demo").geometry(parameters.max_pixels)
    ingestor = SamplingIngestor(geometry, memory, parameters.sample_fps, topic=TOPIC, restart_on_jump=restarts)
    with open_recording(bag) as recording:
        for image in recording.images():
            try:
                decision = ingestor.decide(image.stamp_ns, image.arrival_ns / SECOND, image.arrival_ns)
            except ImageError:  # it counts as an outlier
                continue
            if decision.is_due:
                ingestor.add(image.decode(), decision, image.stamp_ns)
    return [
        (kept.pair.first.source, kept.pair.last.source, kept.in_star, kept.in_stream, pixels(kept.pair))
        for kept in memory.snapshot()
    ]


def kept_by_replay(bag):
    """Return the pairs that ``delayed-vlm replay`` keeps of a bag: stamps in seconds, and pixels."""
    config = MemoryConfig(
        star_memory_size=SIZES["star_size"], stream_window_size=SIZES["stream_size"], sample_fps=SIZES["sample_fps"]
    )
    settings = ReplaySettings(memory=config)
    memory = config.build()
    no_methods = SimpleNamespace(cached_bytes=0, add=lambda _: None)
    with open_recording(bag) as recording:
        Replay(
            recording, (), memory, resolve_checkpoint("demo").geometry(config.max_pixels), no_methods, settings
        ).run()
    return [(kept.pair.first.stamp, kept.pair.last.stamp, pixels(kept.pair)) for kept in memory.snapshot()]


def pixels(pair):
    return [frame.image for frame in (pair.first, pair.second) if frame is not None]


def kept_by(client):
    """Return the pairs that a node keeps: stamps, memories and pixels."""
    response = client.call(GetFrames, "scene_memory/get_frames", GetFrames.Request())
    assert response.success
    assert not response.left_out
    return [
        (
            nanoseconds(frame.header.stamp),
            nanoseconds(frame.end_stamp),
            frame.in_star,
            frame.in_stream,
            [decoded(image) for image in images if len(image.data)],
        )
        for frame, *images in zip(response.key_frames, response.first_images, response.second_images, strict=True)
    ]


def decoded(image):
    return cv2.imdecode(np.frombuffer(bytes(image.data), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def assert_same(kept, expected):
    assert [one[:4] for one in kept] == [one[:4] for one in expected]
    for one, other in zip(kept, expected, strict=True):
        np.testing.assert_array_equal(one[4], other[4])


def wait_for_all(client, count):
    return client.wait_for_stats(lambda stats: stats.images_received == count, since_ns=0)


def sizes_as_parameters():
    return {"memory__star__size": SIZES["star_size"], "memory__stream__size": SIZES["stream_size"]}


@pytest.mark.parametrize("transport", ["raw", "compressed"])
def test_memory_of_a_played_bag_equals_that_without_ros(start_memory, play, tmp_path, transport):
    # given
    count = 100
    bag = write_bag(tmp_path / "bag", regular_stamps(count), compressed=transport == "compressed")
    expected = kept_without_ros(bag, restarts=True)
    assert len(expected) > SIZES["stream_size"] / 2, "only the newest frames are kept"
    replayed = kept_by_replay(bag)
    assert [one[:2] for one in replayed] == [(seconds_of(one[0]), seconds_of(one[1])) for one in expected]
    for one, other in zip(replayed, expected, strict=True):
        np.testing.assert_array_equal(one[2], other[4])
    _, client = start_memory(transport, **sizes_as_parameters())
    # when
    player = play(client, bag, transport, rate=2.0)
    wait_for_all(client, count)
    wait_until(lambda: f"has ended after {count} images" in player.log, "the end of the bag")
    # then
    assert_same(kept_by(client), expected)
    assert jumps(client) == 0
    # and the clock shows the time of the bag, paused at its end
    stats = client.wait_for_stats(lambda stats: stats.images_received == count, since_ns=0)
    assert 0.0 <= stats.newest_frame_age_sec <= 1.0
    assert START_NS <= nanoseconds(stats.header.stamp) <= START_NS + 20 * SECOND


@pytest.mark.parametrize(("outcome", "use_sim_time"), [("restart", "false"), ("continue", "true")])
def test_backward_jump_in_a_bag_is_handled_as_without_ros(start_memory, play, tmp_path, outcome, use_sim_time):
    # given
    stamps = regular_stamps(40) + regular_stamps(40, START_NS - 100 * SECOND)
    bag = write_bag(tmp_path / "bag", stamps)
    expected = kept_without_ros(bag, restarts=outcome == "restart")
    memory, client = start_memory(memory__on_time_jump=outcome, use_sim_time=use_sim_time, **sizes_as_parameters())
    # when
    play(client, bag, rate=2.0)
    wait_for_all(client, len(stamps))
    # then
    assert_same(kept_by(client), expected)
    wait_until(lambda: jumps(client) == 1, "the jump to be reported")
    assert "jumped back by" in memory.log


@pytest.mark.parametrize("outcome", ["restart", "continue"])
def test_looped_bag_jumps_back_at_each_round(start_memory, play, tmp_path, outcome):
    # given
    bag = write_bag(tmp_path / "bag", regular_stamps(60))
    memory, client = start_memory(memory__on_time_jump=outcome)
    # when
    player = play(client, bag, rate=4.0, loop="true")
    wait_until(lambda: (jumps(client) or 0) >= 2, "two time jumps")
    # then the player and the memory log it
    assert "jumped" in memory.log
    assert "starts again, and its time jumps back" in player.log
    stamps = [one[0] for one in kept_by(client)]
    if outcome == "restart":
        assert "emptied" in memory.log
        assert stamps == sorted(set(stamps)), "frames of the previous round are left"
    else:
        assert stamps != sorted(set(stamps)), "only one round is kept"
        client.wait_for_stats(lambda stats: any("jumped back by" in one for one in stats.warnings), since_ns=0)
    assert memory.alive
    assert player.alive


def test_damaged_bag_is_played_up_to_the_damage(start_memory, play, tmp_path):
    # given
    bag = write_bag(tmp_path / "bag", regular_stamps(60))
    (file,) = bag.glob("*.mcap")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with open_recording(bag) as recording:
        count = len(list(recording.images()))
    assert 0 < count < 60
    _, client = start_memory()
    # when
    player = play(client, bag, rate=4.0)
    # then
    wait_until(lambda: f"has ended after {count} images" in player.log, "the end of the readable part")
    assert f"is damaged: read up to image {count}" in player.log
    wait_for_all(client, count)


def test_bag_with_missing_messages_is_played_with_a_warning(start_memory, play, tmp_path):
    # given
    bag = write_bag(tmp_path / "bag", regular_stamps(20))
    metadata = bag / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("message_count: 20", "message_count: 400"))
    _, client = start_memory()
    # when
    player = play(client, bag, rate=4.0)
    # then
    wait_until(lambda: "has ended after 20 images" in player.log, "the end")
    assert "metadata.yaml lists 400" in player.log
    assert "[WARN]" in player.log


def test_playback_waits_for_the_first_subscriber(start_memory, play, tmp_path):
    # given a player, and an inactive memory that receives its clock
    bag = write_bag(tmp_path / "bag", regular_stamps(30))
    _, client = start_memory(autostart="false")
    player = play(client, bag, rate=4.0)
    wait_until(lambda: START_NS in client.report_stamps_ns, "the time of the bag at the memory")
    # when
    assert client.transition("configure")
    assert client.transition("activate")
    # then it receives every image
    wait_for_all(client, 30)
    assert player.alive


def jumps(client):
    status = client.newest_status("camera camera")
    return int(values_of(status)["time jumps"]) if status else None
