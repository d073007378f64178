"""Where an export is written: a new folder, or a ZIP file as a stream."""

from __future__ import annotations

import os
import shutil
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Protocol

from delayed_vlm_ros.errors import ExportError

_FOLDER_MODE = 0o700  # images of private rooms: for the owner only
_FILE_MODE = 0o600
_COMPRESSED = (".json", ".html")  # images are compressed already


class Target(Protocol):
    """Receives the files of an export."""

    def add(self, name: str, data: bytes) -> None:
        """Write a file.

        Args:
            name: Path of the file, with slashes.
            data: Its content.

        Raises:
            ExportError: It cannot be written.
        """


class FolderTarget:
    """A new folder, which appears when the export is complete. A failed export leaves nothing.

    Args:
        path: The folder; it must not exist, or be empty.

    Raises:
        ExportError: The folder cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        if path.is_symlink() or (path.exists() and (not path.is_dir() or any(path.iterdir()))):
            raise ExportError(f"cannot export to '{path}': it exists: choose a new folder")
        self._partial = path.absolute().with_name(f".{path.name}.{os.getpid()}.partial")

    def __enter__(self) -> FolderTarget:
        try:
            self._partial.mkdir(_FOLDER_MODE)
        except OSError as error:
            raise self._error(error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._partial.rename(self._path.absolute())
        except OSError as failure:
            raise self._error(failure) from failure
        finally:
            shutil.rmtree(self._partial, ignore_errors=True)

    def add(self, name: str, data: bytes) -> None:
        """Write a file into the folder."""
        with self.open(name) as opened:
            opened.write(data)

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """Open a new file in the folder for writing.

        Raises:
            ExportError: It cannot be written; also for an ``OSError`` in the block.
        """
        file = self._partial / name
        try:
            file.parent.mkdir(_FOLDER_MODE, exist_ok=True)
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE)
            with open(descriptor, "wb") as opened:  # noqa: PTH123  a descriptor
                yield opened
        except OSError as error:
            raise self._error(error) from error

    def _error(self, error: OSError) -> ExportError:
        return ExportError(
            f"cannot export to '{self._path}' ({error.strerror}): nothing was written: choose a new folder on a disk "
            "that is writable and has space"
        )


class ZipTarget:
    """A ZIP file with one folder in it.

    Args:
        stream: Where the file goes; need not be seekable.
        folder: Name of the folder.
    """

    def __init__(self, stream: IO[bytes], folder: str) -> None:
        self._zip = zipfile.ZipFile(stream, "w", allowZip64=True)
        self._folder = folder
        self._time = time.localtime()[:6]

    def add(self, name: str, data: bytes) -> None:
        """Write a file into the ZIP file."""
        entry = zipfile.ZipInfo(f"{self._folder}/{name}", self._time)
        entry.external_attr = _FILE_MODE << 16
        entry.compress_type = zipfile.ZIP_DEFLATED if name.endswith(_COMPRESSED) else zipfile.ZIP_STORED
        self._zip.writestr(entry, data)

    def close(self) -> None:
        """Write the end of the file; without it, the file is damaged."""
        self._zip.close()
