"""Lines of the journal in an SQLite file with a full-text index.

A power failure loses at most the last lines: the file is in WAL mode, whose frames have checksums, and is flushed to
the disk at checkpoints. An unusable file is set aside and a new one begins.
"""

from __future__ import annotations

import json
import math
import os
import sqlite3
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from delayed_vlm_ros.errors import ConfigurationError, MemoryFileError
from delayed_vlm_ros.journal.entry import (
    MAX_CAPTION_CHARACTERS,
    JournalCounts,
    JournalEntry,
    JournalMatch,
    JournalPage,
    Pose,
)
from delayed_vlm_ros.journal.words import indexed_text, query_phrases, query_terms
from delayed_vlm_ros.time import NANOSECONDS_PER_SECOND

FILE = "journal.sqlite3"
"""Name of the file in the folder of key frames."""

_MODE = 0o600  # texts and images of private rooms: for the owner only
_WAL, _SHM, _ASIDE = "-wal", "-shm", ".aside"
_APPLICATION_ID = 0x44564C4A  # "DVLJ"
_VERSION = 1
_FTS = "fts5"
_BUSY_SEC = 2.0  # longest wait for another program that reads the file, or for a write
_WAL_BYTES = 4 << 20  # to which the WAL file is cut after a checkpoint
_MAX_ID = 2**63 - 1
_ROUNDING_NS = 256  # of a stamp in seconds
_PRUNED_SHARE = 100  # one of so many lines is removed together when the file is too large

