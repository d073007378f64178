"""Arbitrary requests and goals succeed or fail with a documented error."""

import math
import operator
from types import SimpleNamespace

import numpy as np
import pytest
from fuzzing import check_message, check_text, fuzz
from hypothesis import strategies as st

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from builtin_interfaces.msg import Time

from delayed_vlm_ros import action, msg, srv
from delayed_vlm_ros.errors import BadRequestError, NoFramesError, UnknownCameraError
from delayed_vlm_ros.inference.request import select_frames
from delayed_vlm_ros.memory import PairIds, SmartFrameManager
from delayed_vlm_ros.ros.input.frame_headers import FrameHeader
from delayed_vlm_ros.ros.output.messages import watch_settings
from delayed_vlm_ros.ros.scene_memory.parameters import (
    MAX_NEW_TOKENS_LIMIT,
    MAX_TIMEOUT_SEC,
    SceneMemoryParameters,
)
from delayed_vlm_ros.ros.services.memory_services import MemoryServices
from delayed_vlm_ros.ros.services.requests import parse_question, parse_timeout, select_cameras
from delayed_vlm_ros.ros.services.watch_requests import parse_watch
from delayed_vlm_ros.watches.watch import MIN_PERIOD_SEC

PARAMETERS = SceneMemoryParameters(max_question_characters=50)
NOW = 1_800_000_000.0

# 32-bit floats, as in messages.
FLOATS = st.floats(width=32) | st.sampled_from([0.0, 1.0, -1.0, 5.0, math.nan, math.inf, -math.inf])
TIMES = st.builds(
    Time,
    sec=st.integers(-(2**31), 2**31 - 1) | st.integers(95, 115) | st.just(0),
    nanosec=st.integers(0, 2**32 - 1) | st.just(0),
)
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60)
_TIME_WORDS = (
    "since until after before between from and to at on in the last past 9 10:30 25:99 3 am pm o'clock noon half two "
    "second minutes hours ago days today yesterday tonight this morning night monday 2026-11-29 2026-99-99"
)
TIME_TEXTS = st.lists(st.sampled_from(_TIME_WORDS.split()), max_size=8).map(lambda words: " ".join(words)[:50])
NAMES = st.sampled_from(["", "front", "rear", "*", "../front", "FRONT", "\x1b[2J\nfront"]) | TEXTS
IDS = st.integers(0, 30) | st.integers(0, 2**64 - 1)


def _cameras():
    ids = PairIds()
    found = {}
    for name in ("front", "rear"):
        memory = SmartFrameManager(8, 6, pair_ids=ids)
        for number in range(9):
            pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
            stamp = 100.0 + number / 2
            memory.add(pixels, stamp, FrameHeader(round(stamp * 1e9), "lens"))
        found[name] = SimpleNamespace(name=name, frame_manager=memory, header_of=operator.attrgetter("source"))
    return found


CAMERAS = _cameras()
LOG = SimpleNamespace(info=lambda *_: None, error=pytest.fail)
NODE = SimpleNamespace(create_service=lambda *_, **__: None, get_logger=lambda: LOG)
SERVICES = MemoryServices(NODE, lambda: CAMERAS)


@fuzz(
    kind=st.sampled_from([srv.AskScene.Request, action.AskScene.Goal]),
    parse_time=st.booleans(),
    question=TEXTS | TIME_TEXTS | st.sampled_from(["", " \n", "x" * 51, "$(reboot)", "<|vision_start|>", "../../etc"]),
    camera=NAMES,
    since=TIMES,
    until=TIMES,
    last_sec=FLOATS,
    max_new_tokens=st.integers(0, 2**32 - 1) | st.integers(0, 5000),
    timeout_sec=FLOATS,
)
def test_arbitrary_question_is_within_the_limits_or_raises_a_documented_error(kind, **fields):
    message = kind(**fields)
    try:
        cameras = select_cameras(CAMERAS, message.camera)
        request = parse_question(message, PARAMETERS, NOW)
        timeout_sec = parse_timeout(message, PARAMETERS)
    except (BadRequestError, UnknownCameraError) as error:
        check_message(error)
        return
    # then all values are within their limits
    assert 0 < timeout_sec <= MAX_TIMEOUT_SEC
    assert 0 < request.max_new_tokens <= MAX_NEW_TOKENS_LIMIT
    assert 0 < len(request.question) <= PARAMETERS.max_question_characters
    for camera in cameras:
        try:
            assert select_frames(camera.frame_manager.snapshot(), request)
        except NoFramesError as error:
            check_message(error)


