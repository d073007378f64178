"""Record a synthetic scene as a bag, with questions and correct answers, for tests and for users without a bag."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from delayed_vlm_ros.errors import RecordingError
from delayed_vlm_ros.images.encoding import encode_jpeg
from delayed_vlm_ros.images.messages import COMPRESSED_TYPE, RAW_TYPE
from delayed_vlm_ros.replay.question_file import FILE_NAME, TimedQuestion, write_questions
from delayed_vlm_ros.scenes import Scene, render
from delayed_vlm_ros.scenes.questions import KINDS, draw_question
from delayed_vlm_ros.scenes.truth import pair_truth, story_of
from delayed_vlm_ros.time import NANOSECONDS_PER_SECOND

TOPIC = "/camera/image_raw"
STORAGES = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}

# Kinds of questions by their category in a question file. "unclear" does not refer to the scene.
_LIVE = ("colour", "is_there", "how_many", "side", "where")
_ORDER = ("before", "appeared_first", "appeared_last")
_ASKED = tuple(kind for kind in KINDS if kind != "unclear")

_FIRST_STAMP_SEC = 1_600_000_000  # September 2020; a fixed time makes bags of one seed identical
_SAMPLE_PERIOD_SEC = 0.5  # the default sampling period of the node
_FIRST_QUESTION_SEC = 4.0


@dataclass(frozen=True)
class SceneRecording:
    """Options of a recording.

    Attributes:
        seed: Seed of the scene.
        seconds: Duration, in seconds.
        rate: Frame rate, in fps.
        height: Image height, in pixels.
        width: Image width, in pixels.
        storage: Storage format, one of ``STORAGES``.
        compressed: Whether to write JPEG images instead of raw ones.
        questions: Number of questions.
    """

    seed: int
    seconds: float = 60.0
    rate: float = 10.0
    height: int = 240
    width: int = 320
    storage: str = "mcap"
    compressed: bool = False
    questions: int = 40


def record_scene(path: Path, recording: SceneRecording, on_progress: Callable[[int], None] = lambda _: None) -> int:
    """Write a bag with the images of a scene, and ``questions.yaml`` in its folder.

    The bag's custom data state the seed of the scene.

    Args:
        path: Folder of the bag; it must not exist.
        recording: Options of the recording.
        on_progress: Function called with the number of images written so far.

    Returns:
        The number of images written.

    Raises:
        RecordingError: The bag cannot be written.
    """
    if path.exists():
        raise RecordingError(f"{path} already exists: name another folder with --out, or remove it")
    scene = Scene.from_seed(recording.seed)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        count = _write_images(path, scene, recording, on_progress)
        write_questions(path / FILE_NAME, scene_questions(scene, recording))
    except BaseException as error:
        shutil.rmtree(path, ignore_errors=True)  # an incomplete bag is useless
        if not isinstance(error, (OSError, sqlite3.Error)):
            raise
        raise RecordingError(f"cannot write {path} ({error}): free disk space, or name another folder") from error
    return count


def _write_images(path: Path, scene: Scene, recording: SceneRecording, on_progress: Callable[[int], None]) -> int:
    types = get_typestore(Stores.LATEST)
    kind = COMPRESSED_TYPE if recording.compressed else RAW_TYPE
    topic = f"{TOPIC}/compressed" if recording.compressed else TOPIC
    writer = Writer(path, version=Writer.VERSION_LATEST, storage_plugin=STORAGES[recording.storage])
    if recording.storage == "mcap" and not recording.compressed:
        writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
    writer.set_custom_data("scene_seed", str(recording.seed))
    count = max(1, round(recording.seconds * recording.rate))
    with writer:
        connection = writer.add_connection(topic, kind, typestore=types)
        for number in range(count):
            elapsed = number / recording.rate
            stamp_ns = _FIRST_STAMP_SEC * NANOSECONDS_PER_SECOND + round(elapsed * NANOSECONDS_PER_SECOND)
            image = render(scene, elapsed, recording.height, recording.width)
            message = _message(types, image, stamp_ns, compressed=recording.compressed)
            writer.write(connection, stamp_ns, types.serialize_cdr(message, kind))
            on_progress(number + 1)
    return count


def _message(types: Any, image: np.ndarray[Any, Any], stamp_ns: int, *, compressed: bool) -> Any:
    seconds, nanoseconds = divmod(stamp_ns, NANOSECONDS_PER_SECOND)
    stamp = types.types["builtin_interfaces/msg/Time"](sec=seconds, nanosec=nanoseconds)
    header = types.types["std_msgs/msg/Header"](stamp=stamp, frame_id="camera")
    if compressed:
        data = np.frombuffer(encode_jpeg(image), np.uint8)
        return types.types[COMPRESSED_TYPE](header, "jpeg", data)
    height, width = image.shape[:2]
    data = np.ascontiguousarray(image).reshape(-1)
    return types.types[RAW_TYPE](header, height, width, "rgb8", is_bigendian=0, step=3 * width, data=data)


def scene_questions(scene: Scene, recording: SceneRecording) -> list[TimedQuestion]:
    """Return questions with correct answers, spread over the recording, with the kinds in rotation.

    The correct answers assume all frames at the node's default rate, including those that a memory has evicted.
    """
    random = np.random.default_rng([recording.seed, 11])
    last = recording.seconds - _SAMPLE_PERIOD_SEC
    last_image = max(0.0, recording.seconds - 1.0 / recording.rate)
    times = np.linspace(min(_FIRST_QUESTION_SEC, last), last, recording.questions)
    kinds = [str(kind) for kind in random.permutation(_ASKED)]
    found = []
    for number, at in enumerate(times):
        starts = np.arange(0.0, at, 2 * _SAMPLE_PERIOD_SEC)
        if not starts.size:
            continue
        story = story_of([pair_truth(scene, float(start), float(start) + _SAMPLE_PERIOD_SEC) for start in starts])
        # Take the first kind, starting with the next one in rotation, that has a fair question.
        turn = number % len(kinds)
        drawn = (draw_question(kind, story, random) for kind in (*kinds[turn:], *kinds[:turn]))
        question = next((one for one in drawn if one is not None), None)
        if question is not None:
            # After the second frame of the last pair, before the first frame of the next pair.
            asked_at = min(float(starts[-1]) + 1.5 * _SAMPLE_PERIOD_SEC, last_image)
            found.append(TimedQuestion(question.text, asked_at, (question.answer,), _kind(question.kind)))
    return found


def _kind(kind: str) -> str:
    if kind in _LIVE:
        return "live"
    return "order" if kind in _ORDER else "backward"
