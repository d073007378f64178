"""What can be set on the scene-memory node. ``config/scene_memory.yaml`` shows the same with comments."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from delayed_vlm_ros.errors import ConfigurationError
from delayed_vlm_ros.images.validation import MAX_IMAGE_PIXELS
from delayed_vlm_ros.memory import MemoryConfig
from delayed_vlm_ros.ros.parameters import parameter, specifications

MAX_NEW_TOKENS_LIMIT = 4096
"""Most tokens an answer may be allowed to have, by parameter or by request."""

MAX_QUESTION_CHARACTERS = 100_000
"""Longest question that may be allowed by parameter."""

MAX_TIMEOUT_SEC = 3600.0
"""Longest deadline of an ask, by parameter or by request, in seconds."""

MAX_QUEUE_SIZE = 64
"""Most asks that may wait. Each waits in a thread of the executor, so the executor has room for as many."""

RAW = "raw"
COMPRESSED = "compressed"

AUTO = "auto"
RESTART = "restart"
CONTINUE = "continue"

OFF = "off"
VISION = "vision"
FULL = "full"

MAX_CAMERAS = 16
"""Most cameras of one node. Each has a thread of the executor for its images."""

# A camera's name becomes part of topic names and of diagnostics.
_CAMERA_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")


def _at_configure(default: Any, description: str, **details: Any) -> Any:
    return parameter(default, description, read_only=False, at_configure=True, **details)


def _at_any_time(default: Any, description: str, **details: Any) -> Any:
    return parameter(default, description + "; may change at any time", read_only=False, **details)


@dataclass(frozen=True)
class SceneMemoryParameters:
    """The node's parameters. Sizes count frames; a remembered pair is two."""

    autostart: bool = parameter(default=True, description="configure and activate by itself at start")
    cameras: tuple[str, ...] = _at_configure(
        ("camera",),
        "names of the cameras, in questions and reports; the images of one come on image, those of several on "
        "<name>/image each",
    )
    image_transport: str = _at_configure("raw", "which topic to take images from", choices=(RAW, COMPRESSED))

    image_max_pixels: int = _at_configure(
        MAX_IMAGE_PIXELS,
        "largest height times width of an image that is taken; larger ones are dropped before they are decoded",
        unit="pixels",
        minimum=1,
        maximum=MAX_IMAGE_PIXELS,
    )

    star_size: int = _at_configure(
        MemoryConfig.star_memory_size,
        "key frames of the whole past; 0: none",
        name="memory.star.size",
        unit="frames",
        minimum=0,
        maximum=2000,
    )
    stream_size: int = _at_configure(
        MemoryConfig.stream_window_size,
        "newest frames",
        name="memory.stream.size",
        unit="frames",
        minimum=2,
        maximum=2000,
    )
    importance_threshold: float = _at_configure(
        MemoryConfig.importance_threshold,
        "importance from which a frame is a key frame",
        name="memory.importance_threshold",
        minimum=0.0,
        maximum=1.0,
    )
    sample_fps: float = _at_any_time(
        MemoryConfig.sample_fps,
        "frames remembered per second",
        name="memory.sample_fps",
        unit="1/s",
        minimum=0.01,
        maximum=60.0,
    )
    max_pixels: int = _at_configure(
        MemoryConfig.max_pixels,
        "largest height times width of a remembered frame",
        name="memory.max_pixels",
        unit="pixels",
        minimum=784,
        maximum=16_777_216,
    )

    on_time_jump: str = _at_configure(
        AUTO,
        "what to do when a camera's time goes back, or a simulated clock jumps: begin the memory anew, or go on as if "
        "no time had passed; auto: restart with use_sim_time, else continue",
        name="memory.on_time_jump",
        choices=(AUTO, RESTART, CONTINUE),
    )
    eviction_chunk: int = _at_configure(
        -1,
        "frames that leave a full memory at once, so that what is encoded stays valid for longer; 0: a pair, -1: a "
        "third of the smaller memory",
        name="memory.eviction_chunk",
        unit="frames",
        minimum=-1,
        maximum=2000,
    )
    max_marked: int = _at_configure(
        -1,
        "frames that may be marked at once, a pair or more below the key frames; 0: no marks, -1: a quarter of them",
        name="memory.marks.max",
        unit="frames",
        minimum=-1,
        maximum=2000,
    )
    budget_mb: float = _at_configure(
        0.0,
        "most bytes kept between asks: images, vision features and KV, all cameras together; 0: no bound",
        name="memory.budget_mb",
        unit="MB",
        minimum=0.0,
        maximum=1e6,
    )

    # Not to be set while the node runs: no request shall say where on this machine files are written.
    persistence_folder: str = parameter(
        "",
        "an existing folder, of this node alone, in which key frames and marks survive a restart; empty: they do not",
        name="persistence.folder",
    )
    persistence_period_sec: float = _at_configure(
        30.0,
        "shortest time between two writings; what is newer than the last one is lost with the power",
        name="persistence.period_sec",
        unit="s",
        minimum=0.1,
        maximum=86_400.0,
    )

    pose_limit_sec: float = _at_configure(
        0.5,
        "a pose further in time from a frame is not kept with it",
        name="pose.limit_sec",
        unit="s",
        minimum=0.0,
        maximum=60.0,
    )

    precompute: str = _at_configure(
        OFF,
        "what to encode ahead of the next ask: nothing, what the vision encoder sees, or all but the question",
        name="precompute.mode",
        choices=(OFF, VISION, FULL),
    )
    precompute_quiet_sec: float = _at_configure(
        0.2,
        "seconds without an ask before anything is encoded ahead",
        name="precompute.quiet_sec",
        unit="s",
        minimum=0.0,
        maximum=3600.0,
    )

    model: str = _at_configure(
        "auto", "checkpoint: a folder, a name on the model hub, 'demo' or 'auto'", name="model.name"
    )
    device: str = _at_configure("auto", "where the model runs: auto, cpu, cuda, cuda:1, …", name="model.device")
    dtype: str = _at_configure(
        "auto",
        "number format of the model",
        name="model.dtype",
        choices=("auto", "bfloat16", "float16", "float32"),
    )
    attention: str = _at_configure(
        "auto",
        "attention implementation of the model",
        name="model.attention",
        choices=("auto", "sdpa", "flash_attention_2", "eager"),
    )
    allow_download: bool = _at_configure(
        default=False,
        description="fetch the model from the hub when it is not on this machine",
        name="model.allow_download",
    )

    canonical: bool = _at_configure(
        default=True,
        description="compute an ask that re-uses something in the steps of one that does not: equal answers to the bit",
        name="model.canonical",
    )
    features_on_host: bool = _at_configure(
        default=False,
        description="keep vision features in the host's memory rather than on the device",
        name="model.features_on_host",
    )

    unload_after_idle_sec: float = _at_configure(
        0.0,
        "seconds without an ask after which the model is unloaded, to be loaded again for the next; 0: never",
        name="model.unload_after_idle_sec",
        unit="s",
        minimum=0.0,
        maximum=1e6,
    )

    queue_size: int = _at_configure(
        8, "asks that may wait besides the running one", name="ask.queue_size", minimum=1, maximum=MAX_QUEUE_SIZE
    )
    timeout_sec: float = _at_any_time(
        60.0,
        "deadline of an ask that names none",
        name="ask.timeout_sec",
        unit="s",
        minimum=0.1,
        maximum=MAX_TIMEOUT_SEC,
    )
    max_new_tokens: int = _at_any_time(
        128,
        "length limit of an answer when the ask names none",
        name="ask.max_new_tokens",
        unit="tokens",
        minimum=1,
        maximum=MAX_NEW_TOKENS_LIMIT,
    )
    max_new_tokens_limit: int = _at_any_time(
        MAX_NEW_TOKENS_LIMIT,
        "most tokens that an ask may want for its answer",
        name="ask.max_new_tokens_limit",
        unit="tokens",
        minimum=1,
        maximum=MAX_NEW_TOKENS_LIMIT,
    )
    max_question_characters: int = _at_any_time(
        2000,
        "longest question",
        name="ask.max_question_characters",
        unit="characters",
        minimum=1,
        maximum=MAX_QUESTION_CHARACTERS,
    )

    stale_after_sec: float = _at_any_time(
        1.0,
        "a camera silent for longer is reported as stale; more than the time between two images of a slow camera",
        name="diagnostics.stale_after_sec",
        unit="s",
        minimum=0.1,
        maximum=3600.0,
    )


