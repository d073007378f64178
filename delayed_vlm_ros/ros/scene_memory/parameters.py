"""Parameters of the ``scene_memory`` node, documented for users in ``config/scene_memory.yaml``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from delayed_vlm_ros.errors import BadRequestError, ConfigurationError
from delayed_vlm_ros.images.bit_depth import BIT_DEPTHS, FROM_IMAGES
from delayed_vlm_ros.images.validation import MAX_IMAGE_PIXELS
from delayed_vlm_ros.inference.remote.address import is_remote, parse_address
from delayed_vlm_ros.inference.remote.settings import Encoding, RemoteSettings
from delayed_vlm_ros.memory import MemoryConfig
from delayed_vlm_ros.ros.input.poses import NO_POSES, POSE_TYPES
from delayed_vlm_ros.ros.input.transforms import TF
from delayed_vlm_ros.ros.parameters import parameter, specifications
from delayed_vlm_ros.watches.watch import MAX_SECONDS, MIN_PERIOD_SEC, Gate, Watch, check_watch

MAX_NEW_TOKENS_LIMIT = 4096
"""Upper bound of the answer length, for parameters and requests, in tokens."""

MAX_QUESTION_CHARACTERS = 100_000
"""Upper bound of the parameter for the question length, in characters."""

MAX_TIMEOUT_SEC = 3600.0
"""Upper bound of a question's deadline, for the parameter and requests, in seconds."""

MAX_QUEUE_SIZE = 64
"""Upper bound of the number of waiting questions."""

RAW = "raw"
COMPRESSED = "compressed"

AUTO = "auto"
RESTART = "restart"
CONTINUE = "continue"

NONE = "none"
LOCAL = "local"

OFF = "off"
VISION = "vision"
FULL = "full"

MAX_WATCHES_LIMIT = 200
"""Upper bound of the number of standing questions of one node."""

MAX_CAMERAS = 16
"""Upper bound of the number of cameras of one node. Each camera has a thread."""

# A camera's name becomes part of topic names and of diagnostics.
_CAMERA_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_WATCH_NAME = _CAMERA_NAME  # becomes part of parameter names
_WATCH_GROUP = ("watches.names", "watches.max", "watches.max_duty")


def _at_configure(default: Any, description: str, **details: Any) -> Any:
    return parameter(default, description, read_only=False, at_configure=True, **details)


def _at_any_time(default: Any, description: str, **details: Any) -> Any:
    return parameter(default, description + "; may change at any time", read_only=False, **details)


