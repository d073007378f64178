"""Arguments of the tools. Their descriptions are part of the tools' schemas: a language model reads them."""

from __future__ import annotations

import re
from enum import Enum
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictFloat, StrictStr, ValidationError

from delayed_vlm_ros.errors import BadRequestError
from delayed_vlm_ros.inference.moments import DEFAULT_MAX_MOMENTS, MAX_MOMENTS
from delayed_vlm_ros.watches import Gate, Watch
from delayed_vlm_ros.watches.watch import MAX_NAME_CHARACTERS, MAX_SECONDS, MIN_PERIOD_SEC

MAX_FRAMES = 500
"""Largest number of key frames in one list."""

MAX_TIMEOUT_SEC = 3600.0
"""Longest deadline of a question, in seconds; the limit of the node."""

_NOT_IN_MESSAGES = re.compile("[\0\ud800-\udfff]")
_MAX_ID = 2**64 - 1
_MAX_WINDOW_SEC = 1e9


def _fits_into_message(text: str) -> str:
    """Refuse characters that a ROS message cannot hold: it would be cut at a NUL."""
    if _NOT_IN_MESSAGES.search(text):
        raise ValueError("must not contain NUL or half of a surrogate pair")
    return text


_Text = Annotated[str, AfterValidator(_fits_into_message)]
_Time = StrictFloat | StrictStr | None
_Id = Annotated[int, Field(ge=1, le=_MAX_ID, strict=True)]
_CameraName = Annotated[_Text, Field(description="Name of the camera, see the tool status; empty: the first camera.")]
_CameraNameOrAll = Annotated[
    _Text, Field(description='Name of the camera, see the tool status; empty: the first camera; "*": all cameras.')
]
_Since = Annotated[
    _Time,
    Field(
        description="Use only frames from this time on: ISO 8601 with time zone, or seconds since 1970.",
        examples=["2026-11-30T10:30:00Z", "2026-11-30T12:30:00+02:00"],
    ),
]
_Until = Annotated[_Time, Field(description="Use only frames up to this time; as 'since'.")]
_LastSec = Annotated[
    float,
    Field(
        description="Use only the last seconds before the newest frame, such as 60 for the last minute; 0: no limit.",
        ge=0,
        le=_MAX_WINDOW_SEC,
    ),
]