_SCHEMA = f"""
CREATE TABLE entry (
    id INTEGER PRIMARY KEY AUTOINCREMENT, camera TEXT NOT NULL, frame_id TEXT NOT NULL, stamp_ns INTEGER NOT NULL,
    end_stamp_ns INTEGER NOT NULL, pair_id INTEGER NOT NULL, caption TEXT NOT NULL, reason TEXT NOT NULL,
    label TEXT NOT NULL, pose TEXT
);
CREATE TABLE thumbnail (id INTEGER PRIMARY KEY, jpeg BLOB NOT NULL);
CREATE VIRTUAL TABLE words USING {_FTS} (text, tokenize = 'porter unicode61 remove_diacritics 2');
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_VERSION};
"""
_COLUMNS = "e.id, camera, frame_id, stamp_ns, end_stamp_ns, pair_id, caption, reason, label, pose"
_WITHIN = (
    "(:since IS NULL OR e.stamp_ns >= :since) AND (:until IS NULL OR e.end_stamp_ns <= :until) AND "
    "(:camera IS NULL OR e.camera = :camera) AND e.id < :before"
)
# Made of constants; all values are parameters.
_SEARCH = (
    f"SELECT {_COLUMNS}, NULL FROM words JOIN entry e ON e.id = words.rowid "  # noqa: S608
    f"WHERE words MATCH :query AND {_WITHIN} ORDER BY words.rank, e.id DESC LIMIT :limit"
)
_MATCHES = "SELECT rowid FROM words WHERE words MATCH ? AND rowid IN (SELECT value FROM json_each(?))"
_LINES = f"SELECT {_COLUMNS}, NULL FROM entry e WHERE {_WITHIN} ORDER BY e.id DESC LIMIT :limit"  # noqa: S608
_LINES_WITH_THUMBNAILS = (
    f"SELECT {_COLUMNS}, jpeg FROM entry e LEFT JOIN thumbnail t ON t.id = e.id "  # noqa: S608
    f"WHERE {_WITHIN} ORDER BY e.id DESC LIMIT :limit"
)
_COUNT = f"SELECT count(*) FROM entry e WHERE {_WITHIN}"  # noqa: S608
_INSERT = (
    "INSERT INTO entry (camera, frame_id, stamp_ns, end_stamp_ns, pair_id, caption, reason, label, pose) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


def check_fts() -> None:
    """Check that the SQLite library has the full-text index.

    Raises:
        ConfigurationError: It has not.
    """
    with sqlite3.connect(":memory:") as connection:
        try:
            connection.execute(f"CREATE VIRTUAL TABLE words USING {_FTS} (text)")
        except sqlite3.OperationalError as error:
            raise ConfigurationError(
                f"the journal needs SQLite with FTS5, but version {sqlite3.sqlite_version} of this Python has none "
                f"({error}): use a Python with the SQLite library of the distribution, or set journal.enabled to false"
            ) from error


class JournalStore:
    """Adds and finds lines. Thread-safe.

    Args:
        folder: Existing folder, which no other node uses.
        max_rows: Largest number of lines; the first ones are removed.
        max_bytes: Largest size of the file, in bytes; the first lines are removed. Its WAL file may have a few MB more.

    Raises:
        MemoryFileError: The file cannot be opened.
    """

    def __init__(self, folder: str | Path, *, max_rows: int, max_bytes: int) -> None:
        self._folder = Path(folder)
        self._path = self._folder / FILE
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._lock = threading.Lock()  # held while the file is written; reads do not need it
        self._warning = ""
        self._lines = 0
        self._inode: tuple[int, int] = (0, 0)
        with self._errors("cannot open"):
            self._device = self._folder.stat().st_dev
            self._connection = self._open()

    @property
    def warning(self) -> str:
        """Why an earlier file could not be used and its new name; empty if it could."""
        return self._warning

    # Opening --------------------------------------------------------------------------------------------------------

    def _open(self, first_id: int = 1) -> sqlite3.Connection:
        """Open the file, and set it aside if it is unusable."""
        try:
            return self._open_file(first_id)
        except (sqlite3.DatabaseError, ValueError) as error:
            if not _is_unusable(error):
                raise
            self._set_aside(str(error))
            return self._open_file(first_id)

    def _open_file(self, first_id: int) -> sqlite3.Connection:
        is_new = self._create()
        connection = self._connect("rw")
        try:
            self._prepare(connection, first_id, is_new=is_new)
            (self._lines,) = connection.execute("SELECT count(*) FROM entry").fetchone()
            status = self._path.stat()
            self._inode = status.st_dev, status.st_ino
            self._shrink(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect(self, mode: str) -> sqlite3.Connection:
        uri = f"file:{quote(str(self._path.absolute()))}?mode={mode}"
        connection = sqlite3.connect(
            uri, timeout=_BUSY_SEC, isolation_level=None, check_same_thread=False, uri=True, cached_statements=64
        )
        connection.execute("PRAGMA trusted_schema = OFF")
        return connection

    def _create(self) -> bool:
        """Create the file for its owner only, unless it exists; return whether it is empty."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            status = self._path.lstat()
        except FileNotFoundError:
            pass
        else:
            if not stat.S_ISREG(status.st_mode):
                raise ValueError("not a regular file")
        descriptor = os.open(self._path, flags, _MODE)
        try:
            os.fchmod(descriptor, _MODE)
            return os.fstat(descriptor).st_size == 0
        finally:
            os.close(descriptor)

    def _prepare(self, connection: sqlite3.Connection, first_id: int, *, is_new: bool) -> None:
        if is_new:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        else:
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            is_new = tables == 0  # the machine failed when the file was made
            if not is_new and (application, version) != (_APPLICATION_ID, _VERSION):
                raise ValueError(f"not a journal, or an unsupported version ({version})")
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL", f"journal_size_limit = {_WAL_BYTES}"):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        connection.execute("PRAGMA secure_delete = ON")
        if is_new:
            connection.executescript(f"BEGIN;{_SCHEMA}COMMIT;")
            connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('entry', ?)", (first_id - 1,))

    def _set_aside(self, reason: str) -> None:
        """Rename an unusable file; an earlier one that was set aside is replaced.

        Raises:
            OSError: It cannot be renamed.
        """
        aside = FILE + _ASIDE
        for suffix in (_WAL, ""):
            with suppress(FileNotFoundError):
                self._path.with_name(FILE + suffix).replace(self._folder / (aside + suffix))
        self._path.with_name(FILE + _SHM).unlink(missing_ok=True)
        self._warning = f"cannot use {self._path}: {reason}; set aside as {aside}, the journal starts empty"

    def _check_file(self) -> None:
        """Check that the path still leads to the open file; begin a new one if it was removed.

        Raises:
            MemoryFileError: The folder is on another disk than before.
            OSError: The folder was removed.
        """
        if self._folder.stat().st_dev != self._device:
            raise MemoryFileError(
                f"folder {self._folder} is on another disk than before: mount its disk, then configure again"
            )
        if self._is_current():
            return
        self._close()
        self._connection = self._open()
        self._warning = f"{self._path} was removed or replaced while it was in use: its lines are lost to this node"

    def _is_current(self) -> bool:
        """Return whether the path leads to the open file."""
        try:
            status = self._path.lstat()
        except FileNotFoundError:
            return False
        return (status.st_dev, status.st_ino) == self._inode

    def close(self) -> None:
        """Close the file, after which it is complete without its WAL file."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        with suppress(sqlite3.Error):
            self._connection.close()
        self._inode = (0, 0)  # the next call opens it again

    # Writing --------------------------------------------------------------------------------------------------------

    def add(self, entry: JournalEntry) -> int:
        """Store a line and return its id; the oldest lines are removed where the limits demand it.

        Args:
            entry: The line; its id is not used.

        Raises:
            MemoryFileError: It cannot be stored; the earlier lines are unchanged.
        """
        with self._lock, self._errors("cannot write"):
            self._check_file()
            try:
                return self._add(entry)
            except sqlite3.DatabaseError as error:
                self._replace_damaged(error)
                return self._add(entry)

    def _add(self, entry: JournalEntry) -> int:
        caption, label = (_storable(text)[:MAX_CAPTION_CHARACTERS] for text in (entry.caption, entry.label))
        values = (
            *(_storable(entry.camera), _storable(entry.frame_id), entry.stamp_ns, entry.end_stamp_ns, entry.pair_id),
            *(caption, _storable(entry.reason), label, _pose_text(entry.pose)),
        )
        connection = self._connection
        lines = self._lines
        try:
            with _transaction(connection):
                row = int(connection.execute(_INSERT, values).lastrowid or 0)
                connection.execute("INSERT INTO thumbnail (id, jpeg) VALUES (?, ?)", (row, entry.thumbnail))
                text = indexed_text(f"{caption}\n{label}")
                connection.execute("INSERT INTO words (rowid, text) VALUES (?, ?)", (row, text))
                self._lines += 1
                self._prune(connection)
        except BaseException:
            self._lines = lines
            raise
        return row

    def _prune(self, connection: sqlite3.Connection) -> None:
        """Remove the first lines until both limits hold; the newest line stays."""
        self._remove_first(connection, self._lines - self._max_rows)
        while self._lines > 1 and _used_bytes(connection) > self._max_bytes:
            self._remove_first(connection, max(1, self._lines // _PRUNED_SHARE))

    def _remove_first(self, connection: sqlite3.Connection, count: int) -> None:
        if count <= 0:
            return
        (last,) = connection.execute("SELECT id FROM entry ORDER BY id LIMIT 1 OFFSET ?", (count - 1,)).fetchone()
        connection.execute("DELETE FROM words WHERE rowid IN (SELECT id FROM entry WHERE id <= ?)", (last,))
        connection.execute("DELETE FROM thumbnail WHERE id <= ?", (last,))
        connection.execute("DELETE FROM entry WHERE id <= ?", (last,))
        self._lines -= count

    def _shrink(self, connection: sqlite3.Connection) -> None:
        """Apply limits that have become smaller since the last run, and return the space."""
        if self._lines <= self._max_rows and _used_bytes(connection) <= self._max_bytes:
            return
        with _transaction(connection):
            self._prune(connection)
        connection.executescript("PRAGMA incremental_vacuum")  # ``execute`` would end after one page

    def clear(self) -> int:
        """Remove all lines, and the file that was set aside, from the disk; ids go on.

        Returns:
            Number of lines removed.

        Raises:
            MemoryFileError: A file cannot be removed, or no new one can be made.
        """
        with self._lock, self._errors("cannot clear"):
            removed, next_id = self._lines, 1
            with suppress(sqlite3.Error):
                (last,) = self._connection.execute("SELECT max(seq) FROM sqlite_sequence").fetchone()
                next_id = int(last or 0) + 1
            self._close()
            for name in (FILE, FILE + _ASIDE):
                for suffix in (_WAL, _SHM, ""):
                    (self._folder / (name + suffix)).unlink(missing_ok=True)
            self._warning = ""
            self._connection = self._open(next_id)
            return removed

    def _replace_damaged(self, error: sqlite3.DatabaseError) -> None:
        """Set a damaged file aside and begin a new one; raise all other errors."""
        if not _is_unusable(error):
            raise error
        self._close()
        self._set_aside(str(error))
        self._connection = self._open()

    # Reading --------------------------------------------------------------------------------------------------------

    def search(
        self,
        description: str,
        *,
        since: float | None = None,
        until: float | None = None,
        camera: str | None = None,
        limit: int = 10,
    ) -> tuple[JournalMatch, ...]:
        """Return the lines that have words of a description.

        Those with all of its phrases, such as "red box", come first, then those with all of its words, then others by
        the share of the words; equal ones by rank (BM25).

        Args:
            description: Any text; nothing in it is query syntax. Case, accents and English endings do not matter.
            since: Stamp of the oldest frames, in seconds; None: unbounded.
            until: Stamp of the newest frames, in seconds; None: unbounded.
            camera: Camera of the lines; None: all cameras.
            limit: Largest number of lines.

        Raises:
            MemoryFileError: The file cannot be read.
        """
        terms = query_terms(description)
        if not terms or limit < 1:
            return ()
        with self._reading() as connection:
            limits = {**_limits(since, until, camera), "limit": limit}

            def matching(query: str) -> dict[int, JournalEntry]:
                rows = connection.execute(_SEARCH, {**limits, "query": query})
                return {row[0]: _entry(row) for row in rows}

            phrases = query_phrases(description)
            found = matching(" AND ".join(phrases))
            if len(phrases) < len(terms) and len(found) < limit:  # the same words in another order
                found |= {row: entry for row, entry in matching(" AND ".join(terms)).items() if row not in found}
            shares = dict.fromkeys(found, 1.0)
            if len(found) < limit and len(terms) > 1:
                some = {row: entry for row, entry in matching(" OR ".join(terms)).items() if row not in found}
                shares |= _shares(connection, terms, tuple(some))
                found |= some
        matches = [JournalMatch(entry, shares[row]) for row, entry in found.items()]
        return tuple(sorted(matches, key=lambda match: -match.share)[:limit])

    def lines(
        self,
        *,
        since: float | None = None,
        until: float | None = None,
        camera: str | None = None,
        before_id: int = 0,
        limit: int = 500,
        thumbnails: bool = False,
    ) -> JournalPage:
        """Return the lines that were written last.

        Args:
            since: Stamp of the oldest frames, in seconds; None: unbounded.
            until: Stamp of the newest frames, in seconds; None: unbounded.
            camera: Camera of the lines; None: all cameras.
            before_id: Only lines with a smaller id; 0: all.
            limit: Largest number of lines.
            thumbnails: Whether the lines have their thumbnails.

        Raises:
            MemoryFileError: The file cannot be read.
        """
        limits = _limits(since, until, camera, before_id)
        with self._reading() as connection:
            rows = connection.execute(_LINES_WITH_THUMBNAILS if thumbnails else _LINES, {**limits, "limit": limit})
            entries = tuple(map(_entry, rows))
            (count,) = connection.execute(_COUNT, limits).fetchone()
        return JournalPage(entries, count - len(entries))

    def thumbnail(self, entry_id: int) -> bytes:
        """Return the JPEG image of a line; empty if there is no such line.

        Raises:
            MemoryFileError: The file cannot be read.
        """
        with self._reading() as connection:
            row = connection.execute("SELECT jpeg FROM thumbnail WHERE id = ?", (entry_id,)).fetchone()
        return bytes(row[0]) if row else b""

    def count(self, *, since: float | None = None, until: float | None = None, camera: str | None = None) -> int:
        """Return the number of lines within limits, which are as for ``lines``.

        Raises:
            MemoryFileError: The file cannot be read.
        """
        with self._reading() as connection:
            (count,) = connection.execute(_COUNT, _limits(since, until, camera)).fetchone()
        return int(count)

    def counts(self) -> JournalCounts:
        """Return the size of the journal.

        Raises:
            MemoryFileError: The file cannot be read.
        """
        with self._lock, self._errors("cannot read"):
            self._check_file()
            try:
                return JournalCounts(self._lines, _used_bytes(self._connection))
            except sqlite3.DatabaseError as error:
                self._replace_damaged(error)
                raise MemoryFileError(self._warning) from error

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """Open a connection for one read. In WAL mode, it does not wait for a write, even for one that hangs.

        Raises:
            MemoryFileError: The file cannot be read; a damaged one is set aside.
        """
        with self._errors("cannot read"):
            if not self._is_current():
                with self._no_write():
                    self._check_file()
            inode = self._inode
            with closing(self._connect("ro")) as connection:
                try:
                    connection.execute("BEGIN")  # all statements see the same lines
                    yield connection
                except sqlite3.DatabaseError as error:
                    if not _is_unusable(error):
                        raise
                    connection.close()
                    with self._no_write():
                        if self._inode == inode:
                            self._replace_damaged(error)
                        raise MemoryFileError(
                            self._warning or f"{self._path} was replaced while it was read: retry"
                        ) from error

    @contextmanager
    def _no_write(self) -> Iterator[None]:
        """Hold the lock of writes.

        Raises:
            MemoryFileError: A write takes too long.
        """
        if not self._lock.acquire(timeout=_BUSY_SEC):
            raise MemoryFileError(f"cannot read {self._path} while a write hangs: check the disk")
        try:
            yield
        finally:
            self._lock.release()

    @contextmanager
    def _errors(self, failure: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise MemoryFileError(
                f"{failure} {self._path}: {reason}: check that the folder exists, is writable for this user and has "
                "free disk space"
            ) from error


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # SQLite has ended the transaction already
            connection.execute("ROLLBACK")
        raise


def _is_unusable(error: Exception) -> bool:
    """Return whether an error means that the file is damaged or not a journal, and not that it cannot be accessed."""
    return isinstance(error, ValueError) or type(error) is sqlite3.DatabaseError


def _used_bytes(connection: sqlite3.Connection) -> int:
    names = ("page_count", "freelist_count", "page_size")
    pages, free, size = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names)
    return int((pages - free) * size)


def _limits(since: float | None, until: float | None, camera: str | None, before_id: int = 0) -> dict[str, Any]:
    """Return the parameters of ``_WITHIN``."""
    return {
        "since": None if since is None else _nanoseconds(since) - _ROUNDING_NS,
        "until": None if until is None else _nanoseconds(until) + _ROUNDING_NS,
        "camera": camera,
        "before": min(before_id or _MAX_ID, _MAX_ID),
    }


def _nanoseconds(seconds: float) -> int:
    return round(max(-9e9, min(9e9, seconds)) * NANOSECONDS_PER_SECOND)


def _shares(connection: sqlite3.Connection, terms: Sequence[str], rows: Sequence[int]) -> dict[int, float]:
    """Return the share of the terms that each of these lines has."""
    counts = dict.fromkeys(rows, 0)
    for term in terms:
        for (row,) in connection.execute(_MATCHES, (term, json.dumps(rows))):
            counts[row] += 1
    return {row: count / len(terms) for row, count in counts.items()}


def _storable(text: str) -> str:
    """Return a text without what SQLite and ROS messages cannot hold."""
    return text.replace("\0", " ").encode("utf-8", "replace").decode()


def _pose_text(pose: Pose | None) -> str | None:
    if pose is None or not all(map(math.isfinite, (*pose.position, *pose.orientation))):
        return None
    return json.dumps([pose.stamp_ns, _storable(pose.frame_id), pose.position, pose.orientation])


def _entry(row: Sequence[Any]) -> JournalEntry:
    """Return the line of a row of ``_COLUMNS`` and a thumbnail."""
    *values, pose, thumbnail = row
    return replace(JournalEntry(*values), pose=_pose(pose), thumbnail=bytes(thumbnail or b""))


def _pose(text: str | None) -> Pose | None:
    try:
        stamp_ns, frame_id, position, orientation = json.loads(text or "")
        x, y, z = map(float, position)
        qx, qy, qz, qw = map(float, orientation)
        return Pose(int(stamp_ns), str(frame_id), (x, y, z), (qx, qy, qz, qw))
    except (ValueError, TypeError):  # none, or damaged
        return None