@dataclass(frozen=True)
class SceneMemoryParameters:
    """The node's parameters. Sizes count frames; a pair has two."""

    autostart: bool = parameter(default=True, description="configure and activate the node at start")
    cameras: tuple[str, ...] = _at_configure(
        ("camera",),
        "names of the cameras in questions and reports; one camera subscribes to image, each of several cameras to "
        "<name>/image",
    )
    image_transport: str = _at_configure(
        "raw", "image topic to subscribe to: image (raw) or image/compressed (compressed)", choices=(RAW, COMPRESSED)
    )

    image_max_pixels: int = _at_configure(
        MAX_IMAGE_PIXELS,
        "maximum height × width of an input image; larger images are dropped before they are decoded",
        unit="pixels",
        minimum=1,
        maximum=MAX_IMAGE_PIXELS,
    )
    image_bit_depth: int = _at_configure(
        FROM_IMAGES,
        "bits that the cameras use of 16-bit values; larger values are clipped; 8: found from the images",
        unit="bits",
        minimum=FROM_IMAGES,
        maximum=BIT_DEPTHS[-1],
    )

    star_size: int = _at_configure(
        MemoryConfig.star_memory_size,
        "maximum size of Star memory, the key frames of the whole past; 0 for no Star memory",
        name="memory.star.size",
        unit="frames",
        minimum=0,
        maximum=2000,
    )
    stream_size: int = _at_configure(
        MemoryConfig.stream_window_size,
        "size of Stream memory, the newest frames",
        name="memory.stream.size",
        unit="frames",
        minimum=2,
        maximum=2000,
    )
    importance_threshold: float = _at_configure(
        MemoryConfig.importance_threshold,
        "score from which a frame enters Star memory on arrival; events and places found later, and marks, enter "
        "regardless",
        name="memory.importance_threshold",
        minimum=0.0,
        maximum=1.0,
    )
    sample_fps: float = _at_any_time(
        MemoryConfig.sample_fps,
        "frames added to the memory per second",
        name="memory.sample_fps",
        unit="1/s",
        minimum=0.01,
        maximum=60.0,
    )
    max_pixels: int = _at_configure(
        MemoryConfig.max_pixels,
        "maximum height × width of a frame in the memory",
        name="memory.max_pixels",
        unit="pixels",
        minimum=784,
        maximum=16_777_216,
    )

    on_time_jump: str = _at_configure(
        AUTO,
        "action when a camera's stamps jump back or a simulated clock jumps: empty the memory (restart) or keep it as "
        "if no time had passed (continue); auto selects restart with use_sim_time and continue otherwise",
        name="memory.on_time_jump",
        choices=(AUTO, RESTART, CONTINUE),
    )
    eviction_chunk: int = _at_configure(
        -1,
        "number of frames evicted together from a full memory, so that cached encodings stay valid longer; 0 for one "
        "pair, -1 for a third of the smaller memory",
        name="memory.eviction_chunk",
        unit="frames",
        minimum=-1,
        maximum=2000,
    )
    max_marked: int = _at_configure(
        -1,
        "maximum number of marked frames, at least one pair less than memory.star.size; 0 for no marks, -1 for a "
        "quarter of memory.star.size",
        name="memory.marks.max",
        unit="frames",
        minimum=-1,
        maximum=2000,
    )
    budget_mb: float = _at_configure(
        0.0,
        "maximum size of images, vision features and KV caches kept between questions, of all cameras together; 0 for "
        "no limit",
        name="memory.budget_mb",
        unit="MB",
        minimum=0.0,
        maximum=1e6,
    )

    # Read-only: no request may select where files are written on this machine.
    persistence_folder: str = parameter(
        "",
        "absolute path of an existing folder, used by this node only, where key frames and marks survive a restart; "
        "empty for no files",
        name="persistence.folder",
    )
    persistence_period_sec: float = _at_configure(
        30.0,
        "minimum time between two saves; a power failure loses changes since the last one",
        name="persistence.period_sec",
        unit="s",
        minimum=0.1,
        maximum=86_400.0,
    )

    journal_enabled: bool = _at_configure(
        default=False,
        description="write one line, with the model's caption, about each pair that leaves Star memory, while the node "
        "is idle; needs persistence.folder",
        name="journal.enabled",
    )
    journal_question: str = _at_configure(
        "What do you see?",
        "question whose answer is the caption of a line",
        name="journal.question",
    )
    journal_max_rows: int = _at_configure(
        100_000,
        "maximum number of lines; the first ones are removed",
        name="journal.max_rows",
        minimum=1,
        maximum=10_000_000,
    )
    journal_max_mb: float = _at_configure(
        512.0,
        "maximum size of the journal's file; the first lines are removed",
        name="journal.max_mb",
        unit="MB",
        minimum=1.0,
        maximum=1e6,
    )

    pose_source: str = _at_configure(
        "PoseStamped",
        "source of camera poses: messages of this type on pose (with several cameras <name>/pose), TF (tf), or none",
        name="pose.source",
        choices=(*POSE_TYPES, TF, NO_POSES),
    )
    pose_frame: str = _at_configure("map", "frame in which poses from TF are expressed", name="pose.frame")
    pose_base_frame: str = _at_configure(
        "", "frame whose pose is looked up in TF; empty for the image's frame_id", name="pose.base_frame"
    )
    pose_limit_sec: float = _at_configure(
        0.5,
        "maximum time difference between a frame and its pose; with TF, how long a frame waits for its transform",
        name="pose.limit_sec",
        unit="s",
        minimum=0.0,
        maximum=60.0,
    )

    precompute: str = _at_configure(
        OFF,
        "encoding while the node is idle, before the next question: off, the vision encoder only (vision), or the "
        "language model too (full)",
        name="precompute.mode",
        choices=(OFF, VISION, FULL),
    )
    precompute_quiet_sec: float = _at_configure(
        0.2,
        "time without a question before precompute starts",
        name="precompute.quiet_sec",
        unit="s",
        minimum=0.0,
        maximum=3600.0,
    )
    precompute_max_duty: float = _at_configure(
        1.0,
        "maximum share of the device's time for precompute; after each run it rests for the remaining share",
        name="precompute.max_duty",
        minimum=0.01,
        maximum=1.0,
    )

    model: str = _at_configure(
        "auto",
        "checkpoint: a folder, a name on the model hub, demo, or auto; or a model server, openai:URL#MODEL",
        name="model.name",
    )
    device: str = _at_configure("auto", "device of the model: auto, cpu, cuda or cuda:N", name="model.device")
    dtype: str = _at_configure(
        "auto",
        "number format of the model; auto selects bfloat16 on CUDA and float32 on the CPU",
        name="model.dtype",
        choices=("auto", "bfloat16", "float16", "float32"),
    )
    attention: str = _at_configure(
        "auto",
        "attention implementation of the model; auto selects flash attention if installed, otherwise sdpa",
        name="model.attention",
        choices=("auto", "sdpa", "flash_attention_2", "eager"),
    )
    allow_download: bool = _at_configure(
        default=False,
        description="download the model from the hub if it is not on this machine",
        name="model.allow_download",
    )

    canonical: bool = _at_configure(
        default=True,
        description="use the same computation steps with and without cached results, for bitwise equal answers",
        name="model.canonical",
    )
    stop_repetition: bool = _at_configure(
        default=True,
        description="stop an answer that repeats the same tokens without end",
        name="model.stop_repetition",
    )
    sampling: bool = _at_configure(
        default=False,
        description="sample answers if the checkpoint's generation_config.json says so, instead of always choosing the "
        "most likely token; such answers differ from one attempt to the next",
        name="model.sampling",
    )
    features_on_host: bool = _at_configure(
        default=False,
        description="keep vision features in host memory instead of device memory",
        name="model.features_on_host",
    )

    unload_after_idle_sec: float = _at_configure(
        0.0,
        "time without a question after which the model is unloaded; the next question loads it again; 0 for never",
        name="model.unload_after_idle_sec",
        unit="s",
        minimum=0.0,
        maximum=1e6,
    )

    remote_encoding: str = _at_configure(
        Encoding.AUTO.value,
        "how frames are sent to a model server: timed_images, video or images; auto selects the best one that server "
        "and model offer",
        name="remote.encoding",
        choices=tuple(encoding.value for encoding in Encoding),
    )
    # Read-only: no request may select which variable of the environment is sent to a server.
    remote_api_key_env: str = parameter(
        "",
        "name of the environment variable with the key of the model server; empty for no key",
        name="remote.api_key_env",
    )
    remote_jpeg_quality: int = _at_configure(
        RemoteSettings.jpeg_quality,
        "JPEG quality of frames that are sent to a model server",
        name="remote.jpeg_quality",
        minimum=1,
        maximum=100,
    )
    remote_frame_multiple: int = _at_configure(
        RemoteSettings.frame_multiple,
        "divisor of both sides of frames for a model server: 28 for Qwen2.5-VL, 32 for Qwen3-VL and Qwen3.5",
        name="remote.frame_multiple",
        unit="pixels",
        minimum=1,
        maximum=256,
    )
    remote_fallback: str = _at_configure(
        NONE,
        "model on this machine that answers while the model server is away: none, local (chosen as with model.name "
        "auto), or a name as for model.name",
        name="remote.fallback",
    )

    # Read-only: the parameters of each watch are declared at start.
    watch_names: tuple[str, ...] = parameter(
        ("",),
        "names of the standing questions that start with the node; the question of door is watches.door.question",
        name="watches.names",
    )
    max_watches: int = _at_configure(
        32, "maximum number of standing questions", name="watches.max", minimum=1, maximum=MAX_WATCHES_LIMIT
    )
    max_duty: float = _at_configure(
        0.2,
        "maximum share of the device's time for standing questions; their periods stretch if it does not suffice",
        name="watches.max_duty",
        minimum=0.01,
        maximum=1.0,
    )

    queue_size: int = _at_configure(
        8, "maximum number of waiting questions", name="ask.queue_size", minimum=1, maximum=MAX_QUEUE_SIZE
    )
    timeout_sec: float = _at_any_time(
        60.0,
        "deadline of a question without one, waiting time included",
        name="ask.timeout_sec",
        unit="s",
        minimum=0.1,
        maximum=MAX_TIMEOUT_SEC,
    )
    max_new_tokens: int = _at_any_time(
        128,
        "maximum length of an answer if the question sets none",
        name="ask.max_new_tokens",
        unit="tokens",
        minimum=1,
        maximum=MAX_NEW_TOKENS_LIMIT,
    )
    max_new_tokens_limit: int = _at_any_time(
        MAX_NEW_TOKENS_LIMIT,
        "maximum value of max_new_tokens in a question",
        name="ask.max_new_tokens_limit",
        unit="tokens",
        minimum=1,
        maximum=MAX_NEW_TOKENS_LIMIT,
    )
    max_question_characters: int = _at_any_time(
        2000,
        "maximum length of a question",
        name="ask.max_question_characters",
        unit="characters",
        minimum=1,
        maximum=MAX_QUESTION_CHARACTERS,
    )

    evidence_enabled: bool = _at_any_time(
        default=True,
        description="rank the key frames of an answer by how much it rests on them",
        name="evidence.enabled",
    )

    stale_after_sec: float = _at_any_time(
        1.0,
        "time without an image after which a camera is reported as stale",
        name="diagnostics.stale_after_sec",
        unit="s",
        minimum=0.1,
        maximum=3600.0,
    )