class Arguments(BaseModel):
    """Arguments of a tool. Unknown ones are refused: a mistyped limit must not be ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class NoArguments(Arguments):
    """Arguments of a tool that has none."""


class AskArguments(Arguments):
    """Arguments of ``ask_scene``."""

    question: Annotated[
        _Text,
        Field(
            description="One question in plain language about what the camera saw.",
            min_length=1,
            examples=["Where is the red box?", "Did anybody come in?", "What happened before the door was closed?"],
        ),
    ]
    camera: _CameraNameOrAll = ""
    last_sec: _LastSec = 0.0
    since: _Since = None
    until: _Until = None
    timeout_sec: Annotated[
        float,
        Field(
            description="Deadline in seconds, the wait in the queue included. Keep it below the client's own "
            "time limit, often 60 s.",
            gt=0,
            le=MAX_TIMEOUT_SEC,
        ),
    ] = 50.0
    max_new_tokens: Annotated[
        int, Field(description="Longest answer in tokens; 0: the node's default.", ge=0, le=2**32 - 1)
    ] = 0


class FindArguments(Arguments):
    """Arguments of ``find_moments``."""

    description: Annotated[
        _Text,
        Field(
            description="What to find, in a few words; or a yes/no question that ends with '?'.",
            min_length=1,
            examples=["a red box", "a person who carries something", "Is the door open?"],
        ),
    ]
    camera: _CameraNameOrAll = ""
    since: _Since = None
    until: _Until = None
    max_moments: Annotated[
        int, Field(description="Return at most this many moments of each kind.", ge=1, le=MAX_MOMENTS)
    ] = DEFAULT_MAX_MOMENTS
    timeout_sec: Annotated[
        float,
        Field(
            description="Deadline in seconds; what was found until then is returned. Keep it below the client's own "
            "time limit, often 60 s.",
            gt=0,
            le=MAX_TIMEOUT_SEC,
        ),
    ] = 50.0


class ListArguments(Arguments):
    """Arguments of ``list_key_frames``."""

    camera: _CameraName = ""
    last_sec: _LastSec = 0.0
    since: _Since = None
    until: _Until = None
    limit: Annotated[
        int, Field(description="Return at most this many key frames, the newest ones.", ge=1, le=MAX_FRAMES)
    ] = 50


class FrameImage(Enum):
    """Images of a key frame."""

    FIRST = "first"
    SECOND = "second"
    BOTH = "both"


class ShowArguments(Arguments):
    """Arguments of ``show_frame``."""

    id: Annotated[_Id, Field(description="Id of the key frame, from ask_scene, list_key_frames or an alert.")]
    image: Annotated[
        FrameImage,
        Field(description="A key frame has two consecutive images: show the first, the second, or both."),
    ] = FrameImage.FIRST


class MarkArguments(Arguments):
    """Arguments of ``mark``."""

    id: Annotated[
        _Id | None, Field(description="Id of the key frame; leave it out to select by 'time', or the newest.")
    ] = None
    time: Annotated[
        _Time,
        Field(
            description="Without an id: select the key frame nearest to this time, at most 5 s away. ISO 8601 with "
            "time zone, or seconds since 1970. Without both, the newest key frame is marked."
        ),
    ] = None
    camera: _CameraName = ""
    label: Annotated[
        _Text, Field(description="Short name shown with the key frame.", max_length=64, examples=["my bag"])
    ] = ""


class UnmarkArguments(Arguments):
    """Arguments of ``unmark``."""

    id: Annotated[_Id, Field(description="Id of the marked key frame.")]


class WatchArguments(Arguments):
    """Arguments of ``watch``."""

    name: Annotated[
        _Text,
        Field(description="Unique name of the watch.", min_length=1, max_length=MAX_NAME_CHARACTERS, examples=["door"]),
    ]
    question: Annotated[
        _Text,
        Field(
            description="Yes/no question about the newest frames.",
            min_length=1,
            examples=["Is the door open?", "Is a person in the room?"],
        ),
    ]
    camera: _CameraName = ""
    last_sec: Annotated[
        float,
        Field(description="Seconds before the newest frame to ask about; 0: all kept frames.", ge=0, le=MAX_SECONDS),
    ] = Watch.last_sec
    period_sec: Annotated[
        float, Field(description="Shortest time between two checks in seconds.", ge=MIN_PERIOD_SEC, le=MAX_SECONDS)
    ] = Watch.period_sec
    gate: Annotated[
        Gate,
        Field(
            description="Check at every period, only after the view has changed, or only after a new lasting key frame."
        ),
    ] = Watch.gate
    threshold: Annotated[
        float, Field(description="Probability of yes from which a check counts as yes.", ge=0.01, le=0.99)
    ] = Watch.threshold
    hold_sec: Annotated[
        float, Field(description="Seconds for which all checks must count as yes.", ge=0, le=MAX_SECONDS)
    ] = Watch.hold_sec
    cooldown_sec: Annotated[
        float, Field(description="Shortest time between two alerts of yes in seconds.", ge=0, le=MAX_SECONDS)
    ] = Watch.cooldown_sec
    once: Annotated[bool, Field(description="End the watch with its first alert of yes.")] = False
    lifetime_sec: Annotated[
        float,
        Field(
            description="End the watch after this time in seconds; 0: it stays until unwatch.", ge=0, le=_MAX_WINDOW_SEC
        ),
    ] = 0.0


class UnwatchArguments(Arguments):
    """Arguments of ``unwatch``."""

    name: Annotated[_Text, Field(description="Name of the watch, see list_watches.", min_length=1)]


def parse_arguments(model: type[Arguments], given: dict[str, object]) -> Arguments:
    """Return the arguments of a call.

    Args:
        model: Class of the tool's arguments.
        given: Arguments by name, as the client sent them.

    Raises:
        BadRequestError: An argument is missing, unknown or invalid; the message names each.
    """
    try:
        return model.model_validate(given)
    except ValidationError as error:
        problems = dict(_problem(one, model) for one in error.errors(include_url=False, include_context=False))
        raise BadRequestError(f"invalid arguments: {'; '.join(problems.values())}") from None


def _problem(error: object, model: type[Arguments]) -> tuple[str, str]:
    """Return the name of an invalid argument, and what is wrong with it. Union types report several times."""
    details: dict[str, object] = dict(error)  # type: ignore[call-overload]
    name = str(next(iter(details["loc"]), ""))  # type: ignore[call-overload]
    if details["type"] == "extra_forbidden":
        known = ", ".join(model.model_fields) or "none"
        return name, f"'{name}' is unknown: the arguments are {known}"
    if details["type"] == "missing":
        return name, f"'{name}' is missing"
    return name, f"'{name}': {str(details['msg']).removeprefix('Value error, ')}, got {str(details['input'])[:40]!r}"
