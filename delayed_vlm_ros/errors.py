"""All errors that this package raises on purpose, as one tree.

    DelayedVlmError
    ├── ConfigurationError          invalid setting
    ├── DependencyError             missing or broken Python package
    ├── ImageError                  image or image message that cannot be used
    │   └── StampOrderError         time stamp not newer than the newest kept one
    ├── MarkError                   invalid mark, label or unmark request
    │   ├── PairNotKeptError        pair not in the memory
    │   └── MarksFullError          maximum number of marks reached
    ├── VideoSourceError            video file or camera device that cannot be read
    ├── RecordingError              bag or image folder that cannot be read or written
    ├── MemoryFileError             key-frame file that cannot be read or written
    ├── ExportError                 export that cannot be written
    ├── QuestionsError              invalid question file
    ├── IncompleteError             incomplete evaluation
    ├── NodeDiedError               a started node has ended
    ├── NodeNotFoundError           a required node does not answer
    ├── ModelError                  model that cannot be used
    │   ├── ModelNotFoundError      checkpoint not on this machine
    │   ├── UnsupportedModelError   unsupported, incomplete, damaged or inconsistent checkpoint
    │   ├── ModelNotReadyError      model is loading or failed to load, its server is away, or the node is not active
    │   └── ServerError             model server that refuses a request or answers nonsense
    └── AskError                    question that cannot be answered
        ├── BadRequestError         invalid field of a request
        │   └── UnknownCameraError  no camera of that name
        ├── NoFramesError           no frames to answer from
        ├── BusyError               queue full
        ├── AskTimeoutError         deadline passed
        ├── AskCancelledError       cancelled, or the node is shutting down
        ├── DeviceMemoryError       device out of memory
        └── NonFiniteError          NaN or infinity computed

Operators of robots read the messages: each names the subject, the reason and the remedy.
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import ClassVar

from delayed_vlm_ros.text import escaped, escaped_lines

_MAX_CHARACTERS = 1000
# A password that is not percent-encoded may contain a slash, a colon, @ and blanks, and pathlib removes one of the two
# slashes. All parts are bounded: logs are long. A port is not a password.
_CREDENTIALS = re.compile(
    r"(\b[A-Za-z][\w+.-]{1,20}:/{1,2})(?=[^/])(?:"
    r"[^\s/:'\"]{0,200}:(?!\d{1,5}[/\s])(?:(?!:/)[^'\"\n]){0,200}@"
    r"|[^\s/:'\"]{0,200}:(?!\d{1,5}/)\S{0,1000}@"
    r"|[^\s/:'\"]{0,1000}@)"
)
# In a query, and in a path such as /user=me_password=pw_channel=1 of video recorders.
_SECRET_VALUES = re.compile(
    r"([?&;]\w{0,50}?(?:pass\w{0,20}|pwd|token|key|auth)=)[^&'\"\n]{0,1000}?(?=[&'\"\n]|[:,;] |$)"
    r"|([/_](?:passw(?:or)?d|pass|pwd)=)[^&/_\s'\"]{0,1000}",
    re.IGNORECASE | re.MULTILINE,
)


def shortened(text: str, max_characters: int = _MAX_CHARACTERS) -> str:
    """Return the text, truncated if too long: external input must not inflate logs and reports."""
    return text if len(text) <= max_characters else f"{text[:max_characters]}… ({len(text)} characters)"


def without_credentials(text: str, removed: str = "***") -> str:
    """Return a text with users, passwords and keys of addresses such as ``rtsp://user:password@host`` replaced.

    Args:
        text: An address, or text that has some.
        removed: Text that replaces them.
    """
    hidden = _CREDENTIALS.sub(lambda found: f"{found[1]}{removed}@", text)
    return _SECRET_VALUES.sub(lambda found: f"{found[1] or found[2]}{removed}", hidden)


class ErrorCode(IntEnum):
    """Error codes of the ROS interface; the same numbers as in ``srv/AskScene.srv``."""

    NONE = 0
    NO_FRAMES = 1
    BAD_REQUEST = 2
    UNKNOWN_CAMERA = 3
    BUSY = 4
    TIMEOUT = 5
    CANCELLED = 6
    OUT_OF_MEMORY = 7
    MODEL_NOT_READY = 8
    INTERNAL = 9


class DelayedVlmError(Exception):
    """Base of all errors raised by this package.

    Attributes:
        error_code: Code that the ROS interface reports for this class; subclasses inherit it.
    """

    error_code: ClassVar[ErrorCode] = ErrorCode.INTERNAL

    def __str__(self) -> str:
        """Return the message on one line; control characters of what it quotes are escaped."""
        return escaped(super().__str__())


class ConfigurationError(DelayedVlmError):
    """A setting has an invalid value."""


class DependencyError(DelayedVlmError):
    """A required Python package is not installed or cannot be imported."""


class ImageError(DelayedVlmError):
    """An image or image message cannot be used; the kept frames are unchanged."""


class StampOrderError(ImageError):
    """The time stamp of an image is not newer than the newest kept one."""


class MarkError(DelayedVlmError):
    """A pair cannot be marked or unmarked; all marks are unchanged."""

    error_code = ErrorCode.BAD_REQUEST


class PairNotKeptError(MarkError):
    """The pair is not, or no longer, in the memory."""

    error_code = ErrorCode.NO_FRAMES


class MarksFullError(MarkError):
    """The maximum number of pairs is already marked."""


class VideoSourceError(DelayedVlmError):
    """A video file or camera device cannot be opened or read."""


class RecordingError(DelayedVlmError):
    """A bag or image folder cannot be read, or a bag cannot be written."""


class MemoryFileError(DelayedVlmError):
    """A key-frame file cannot be read or written; the frames in memory are unchanged."""


class ExportError(DelayedVlmError):
    """An export cannot be written; it leaves nothing."""


class QuestionsError(DelayedVlmError):
    """A question file is invalid."""


class IncompleteError(DelayedVlmError):
    """An evaluation could not be completed; its partial results are kept."""


class NodeDiedError(DelayedVlmError):
    """A node that this program started has ended."""

    def __str__(self) -> str:
        """Return the message with the last lines of the node's output, control characters escaped."""
        return escaped_lines(Exception.__str__(self))