SECONDS = st.sampled_from([0.0, 0.5, 3.0, 30.0]) | st.floats(0.125, 100.0, width=32)
VALID_WATCHES = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["door", "Tür 2"]),
        "question": st.just("Is the door open?"),
        "last_sec": st.just(-1.0) | SECONDS,
        "period_sec": SECONDS,
        "gate": st.integers(0, 2),
        "threshold": st.just(0.0) | st.floats(0.5, 0.875, width=32),
        "release": st.just(0.0) | st.floats(0.125, 0.5, width=32),
        "cooldown_sec": SECONDS,
        "once": st.booleans(),
        "lifetime_sec": SECONDS,
    }
)
ARBITRARY_FIELDS = {
    "name": TEXTS | st.sampled_from(["", " ", "x" * 65, "\x1b[2Jdoor"]),
    "question": TEXTS | st.sampled_from(["", " \n", "x" * 51]),
    "camera": NAMES,
    "last_sec": FLOATS,
    "period_sec": FLOATS,
    "gate": st.integers(0, 255),
    "threshold": FLOATS,
    "release": FLOATS,
    "hold_sec": SECONDS | FLOATS,
    "yes_checks": st.integers(0, 5),
    "of_checks": st.integers(0, 2**32 - 1),
    "cooldown_sec": FLOATS,
    "lifetime_sec": FLOATS,
}
ARBITRARY_FIELD = st.one_of([st.fixed_dictionaries({name: values}) for name, values in ARBITRARY_FIELDS.items()])


@fuzz(valid=VALID_WATCHES, one=st.just({}) | ARBITRARY_FIELD, other=st.just({}) | ARBITRARY_FIELD)
def test_arbitrary_watch_is_valid_and_written_as_a_message_or_raises_a_documented_error(valid, one, other):
    message = msg.WatchSettings(**{**valid, **one, **other})
    try:
        watch = parse_watch(message, PARAMETERS)
    except BadRequestError as error:
        check_message(error)
        return
    # then it can be sent back, and the same settings are the same watch
    assert parse_watch(watch_settings(watch), PARAMETERS) == watch
    assert 0.0 < watch.release <= watch.threshold < 1.0
    assert watch.period_sec >= MIN_PERIOD_SEC
    assert 0 < len(watch.question) <= PARAMETERS.max_question_characters


def check_response(response):
    assert response.success != bool(response.error_msg)
    assert "internal error" not in response.error_msg
    check_text(response.error_msg)


@fuzz(id=IDS, stamp=TIMES, camera=NAMES, label=TEXTS | st.just("x" * 65), unmark=st.booleans())
def test_arbitrary_mark_keeps_the_memory_valid(**fields):
    before = {name: [kept.id for kept in camera.frame_manager.snapshot()] for name, camera in CAMERAS.items()}
    # when
    check_response(SERVICES._on_mark(srv.Mark.Request(**fields), srv.Mark.Response()))
    # then no new pair appears, and the number of marks is bounded
    for name, camera in CAMERAS.items():
        kept = camera.frame_manager.snapshot()
        assert sum(pair.marked for pair in kept) <= 1
        assert {pair.id for pair in kept} <= set(before[name])


@fuzz(
    ids=st.lists(IDS, max_size=6),
    camera=NAMES,
    format=st.sampled_from(["", "png", "jpeg", "PNG", "tiff"]) | TEXTS,
)
def test_arbitrary_image_request_reports_every_id(**fields):
    response = SERVICES._on_get_frames(srv.GetFrames.Request(**fields), srv.GetFrames.Response())
    check_response(response)
    if response.success and fields["ids"]:
        assert {frame.id for frame in response.key_frames} | set(response.missing) == set(fields["ids"])
    assert len(response.key_frames) == len(response.first_images) == len(response.second_images)