@dataclass(frozen=True)
class WatchParameters:
    """Parameters of one standing question from the parameter file, as in ``delayed_vlm_ros.watches.Watch``."""

    question: str = parameter("", "yes/no question")
    camera: str = parameter("", "camera to ask about; empty for the first one")
    last_sec: float = parameter(
        Watch.last_sec,
        "time before the newest frame that the question is about, or up to half more; 0 for all kept frames",
        unit="s",
        minimum=0.0,
        maximum=MAX_SECONDS,
    )
    period_sec: float = parameter(
        Watch.period_sec, "minimum time between two checks", unit="s", minimum=MIN_PERIOD_SEC, maximum=MAX_SECONDS
    )
    gate: str = parameter(
        Watch.gate.value,
        "when a check that is due is made: every, on_change (of the view) or on_event (a pair has entered Star memory)",
        choices=tuple(gate.value for gate in Gate),
    )
    threshold: float = parameter(
        Watch.threshold, "probability of yes from which a check counts as yes", minimum=0.0, maximum=1.0
    )
    release: float = parameter(
        Watch.release, "probability of yes below which yes changes to no", minimum=0.0, maximum=1.0
    )
    hold_sec: float = parameter(
        Watch.hold_sec, "time for which all checks must count as yes", unit="s", minimum=0.0, maximum=MAX_SECONDS
    )
    yes_checks: int = parameter(
        Watch.yes_checks,
        "checks among the last of_checks that must count as yes as well; 1: the first yes suffices",
        minimum=1,
        maximum=100,
    )
    of_checks: int = parameter(Watch.of_checks, "see yes_checks", minimum=1, maximum=100)
    cooldown_sec: float = parameter(
        Watch.cooldown_sec, "minimum time between two rising alerts", unit="s", minimum=0.0, maximum=MAX_SECONDS
    )


