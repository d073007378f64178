"""The file with the watches of clients and with what has been reported: a restart repeats and loses no alert."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from delayed_vlm_ros.errors import BadRequestError, MemoryFileError
from delayed_vlm_ros.watches.state import WatchState
from delayed_vlm_ros.watches.watch import Gate, Watch, check_watch

FILE = "watches.json"
"""Name of the file in the folder of key frames."""

_VERSION = 1
_MODE = 0o600
_MAX_BYTES = 1 << 20  # 200 watches have 120 kB
_ASIDE = ".aside"
_NEW = ".new"


@dataclass(frozen=True)
class StoredWatch:
    """A watch in the file.

    Attributes:
        watch: Its settings.
        of_client: Whether a client added it; otherwise it is in the parameter file, and only its state is restored.
        added_at: When it was added, in seconds since 1970.
        was_yes: Whether its last known level was yes.
        is_alerted: Whether its last published alert was a rising one.
        alerted_at: Stamp of its last published rising alert, in seconds; None before the first.
    """

    watch: Watch
    of_client: bool
    added_at: float
    was_yes: bool = False
    is_alerted: bool = False
    alerted_at: float | None = None

    @property
    def state(self) -> WatchState:
        """The state with which it begins again."""
        return WatchState(was_yes=self.was_yes, is_alerted=self.is_alerted, alerted_at=self.alerted_at)


@dataclass(frozen=True)
class StoredWatches:
    """The content of the file.

    Attributes:
        watches: The watches.
        alerts: Number of alerts published so far.
        warning: Why the file could not be used and its new name; empty if it could be used or does not exist.
    """

    watches: tuple[StoredWatch, ...] = ()
    alerts: int = 0
    warning: str = field(default="", compare=False)


class WatchStore:
    """Reads and writes the file. Follows no links.

    Args:
        folder: Existing folder, which no other node uses.
    """

    def __init__(self, folder: str) -> None:
        self._path = Path(folder) / FILE

    def load(self) -> StoredWatches:
        """Return the content of the file; set an unusable one aside."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return StoredWatches()
        except OSError as error:
            return StoredWatches(warning=f"cannot read {self._path}: {error.strerror}; watches start without it")
        try:
            with open(descriptor, "rb") as file:  # noqa: PTH123  a descriptor
                return _parsed(file.read(_MAX_BYTES + 1))
        except (OSError, ValueError, OverflowError, TypeError, KeyError, BadRequestError, RecursionError) as error:
            return StoredWatches(warning=self._set_aside(error))

    def _set_aside(self, error: Exception) -> str:
        aside = self._path.name + _ASIDE
        try:
            self._path.replace(self._path.with_name(aside))
        except OSError as failure:
            return f"cannot use {self._path}: {error}; it cannot be set aside: {failure.strerror}"
        return f"cannot use {self._path}: {error}; set aside as {aside}, watches start without it"

    def save(self, watches: Sequence[StoredWatch], alerts: int) -> None:
        """Write the file; it is on the disk when this returns, and until then the previous one is.

        Raises:
            MemoryFileError: The file cannot be written; the previous one is unchanged.
        """
        values = {"version": _VERSION, "alerts": alerts, "watches": [_as_json(stored) for stored in watches]}
        content = json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False).encode()
        if len(content) > _MAX_BYTES:
            raise MemoryFileError(
                f"cannot write {self._path}: {len(content)} bytes are more than {_MAX_BYTES}: use fewer watches or "
                "shorter questions; watches of clients do not survive a restart, and alerts may be repeated"
            )
        new = self._path.with_name(self._path.name + _NEW)
        try:
            new.unlink(missing_ok=True)
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE)
            with open(descriptor, "wb") as file:  # noqa: PTH123  a descriptor
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            new.replace(self._path)
            _sync_folder(self._path.parent)
        except OSError as error:
            raise MemoryFileError(
                f"cannot write {self._path}: {error.strerror}; watches of clients do not survive a restart, and alerts "
                "may be repeated: check that the folder exists, is writable for this user and has free disk space"
            ) from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _as_json(stored: StoredWatch) -> dict[str, Any]:
    values = asdict(stored)
    values["watch"]["gate"] = stored.watch.gate.value
    return values


def _parsed(content: bytes) -> StoredWatches:
    """Return the content of a file.

    Raises:
        ValueError: It is not such a file.
        TypeError: A value has another type, or a field is unknown or missing.
        KeyError: A field is missing.
        BadRequestError: A setting is invalid.
    """
    if len(content) > _MAX_BYTES:
        raise ValueError(f"larger than {_MAX_BYTES} bytes")
    values = json.loads(content)
    if not isinstance(values, dict) or values.get("version") != _VERSION:
        raise ValueError("not a file of watches, or an unsupported version")
    alerts = values["alerts"]
    if not isinstance(alerts, int) or not 0 <= alerts < 2**63:
        raise ValueError(f"invalid number of alerts {alerts!r}")
    watches = tuple(_stored_watch(one) for one in values["watches"])
    if len({stored.watch.name for stored in watches}) < len(watches):
        raise ValueError("two watches have the same name")
    return StoredWatches(watches, alerts)


def _stored_watch(values: dict[str, Any]) -> StoredWatch:
    settings = {**values["watch"], "gate": Gate(values["watch"]["gate"])}
    stored = StoredWatch(**{**values, "watch": Watch(**settings)})
    _check_types(stored.watch, Watch("", ""))
    _check_types(stored, StoredWatch(stored.watch, of_client=True, added_at=0.0, alerted_at=0.0))
    check_watch(stored.watch)
    return stored


def _check_types(one: Any, example: Any) -> None:
    for name, value in vars(one).items():
        expected = type(vars(example)[name])
        if expected is float:
            is_valid = type(value) in (int, float) and math.isfinite(value)
        else:
            is_valid = type(value) is expected
        if not (is_valid or (value is None and name == "alerted_at")):
            raise ValueError(f"invalid value {value!r} of {name}")