class NodeNotFoundError(DelayedVlmError):
    """A node that this program requires does not answer."""


class ModelError(DelayedVlmError):
    """The model cannot be used."""

    error_code = ErrorCode.MODEL_NOT_READY


class ModelNotFoundError(ModelError):
    """The checkpoint is not on this machine."""


class UnsupportedModelError(ModelError):
    """The checkpoint is of an unsupported type, or its files are incomplete, damaged or inconsistent."""


class ModelNotReadyError(ModelError):
    """The model is loading or failed to load, its server cannot be reached, or the node is not active."""


class ServerError(ModelError):
    """A model server refuses a request, or its response is invalid."""


class AskError(DelayedVlmError):
    """A question could not be answered."""


class BadRequestError(AskError):
    """A field of a request is invalid."""

    error_code = ErrorCode.BAD_REQUEST


class UnknownCameraError(BadRequestError):
    """The question names an unknown camera."""

    error_code = ErrorCode.UNKNOWN_CAMERA


class NoFramesError(AskError):
    """There are no frames to answer from."""

    error_code = ErrorCode.NO_FRAMES


class BusyError(AskError):
    """The queue of questions is full."""

    error_code = ErrorCode.BUSY


class AskTimeoutError(AskError):
    """The deadline passed before the answer was complete."""

    error_code = ErrorCode.TIMEOUT


class AskCancelledError(AskError):
    """The question was cancelled, by its client or because the worker is stopping."""

    error_code = ErrorCode.CANCELLED


class DeviceMemoryError(AskError):
    """The model's device ran out of memory."""

    error_code = ErrorCode.OUT_OF_MEMORY


class NonFiniteError(AskError):
    """The model computed NaN or infinity, for example by an overflow in float16; no computed state is kept."""