def watch_prefix(name: str) -> str:
    """Return the first part of the names of a watch's parameters."""
    return f"watches.{name}."


def watch_from(name: str, parameters: WatchParameters) -> Watch:
    """Return a watch of the parameter file.

    Raises:
        ConfigurationError: A setting is invalid.
    """
    watch = Watch(name, **{**vars(parameters), "gate": Gate(parameters.gate)})
    try:
        check_watch(watch)
    except BadRequestError as error:
        raise ConfigurationError(f"{error} (parameters {watch_prefix(name)}*)") from error
    return watch


def watch_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of watches in the parameter ``watches.names``, without empty ones.

    Raises:
        ConfigurationError: A name is invalid or is used twice.
    """
    used = tuple(name for name in names if name)
    for name in used:
        if not _WATCH_NAME.fullmatch(name) or f"watches.{name}" in _WATCH_GROUP:
            raise ConfigurationError(
                "parameter watches.names must have names of a letter and at most 63 letters, digits and underscores, "
                f"except names, max and max_duty, got '{name}'"
            )
    if len(set(used)) < len(used):
        raise ConfigurationError(f"parameter watches.names must have different names, got {', '.join(used)}")
    return used


def memory_config(parameters: SceneMemoryParameters) -> MemoryConfig:
    """Return the settings of each camera's memory.

    Raises:
        ConfigurationError: The sizes, the eviction chunk and the number of marks do not fit together.
    """
    with naming_parameters("memory.star.size", "memory.stream.size", "memory.eviction_chunk", "memory.marks.max"):
        return MemoryConfig(
            star_memory_size=parameters.star_size,
            stream_window_size=parameters.stream_size,
            importance_threshold=parameters.importance_threshold,
            eviction_chunk=None if parameters.eviction_chunk < 0 else parameters.eviction_chunk,
            max_marked_frames=None if parameters.max_marked < 0 else parameters.max_marked,
            sample_fps=parameters.sample_fps,
            max_pixels=parameters.max_pixels,
        )


@contextmanager
def naming_parameters(*names: str) -> Iterator[None]:
    """Add the names of ROS parameters to errors of modules that do not know them.

    Raises:
        ConfigurationError: The error raised in the block, with the names.
    """
    try:
        yield
    except ConfigurationError as error:
        raise ConfigurationError(f"{error} (parameters {', '.join(names)})") from error


def validate_parameters(parameters: SceneMemoryParameters) -> None:
    """Validate what ranges cannot express: formats and combinations of values.

    Raises:
        ConfigurationError: A value or a combination of values is invalid.
    """
    _check_cameras(parameters.cameras)
    if not parameters.model.strip():
        raise ConfigurationError(
            "parameter model.name must be a checkpoint's folder, a name on the hub, demo, auto or a server, got ''"
        )
    if is_remote(parameters.model):
        with naming_parameters("model.name"):
            parse_address(parameters.model)
    if parameters.max_new_tokens > parameters.max_new_tokens_limit:
        raise ConfigurationError(
            "parameter ask.max_new_tokens must be at most ask.max_new_tokens_limit "
            f"({parameters.max_new_tokens_limit}), got {parameters.max_new_tokens}"
        )
    if parameters.persistence_folder and not Path(parameters.persistence_folder).is_absolute():
        raise ConfigurationError(
            f"parameter persistence.folder must be an absolute path, got '{parameters.persistence_folder}'"
        )
    _check_journal(parameters)
    memory_config(parameters)


def _check_journal(parameters: SceneMemoryParameters) -> None:
    if not parameters.journal_enabled:
        return
    if not parameters.persistence_folder:
        raise ConfigurationError(
            "parameter journal.enabled needs persistence.folder, where the journal's file is: set it, or switch the "
            "journal off"
        )
    if not parameters.journal_question.strip():
        raise ConfigurationError("parameter journal.question must be a question, got ''")


def _check_cameras(names: tuple[str, ...]) -> None:
    if not 1 <= len(names) <= MAX_CAMERAS:
        raise ConfigurationError(f"parameter cameras must have 1 to {MAX_CAMERAS} names, got {len(names)}")
    for name in names:
        if not _CAMERA_NAME.fullmatch(name):
            raise ConfigurationError(
                f"parameter cameras must have names of a letter and at most 63 letters, digits and underscores, got "
                f"'{name}'"
            )
    if len(set(names)) < len(names):
        raise ConfigurationError(f"parameter cameras must have different names, got {', '.join(names)}")


def validate_change(present: Mapping[str, Any], changes: Mapping[str, Any], *, configured: bool) -> None:
    """Validate a change of parameters before it is made.

    While the present values are invalid, a new value is validated alone. So several invalid values can be corrected one
    after another.

    Args:
        present: All present values by ROS name.
        changes: New values by ROS name. Names of other parameters are ignored.
        configured: Whether the node is configured.

    Raises:
        ConfigurationError: A new value is invalid, alone or with the others, or cannot be changed now.
    """
    specs = specifications(SceneMemoryParameters)
    changed = {field: spec for field, spec in specs.items() if spec.name in changes}
    new_values = {field: spec.convert(changes[spec.name]) for field, spec in changed.items()}
    for field, spec in changed.items():
        if configured and spec.at_configure and new_values[field] != spec.convert(present[spec.name]):
            raise ConfigurationError(
                f"parameter {spec.name} can only change while the node is unconfigured: use the lifecycle transitions "
                "deactivate and cleanup, set it, then configure again"
            )
    _check_server_change(present, changes)
    try:
        values = {field: spec.convert(present[spec.name]) for field, spec in specs.items()}
        validate_parameters(SceneMemoryParameters(**values))
    except ConfigurationError:
        return
    validate_parameters(SceneMemoryParameters(**{**values, **new_values}))


def _check_server_change(present: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
    """Check that a change of the model does not send the key to another server.

    Raises:
        ConfigurationError: It does.
    """
    new = str(changes.get("model.name", ""))
    if not (is_remote(new) and present["remote.api_key_env"]):
        return
    old = str(present["model.name"])
    if not is_remote(old) or parse_address(old).base_url != parse_address(new).base_url:
        raise ConfigurationError(
            "parameter model.name cannot change to another model server while remote.api_key_env is set, because that "
            "server would receive the key: restart the node with the new address"
        )
