"""A synthetic scene as a bag, with questions and their right answers: for tests, and for whoever has no bag."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from delayed_vlm_ros.errors import RecordingError
from delayed_vlm_ros.replay.question_file import FILE_NAME, TimedQuestion, write_questions
from delayed_vlm_ros.replay.recordings.recording import COMPRESSED_TYPE, RAW_TYPE
from delayed_vlm_ros.scenes import Scene, render
from delayed_vlm_ros.scenes.questions import KINDS, draw_question
from delayed_vlm_ros.scenes.truth import pair_truth, story_of
from delayed_vlm_ros.time import NANOSECONDS_PER_SECOND

TOPIC = "/camera/image_raw"
STORAGES = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}

# How the questions' kinds are called in a file of questions; "unclear" is about no scene.
_LIVE = ("colour", "is_there", "how_many", "side", "where")
_ORDER = ("before", "appeared_first", "appeared_last")
_ASKED = tuple(kind for kind in KINDS if kind != "unclear")

_FIRST_STAMP_SEC = 1_600_000_000  # in September 2020: bags of one seed are the same whenever they are made
_SAMPLE_PERIOD_SEC = 0.5  # what a memory sees of a scene, by the node's default
_JPEG_QUALITY = 90
_FIRST_QUESTION_SEC = 4.0


@dataclass(frozen=True)
class SceneRecording:
    """What to record.

    Attributes:
        seed: Which room.
        seconds: How long.
        rate: Images per second.
        height: Rows of an image.
        width: Columns of an image.
        storage: One of ``STORAGES``.
        compressed: JPEG images in place of raw ones.
        questions: How many questions.
    """

    seed: int
    seconds: float = 60.0
    rate: float = 10.0
    height: int = 240
    width: int = 320
    storage: str = "mcap"
    compressed: bool = False
    questions: int = 12


def record_scene(path: Path, wanted: SceneRecording, told: Callable[[int], None] = lambda _: None) -> int:
    """Write a bag with the scene's images, and ``questions.yaml`` in its folder.

    The bag also says of itself, as its custom data, which scene it shows.

    Args:
        path: The bag's folder; it must not be there yet.
        wanted: What to record.
        told: Called with the number of images written.

    Returns:
        How many images were written.

    Raises:
        RecordingError: The bag cannot be written.
    """
    if path.exists():
        raise RecordingError(f"{path} is there already: name another folder with --out, or remove it")
    scene = Scene.from_seed(wanted.seed)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        count = _write_images(path, scene, wanted, told)
        write_questions(path / FILE_NAME, scene_questions(scene, wanted))
    except BaseException as error:
        shutil.rmtree(path, ignore_errors=True)  # half a bag would only be in the way
        if not isinstance(error, (OSError, sqlite3.Error)):
            raise
        remedy = "make room there, or name another folder"
        raise RecordingError(f"{path} cannot be written ({error}): {remedy}") from error
    return count


def _write_images(path: Path, scene: Scene, wanted: SceneRecording, told: Callable[[int], None]) -> int:
    types = get_typestore(Stores.LATEST)
    kind = COMPRESSED_TYPE if wanted.compressed else RAW_TYPE
    topic = f"{TOPIC}/compressed" if wanted.compressed else TOPIC
    writer = Writer(path, version=Writer.VERSION_LATEST, storage_plugin=STORAGES[wanted.storage])
    if wanted.storage == "mcap" and not wanted.compressed:
        writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
    writer.set_custom_data("scene_seed", str(wanted.seed))
    count = max(1, round(wanted.seconds * wanted.rate))
    with writer:
        connection = writer.add_connection(topic, kind, typestore=types)
        for number in range(count):
            elapsed = number / wanted.rate
            stamp_ns = _FIRST_STAMP_SEC * NANOSECONDS_PER_SECOND + round(elapsed * NANOSECONDS_PER_SECOND)
            image = render(scene, elapsed, wanted.height, wanted.width)
            message = _message(types, image, stamp_ns, compressed=wanted.compressed)
            writer.write(connection, stamp_ns, types.serialize_cdr(message, kind))
            told(number + 1)
    return count


def _message(types: Any, image: np.ndarray[Any, Any], stamp_ns: int, *, compressed: bool) -> Any:
    seconds, nanoseconds = divmod(stamp_ns, NANOSECONDS_PER_SECOND)
    stamp = types.types["builtin_interfaces/msg/Time"](sec=seconds, nanosec=nanoseconds)
    header = types.types["std_msgs/msg/Header"](stamp=stamp, frame_id="camera")
    if compressed:
        quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
        data = cv2.imencode(".jpg", image[..., ::-1], quality)[1].reshape(-1)
        return types.types[COMPRESSED_TYPE](header, "jpeg", data)
    height, width = image.shape[:2]
    data = np.ascontiguousarray(image).reshape(-1)
    return types.types[RAW_TYPE](header, height, width, "rgb8", is_bigendian=0, step=3 * width, data=data)


def scene_questions(scene: Scene, wanted: SceneRecording) -> list[TimedQuestion]:
    """Questions about a scene with their right answers, spread over its length, each kind in its turn.

    The truth is that of frames at the node's usual rate; what a memory has forgotten by then is its own affair.
    """
    random = np.random.default_rng([wanted.seed, 11])
    last = wanted.seconds - _SAMPLE_PERIOD_SEC
    last_image = max(0.0, wanted.seconds - 1.0 / wanted.rate)
    times = np.linspace(min(_FIRST_QUESTION_SEC, last), last, wanted.questions)
    kinds = [str(kind) for kind in random.permutation(_ASKED)]
    found = []
    for number, at in enumerate(times):
        moments = np.arange(0.0, at, 2 * _SAMPLE_PERIOD_SEC)
        if not moments.size:
            continue
        story = story_of([pair_truth(scene, float(moment), float(moment) + _SAMPLE_PERIOD_SEC) for moment in moments])
        # From the next kind in turn on, the first that has a fair question now.
        turn = number % len(kinds)
        drawn = (draw_question(kind, story, random) for kind in (*kinds[turn:], *kinds[:turn]))
        question = next((one for one in drawn if one is not None), None)
        if question is not None:
            # Behind the last pair's second frame, before the next one's first.
            asked_at = min(float(moments[-1]) + 1.5 * _SAMPLE_PERIOD_SEC, last_image)
            found.append(TimedQuestion(question.text, asked_at, (question.answer,), _kind(question.kind)))
    return found


def _kind(kind: str) -> str:
    if kind in _LIVE:
        return "live"
    return "order" if kind in _ORDER else "backward"
