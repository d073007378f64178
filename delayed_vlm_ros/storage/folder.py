"""The folder with the files of Star memories: each is there whole or not at all, and nothing else is touched.

Every operation goes through the open folder and a name without a slash, and follows no link: whatever lies in it,
nothing outside is read, written or renamed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from delayed_vlm_ros.errors import MemoryFileError
from delayed_vlm_ros.storage.file_format import (
    StoredMemory,
    byte_count,
    describe_memory,
    read_memory,
    write_memory,
)

SUFFIX = ".star"

_NEW = ".new"  # a file that is being written; what is left of one after a crash is worth nothing
_MOST_SET_ASIDE = 5  # of each camera: a file that is damaged at every start must not fill the disk
_MODE = 0o600  # images of somebody's rooms are nobody else's business


@dataclass(frozen=True)
class LoadedMemory:
    """What a camera's file held.

    Attributes:
        memory: The memory; None when there is no file, or none that can be used.
        notice: Why the file could not be used, and its new name; empty when there was none or it could.
    """

    memory: StoredMemory | None
    notice: str = ""


class MemoryFolder:
    """The files of one node's cameras; for itself alone, from construction until ``close``.

    ``save`` may be called from another thread than the rest, one call at a time.

    Args:
        path: An existing folder.
        describe_source: Makes something for JSON of a frame's ``source``.
        revive_source: Makes it again of that; raises ``ValueError`` where it cannot.

    Raises:
        MemoryFileError: It is no folder, cannot be opened, or belongs to another running node.
    """

    def __init__(self, path: str, describe_source: Callable[[Any], Any], revive_source: Callable[[Any], Any]) -> None:
        self._path = Path(path)
        self._describe_source = describe_source
        self._revive_source = revive_source
        self._written: dict[str, bytes] = {}  # header of each camera's file, as far as it is known
        self._bytes: dict[str, int] = {}  # of each camera's file, likewise
        with self._telling("looking"):
            self._folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._folder)
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise MemoryFileError(
                    f"the folder {path} is in use by another node: give each node a folder of its own"
                ) from error
            raise MemoryFileError(f"the folder {path} cannot be locked ({error.strerror}): give a local one") from error

    def close(self) -> None:
        """Leave the folder to others."""
        os.close(self._folder)

    def load(self, camera: str, refuse: Callable[[StoredMemory], str]) -> LoadedMemory:
        """Read a camera's file; one that cannot be used is renamed, so that the next one does not overwrite it.

        What the system does not let be read (its disk fails, this process is out of memory, it belongs to another) may
        be sound, and stays as it is.

        Args:
            camera: The camera's name, which is the file's.
            refuse: Looks at a sound memory; says why it cannot be used, for behind the file's name, or nothing.

        Raises:
            MemoryFileError: The file cannot be read; or it cannot be used, nor be set aside.
        """
        name = camera + SUFFIX
        try:
            memory = self._read(name)
            reason = refuse(memory)
        except FileNotFoundError:
            return LoadedMemory(None)
        except MemoryFileError as error:
            reason = str(error)
        except (OSError, MemoryError) as error:
            raise MemoryFileError(
                f"{self._path / name} cannot be read ({error or 'out of memory'}): it is left alone, and nothing is "
                "written; let this user read it, or move it away"
            ) from error
        if not reason:
            header = self._written[camera] = describe_memory(memory, self._describe_source)
            self._bytes[camera] = byte_count(memory, header)
            return LoadedMemory(memory)
        aside = self._set_aside(name)
        return LoadedMemory(None, f"{self._path / name} {reason}: it is set aside as {aside}, and the memory is empty")

    def _read(self, name: str) -> StoredMemory:
        if not stat.S_ISREG(os.stat(name, dir_fd=self._folder, follow_symlinks=False).st_mode):
            raise MemoryFileError("is no file")
        # Not blocking: a named pipe would keep whoever opens it waiting for ever.
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self._folder)
        with open(descriptor, "rb") as file:  # noqa: PTH123  a descriptor
            return read_memory(file, os.fstat(descriptor).st_size, self._revive_source)

    def _set_aside(self, name: str) -> str:
        with self._telling(f"setting {name} aside, which cannot be used,"):
            taken = set(os.listdir(self._folder))  # noqa: PTH208  a descriptor
            names = [f"{name}.aside-{number}" for number in range(1, _MOST_SET_ASIDE + 1)]
            aside = next((free for free in names if free not in taken), names[-1])
            os.rename(name, aside, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        return aside

    def save(self, memory: StoredMemory, *, interrupted: Callable[[], bool] = lambda: False) -> int:
        """Write a camera's memory, unless the file holds it already.

        When it returns, the file is on the disk; until then the one before it is.

        Args:
            memory: The memory.
            interrupted: Looked at before each image.

        Returns:
            Bytes of the file; 0 when nothing has changed.

        Raises:
            MemoryFileError: It could not be written, or was interrupted. The file before it is as it was.
        """
        header = describe_memory(memory, self._describe_source)
        if self._written.get(memory.camera) == header:
            return 0
        name = memory.camera + SUFFIX
        size = byte_count(memory, header)
        with self._telling(f"writing {name} ({size} bytes)"):
            self._remove(name + _NEW)
            self._check_room(size)  # spares a full disk the attempt
            try:
                self._write_new(name + _NEW, memory, header, interrupted)
                os.replace(name + _NEW, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
                os.fsync(self._folder)
            except BaseException:
                self._remove(name + _NEW)  # on a full disk, its bytes are somebody else's hope
                raise
        self._written[memory.camera] = header
        self._bytes[memory.camera] = size
        return size

    def _write_new(self, name: str, memory: StoredMemory, header: bytes, interrupted: Callable[[], bool]) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(name, flags, _MODE, dir_fd=self._folder)
        with open(descriptor, "wb") as file:  # noqa: PTH123  a descriptor
            write_memory(file, memory, header, interrupted=interrupted)
            file.flush()
            os.fsync(descriptor)

    def check_room(self) -> None:
        """Look whether the largest of the files, written once more beside the old one, would fit on the disk now.

        Raises:
            MemoryFileError: It would not.
        """
        size = max(self._bytes.values(), default=0)
        with self._telling(f"finding room for {size} bytes"):
            self._check_room(size)

    def _check_room(self, size: int) -> None:
        disk = os.fstatvfs(self._folder)
        if disk.f_bavail * disk.f_frsize < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._folder)

    @contextmanager
    def _telling(self, doing: str) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise MemoryFileError(
                f"{doing} in the folder {self._path} failed ({reason}): check that it exists, that this user may write "
                "there, and that its disk has room"
            ) from error
