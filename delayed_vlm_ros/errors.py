"""Every error this package raises on purpose, as one tree.

    DelayedVlmError
    ├── ConfigurationError          a setting that cannot work
    ├── DependencyError             a Python package that is missing or cannot be imported
    ├── ImageError                one image or image message that cannot be used
    │   └── StampOrderError         its time stamp is not newer than the newest kept one
    ├── MarkError                   a moment that cannot be marked, or a mark that cannot be taken off
    │   ├── PairNotKeptError        the memory does not hold it, or no longer
    │   └── MarksFullError          as many are marked as may be
    ├── VideoSourceError            a video file or camera device that cannot be read
    ├── RecordingError              a bag or folder of images that cannot be read, or not be written
    ├── MemoryFileError             a file of kept frames that cannot be read, or not be written
    ├── QuestionsError              a file of questions with an error in it
    ├── IncompleteError             an evaluation that could not be made of all that was asked for
    ├── NodeDiedError               a node that this program started has ended by itself
    ├── NodeNotFoundError           a node that somebody else should have started does not answer
    ├── ModelError
    │   ├── ModelNotFoundError      no such checkpoint on this machine
    │   ├── UnsupportedModelError   a checkpoint this package has no adapter for
    │   └── ModelNotReadyError      still loading, or failed to load
    └── AskError
        ├── BadRequestError         the question or its limits make no sense
        │   └── UnknownCameraError
        ├── NoFramesError           nothing to look at
        ├── BusyError               the queue of asks is full
        ├── AskTimeoutError         the deadline passed first
        ├── AskCancelledError       cancelled, or the node is going down
        ├── DeviceMemoryError       the device ran out of memory
        └── NonFiniteError          the model computed NaN or infinity

A message names the thing, the reason and the remedy, because it is what a robot's operator gets to read.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar

_MOST_CHARACTERS = 1000


def shortened(text: str, most: int = _MOST_CHARACTERS) -> str:
    """A text that may hold what somebody sent, cut so that logs and reports do not grow with it."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text)} characters)"


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


class ConfigurationError(DelayedVlmError):
    """A setting has a value that cannot work."""


class DependencyError(DelayedVlmError):
    """A Python package that is needed is not installed, or cannot be imported."""


class ImageError(DelayedVlmError):
    """An image or an image message cannot be used; nothing kept before it is lost."""


class StampOrderError(ImageError):
    """An image's time stamp is not newer than the newest kept one."""


class MarkError(DelayedVlmError):
    """A moment cannot be marked, or a mark cannot be taken off; what was marked before stays so."""

    error_code = ErrorCode.BAD_REQUEST


class PairNotKeptError(MarkError):
    """The memory does not hold the pair, or no longer."""

    error_code = ErrorCode.NO_FRAMES


class MarksFullError(MarkError):
    """As many pairs are marked as may be."""


class VideoSourceError(DelayedVlmError):
    """A video file or a camera device cannot be opened or read."""


class RecordingError(DelayedVlmError):
    """A bag or a folder of images cannot be read, or a bag not be written."""


class MemoryFileError(DelayedVlmError):
    """A file of kept frames cannot be read, or not be written; what is in the memory stays."""


class QuestionsError(DelayedVlmError):
    """A file of questions has an error in it."""


class IncompleteError(DelayedVlmError):
    """An evaluation could not be made of all that was asked for; what there is of it was kept."""


class NodeDiedError(DelayedVlmError):
    """A node that this program started has ended by itself."""


class NodeNotFoundError(DelayedVlmError):
    """A node that this program talks to is not there."""


class ModelError(DelayedVlmError):
    """Something is wrong with the model."""

    error_code = ErrorCode.MODEL_NOT_READY


class ModelNotFoundError(ModelError):
    """The checkpoint is not on this machine."""


class UnsupportedModelError(ModelError):
    """The checkpoint is of a kind that this package has no adapter for."""


class ModelNotReadyError(ModelError):
    """The model is still loading, or could not be loaded."""


class AskError(DelayedVlmError):
    """A question could not be answered."""


class BadRequestError(AskError):
    """The question, or a limit given with it, makes no sense."""

    error_code = ErrorCode.BAD_REQUEST


class UnknownCameraError(BadRequestError):
    """The question names a camera that this memory does not have."""

    error_code = ErrorCode.UNKNOWN_CAMERA


class NoFramesError(AskError):
    """There are no frames to answer from."""

    error_code = ErrorCode.NO_FRAMES


class BusyError(AskError):
    """Too many asks are waiting already."""

    error_code = ErrorCode.BUSY


class AskTimeoutError(AskError):
    """The ask's deadline passed before its answer was complete."""

    error_code = ErrorCode.TIMEOUT


class AskCancelledError(AskError):
    """The ask was cancelled, by its caller or because the worker is stopping."""

    error_code = ErrorCode.CANCELLED


class DeviceMemoryError(AskError):
    """The model's device ran out of memory."""

    error_code = ErrorCode.OUT_OF_MEMORY


class NonFiniteError(AskError):
    """The model computed NaN or infinity, for example by an overflow in float16; nothing computed is kept."""