def memory_config(parameters: SceneMemoryParameters) -> MemoryConfig:
    """Return the settings of each camera's memory.

    Raises:
        ConfigurationError: Its sizes, its chunk or its marks do not go together.
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
    """Add to an error of parts that know no ROS which of the node's parameters it is about.

    Raises:
        ConfigurationError: The one raised within, with the names.
    """
    try:
        yield
    except ConfigurationError as error:
        raise ConfigurationError(f"{error} (parameters {', '.join(names)})") from error


def check_together(parameters: SceneMemoryParameters) -> None:
    """Check what ranges alone cannot say.

    Raises:
        ConfigurationError: A value, or a combination of values, cannot work.
    """
    _check_cameras(parameters.cameras)
    if not parameters.model.strip():
        raise ConfigurationError(
            "parameter model.name is empty; give a checkpoint's folder, a name on the hub, demo or auto"
        )
    if parameters.max_new_tokens > parameters.max_new_tokens_limit:
        raise ConfigurationError(
            f"parameter ask.max_new_tokens is {parameters.max_new_tokens}, more than ask.max_new_tokens_limit with its "
            f"{parameters.max_new_tokens_limit}: lower the one or raise the other"
        )
    if parameters.persistence_folder and not Path(parameters.persistence_folder).is_absolute():
        raise ConfigurationError(
            f"parameter persistence.folder is {parameters.persistence_folder}; give a whole path, from / on, since "
            "it is not certain where a node is started"
        )
    memory_config(parameters)


def _check_cameras(names: tuple[str, ...]) -> None:
    if not 1 <= len(names) <= MAX_CAMERAS:
        raise ConfigurationError(f"parameter cameras has {len(names)} names; give from 1 to {MAX_CAMERAS}")
    for name in names:
        if not _CAMERA_NAME.fullmatch(name):
            raise ConfigurationError(
                f"parameter cameras has the name '{name}'; a name must be a letter followed by at most 63 letters, "
                "digits and underscores"
            )
    if len(set(names)) < len(names):
        raise ConfigurationError(f"parameter cameras is {', '.join(names)}: each name may stand there once")


def check_change(present: Mapping[str, Any], changes: Mapping[str, Any], *, configured: bool) -> None:
    """Check a change of parameters before it is made.

    As long as the present values cannot work, a change is checked by itself: several wrong ones can then be put right
    one after the other.

    Args:
        present: All present values by ROS name.
        changes: New values by ROS name; names that are not of this node's dataclass are passed over.
        configured: Whether the node is beyond unconfigured.

    Raises:
        ConfigurationError: A new value cannot work, not with the others, or not now.
    """
    specs = specifications(SceneMemoryParameters)
    changed = {field: spec for field, spec in specs.items() if spec.name in changes}
    new_values = {field: spec.convert(changes[spec.name]) for field, spec in changed.items()}
    for field, spec in changed.items():
        if configured and spec.at_configure and new_values[field] != spec.convert(present[spec.name]):
            raise ConfigurationError(
                f"parameter {spec.name} is taken when the node is configured: bring the node to unconfigured first "
                "(lifecycle transitions deactivate and cleanup), then set it and configure again"
            )
    try:
        values = {field: spec.convert(present[spec.name]) for field, spec in specs.items()}
        check_together(SceneMemoryParameters(**values))
    except ConfigurationError:
        return
    check_together(SceneMemoryParameters(**{**values, **new_values}))
