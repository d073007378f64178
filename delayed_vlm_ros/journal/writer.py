"""The thread that writes the journal, so that a slow disk delays no question."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from delayed_vlm_ros.errors import MemoryFileError
from delayed_vlm_ros.journal.entry import JournalCounts, JournalEntry
from delayed_vlm_ros.journal.store import JournalStore

MAX_UNWRITTEN = 100
"""Lines that wait while the disk fails."""

_LOGGER = logging.getLogger(__name__)
_RETRY_SEC = 5.0
_CHECK_SEC = 5.0  # between two looks at the size of the file


@dataclass(frozen=True, slots=True)
class WriterReport:
    """State of the journal's file.

    Attributes:
        counts: Size of the journal, some seconds ago; zeros before it was opened.
        written: Lines written since the start.
        unwritten: Lines that wait for the disk.
        lost: Lines that were lost because the disk failed for too long.
        error: Why lines are not written now; empty if they are.
        warning: Why an earlier file could not be used; empty if it could.
    """

    counts: JournalCounts
    written: int
    unwritten: int
    lost: int
    error: str
    warning: str


class JournalWriter:
    """Opens the journal and writes its lines in a thread, from ``start`` to ``close``. Thread-safe.

    Args:
        open_store: Opens the journal; called again after it has failed.
        warn: Logs a fault, in any thread.
    """

    def __init__(self, open_store: Callable[[], JournalStore], warn: Callable[[str], object]) -> None:
        self._open_store = open_store
        self._warn = warn
        self._writing = threading.Lock()  # held while a line is written and while all are removed
        self._changed = threading.Condition()  # guards the attributes below
        self._unwritten: deque[Callable[[], JournalEntry]] = deque()
        self._is_at_work = False  # on the first of these
        self._store: JournalStore | None = None
        self._closing = False
        self._error = "the journal is not open yet"
        self._warning = ""
        self._counts = JournalCounts(0, 0)
        self._written = self._lost = 0
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)

    def start(self) -> None:
        """Open the journal and start writing."""
        self._thread.start()

    def refuse(self, error: str) -> None:
        """Do not write: called instead of ``start``.

        Args:
            error: Why.
        """
        with self._changed:
            self._error = error
            self._closing = True
        self._warn(error)

    def put(self, make_entry: Callable[[], JournalEntry]) -> None:
        """Write a line soon. While too many wait, the oldest one is lost that is not being written.

        Args:
            make_entry: Makes the line; called in the writer's thread.
        """
        with self._changed:
            if self._closing:
                self._lost += 1
                return
            self._unwritten.append(make_entry)
            if len(self._unwritten) > MAX_UNWRITTEN:
                del self._unwritten[int(self._is_at_work)]
                self._lost += 1
            self._changed.notify()

    @property
    def store(self) -> JournalStore:
        """The open journal, for reading.

        Raises:
            MemoryFileError: It is not open.
        """
        with self._changed:
            if self._store is None:
                raise MemoryFileError(f"the journal cannot be read: {self._error}")
            return self._store

    def clear(self) -> int:
        """Remove all lines from the disk, and those that wait; return their number.

        Raises:
            MemoryFileError: A file cannot be removed, or the journal is not open.
        """
        store = self.store
        with self._writing:
            with self._changed:
                waiting = len(self._unwritten)
                self._unwritten.clear()
            removed = store.clear()
            with self._changed:
                self._counts, self._warning = JournalCounts(0, 0), ""
        return removed + waiting

    def report(self) -> WriterReport:
        """Return the present state."""
        with self._changed:
            return WriterReport(
                self._counts, self._written, len(self._unwritten), self._lost, self._error, self._warning
            )

    def close(self, timeout_sec: float) -> None:
        """Write the last lines and close the file.

        Args:
            timeout_sec: Longest time to wait for it, in seconds.
        """
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(timeout_sec)

    # The thread -----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._open() and self._write_next():
                pass
            self._write_last()
        except Exception as error:  # noqa: BLE001  a defect: log and diagnostics report that the thread ended
            self._set_error(f"the journal is no longer written: {type(error).__name__}: {error}")
            with self._changed:
                self._closing = True
        finally:
            if self._store is not None:
                self._store.close()

    def _open(self) -> bool:
        """Open the journal, trying until it works; return False at the end."""
        while self._store is None:
            try:
                store = self._open_store()
            except MemoryFileError as error:
                self._set_error(str(error))
                if self._wait(lambda: self._closing, _RETRY_SEC):
                    return False
            else:
                with self._changed:
                    self._store = store
                self._set_error("")
                self._look(store)
        return True

    def _write_next(self) -> bool:
        """Wait for a line and write it; return False at the end."""
        store = self._store
        assert store is not None  # noqa: S101  for the type checker
        if not self._wait(lambda: self._closing or bool(self._unwritten), _CHECK_SEC):
            if self._look(store):
                self._set_error("")  # no line waits, and the disk is back
            return True
        if self._closing:
            return False
        return self._write(store) or not self._wait(lambda: self._closing, _RETRY_SEC)

    def _write(self, store: JournalStore) -> bool:
        """Write the line that has waited for longest; return False if the disk fails."""
        with self._writing:
            with self._changed:
                if not self._unwritten:  # cleared meanwhile
                    return True
                make_entry = self._unwritten[0]
                self._is_at_work = True
            try:
                store.add(make_entry())
            except MemoryFileError as error:
                with self._changed:
                    self._is_at_work = False
                self._set_error(str(error))
                return False
            except Exception:
                _LOGGER.exception("a line of the journal cannot be made")
                is_written = False
            else:
                is_written = True
            with self._changed:
                self._is_at_work = False
                self._unwritten.popleft()
                self._written += is_written
                self._lost += not is_written
        self._set_error("")
        self._look(store)
        return True

    def _write_last(self) -> None:
        """Write what waits at the end, until the disk fails."""
        store = self._store
        while store is not None and self._unwritten and self._write(store):
            pass
        with self._changed:
            lost = len(self._unwritten)
            self._lost += lost
            self._unwritten.clear()
        if lost:
            self._warn(f"lines of the journal are lost ({lost}): {self._error}")

    def _look(self, store: JournalStore) -> bool:
        """Note the size of the journal; return whether it can be read."""
        try:
            counts = store.counts()
        except MemoryFileError as error:
            self._set_error(str(error))
            return False
        warning = store.warning
        with self._changed:
            is_new, self._warning, self._counts = warning not in ("", self._warning), warning, counts
        if is_new:
            self._warn(warning)
        return True

    def _set_error(self, error: str) -> None:
        with self._changed:
            before, self._error = self._error, error
        if error and error != before:
            self._warn(f"the journal is not written: {error}")

    def _wait(self, condition: Callable[[], bool], timeout_sec: float) -> bool:
        with self._changed:
            return self._changed.wait_for(condition, timeout_sec)
