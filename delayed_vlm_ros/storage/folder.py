"""The folder of key-frame files: each file is complete or absent, and nothing else is touched.

Every operation uses the open folder and a name without a slash, and follows no links. No content of the folder can make
it read, write or rename anything outside.
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
    check_checksum,
    check_header,
    describe_memory,
    read_memory,
    write_memory,
)

SUFFIX = ".star"

_NEW = ".new"  # a file being written; one left by a crash is incomplete
_MAX_SET_ASIDE = 5  # per camera: a file that is damaged at every start must not fill the disk
_MODE = 0o600  # images of private rooms: for the owner only


@dataclass(frozen=True)
class LoadedMemory:
    """The result of loading a camera's file.

    Attributes:
        memory: The memory; None if there is no file or no usable one.
        warning: Why the file could not be used and its new name; empty if it could be used or does not exist.
    """

    memory: StoredMemory | None
    warning: str = ""


class MemoryFolder:
    """The key-frame files of one node's cameras, locked for this object until ``close``.

    ``save`` may run in another thread than the other methods, one call at a time.

    Args:
        path: Existing folder.
        describe_source: Converts the ``source`` of a frame to a JSON value.
        revive_source: Converts the JSON value back; raises ``ValueError`` if it cannot.

    Raises:
        MemoryFileError: The path is not a folder, cannot be opened, belongs to another user, or is in use by another
            node.
    """

    def __init__(self, path: str, describe_source: Callable[[Any], Any], revive_source: Callable[[Any], Any]) -> None:
        self._path = Path(path)
        self._describe_source = describe_source
        self._revive_source = revive_source
        self._headers: dict[str, bytes] = {}  # header of each camera's file, where known
        self._sizes: dict[str, int] = {}  # bytes of each camera's file, where known
        with self._errors_as_memory_file_error("cannot open the folder"):
            self._real_path = os.path.realpath(path)  # the configured path may be a link
            self._folder = self._open_and_lock()

    def _open_and_lock(self) -> int:
        folder = os.open(self._real_path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            self._check_owner(folder)
            self._lock(folder)
        except BaseException:
            os.close(folder)
            raise
        return folder

    def _check_owner(self, folder: int) -> None:
        """Check that no other user can replace the files, except that root may use every folder."""
        owner, user = os.fstat(folder).st_uid, os.geteuid()
        if user not in (owner, 0):
            raise MemoryFileError(
                f"folder {self._path} belongs to another user (uid {owner}, the node's is {user}): make this user its "
                "owner, or use another folder"
            )

    def _lock(self, folder: int) -> None:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                reason = f"folder {self._path} is in use by another node: use one folder per node"
            else:
                reason = f"cannot lock folder {self._path}: {error.strerror}; use a local folder"
            raise MemoryFileError(reason) from error

    def close(self) -> None:
        """Release the folder."""
        os.close(self._folder)

    def load(self, camera: str, refuse: Callable[[StoredMemory], str]) -> LoadedMemory:
        """Read a camera's file. Set an unusable file aside, so that the next one does not overwrite it.

        A file that the system cannot read (disk failure, out of memory, wrong owner) may be intact. It stays in place.

        Args:
            camera: Name of the camera, which is also the name of the file.
            refuse: Checks an intact memory; returns why it cannot be used, or an empty string.

        Raises:
            MemoryFileError: The file cannot be read, or is unusable and cannot be set aside.
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
                f"cannot read {self._path / name}: {error or 'out of memory'}; the file is unchanged and nothing is "
                "written: make it readable for this user, or move it away"
            ) from error
        if not reason:
            header = self._headers[camera] = describe_memory(memory, self._describe_source)
            self._sizes[camera] = byte_count(memory, header)
            return LoadedMemory(memory)
        aside = self._set_aside(name)
        return LoadedMemory(None, f"{self._path / name}: {reason}; set aside as {aside}, the memory starts empty")

    def _read(self, name: str) -> StoredMemory:
        if not stat.S_ISREG(os.stat(name, dir_fd=self._folder, follow_symlinks=False).st_mode):
            raise MemoryFileError("not a regular file")
        # O_NONBLOCK: opening a named pipe would wait for a writer.
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self._folder)
        with open(descriptor, "rb") as file:  # noqa: PTH123  a descriptor
            return read_memory(file, os.fstat(descriptor).st_size, self._revive_source)

    def _set_aside(self, name: str) -> str:
        with self._errors_as_memory_file_error(f"cannot set aside the unusable file {name}"):
            taken = set(os.listdir(self._folder))  # noqa: PTH208  a descriptor
            names = [f"{name}.aside-{number}" for number in range(1, _MAX_SET_ASIDE + 1)]
            aside = next((free for free in names if free not in taken), names[-1])
            os.rename(name, aside, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        return aside

    def save(self, memory: StoredMemory, *, interrupted: Callable[[], bool] = lambda: False) -> int:
        """Write a camera's memory, unless the file already holds it.

        The new file is on the disk when this returns; until then the previous one is. It replaces the previous one
        after it was read back, or unread if the time ends after it was flushed to disk.

        Args:
            memory: Memory to write.
            interrupted: Called before each image; returns whether to stop.

        Returns:
            Bytes written; 0 if the file already holds this memory.

        Raises:
            MemoryFileError: The folder is no longer usable, or writing or reading back failed or was interrupted; the
                previous file is unchanged.
        """
        self._check_folder()
        name = memory.camera + SUFFIX
        header = self._changed_header(name, memory)
        if header is None:
            return 0
        size = byte_count(memory, header)
        with self._errors_as_memory_file_error(f"cannot write {name} ({size} bytes)"):
            self._remove(name + _NEW)
            self._check_free_space(size)  # before the attempt, which would fill the disk
            try:
                self._write_new(name + _NEW, memory, header, interrupted)
                self._read_back(name, size, interrupted)
                os.replace(name + _NEW, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
                os.fsync(self._folder)
            except BaseException:
                self._remove(name + _NEW)  # frees its space on a full disk
                raise
        self._headers[memory.camera] = header
        self._sizes[memory.camera] = size
        return size

    def _write_new(self, name: str, memory: StoredMemory, header: bytes, interrupted: Callable[[], bool]) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(name, flags, _MODE, dir_fd=self._folder)
        with open(descriptor, "wb") as file:  # noqa: PTH123  a descriptor
            write_memory(file, memory, header, interrupted=interrupted)
            file.flush()
            os.fsync(descriptor)

    def _changed_header(self, name: str, memory: StoredMemory) -> bytes | None:
        """Return the header of the next file; None if the file has it already.

        Raises:
            MemoryFileError: The next start would refuse a file with this header.
        """
        try:
            header = describe_memory(memory, self._describe_source)
            if self._headers.get(memory.camera) == header:
                return None
            check_header(header, memory, self._describe_source, self._revive_source)
        except (MemoryFileError, ValueError) as error:
            raise MemoryFileError(
                f"{name} was not replaced, since it could not be read at the next start: {error}: reset the memory "
                "and report this defect"
            ) from error
        return header

    def _read_back(self, name: str, size: int, interrupted: Callable[[], bool]) -> None:
        descriptor = os.open(name + _NEW, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._folder)
        with open(descriptor, "rb") as file:  # noqa: PTH123  a descriptor
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)  # read the disk, not the cache
            try:
                check_checksum(file, size, interrupted=interrupted)
            except MemoryFileError as error:
                raise MemoryFileError(f"{name} was not replaced, its new content cannot be used: {error}") from error

    def check(self) -> bool:
        """Check whether the next file could be written, without writing one.

        A folder that was removed and made again is opened and locked again, also where the path is a link to it.

        Returns:
            Whether no file has disappeared since the last call; ``save`` writes a missing one.

        Raises:
            MemoryFileError: The path leads to no folder or another one, the folder is not writable, the disk has no
                space for a second copy of the largest file, which writing needs, or the system cannot check it.
        """
        self._check_folder()
        size = max(self._sizes.values(), default=0)
        with self._errors_as_memory_file_error(f"no space for the next file ({size} bytes)"):
            self._check_free_space(size)
        with self._errors_as_memory_file_error("cannot check the files"):
            missing = [camera for camera in self._headers if not self._exists(camera + SUFFIX)]
        for camera in missing:
            del self._headers[camera]
        return not missing

    def _exists(self, name: str) -> bool:
        try:
            os.stat(name, dir_fd=self._folder, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def _check_folder(self) -> None:
        """Check that the path leads to the open folder, not to nothing or to the mount point of a lost disk."""
        with self._errors_as_memory_file_error("cannot find the folder, it was removed or renamed"):
            current, opened = self._path.stat(), os.fstat(self._folder)
        with self._errors_as_memory_file_error("cannot check the folder"):
            if not os.path.samestat(current, opened):
                self._open_again(opened)
            # As for a new file, also for root: a read-only disk denies access.
            if not os.access(".", os.W_OK | os.X_OK, dir_fd=self._folder, effective_ids=True):
                reason = "is on a read-only disk" if self._is_read_only() else "is not writable for this user"
                raise MemoryFileError(f"folder {self._path} {reason}: make it writable")

    def _open_again(self, before: os.stat_result) -> None:
        if os.path.realpath(self._path) != self._real_path:
            raise MemoryFileError(
                f"folder {self._path} was replaced by a link, or its link leads elsewhere: put the previous folder "
                "back, or configure again"
            )
        folder = self._open_and_lock()
        try:
            self._check_replacement(folder, before)
        except BaseException:
            os.close(folder)
            raise
        previous, self._folder = self._folder, folder
        os.close(previous)

    def _check_replacement(self, folder: int, before: os.stat_result) -> None:
        if _mount_of(folder) != _mount_of(self._folder):
            raise MemoryFileError(
                f"folder {self._path} is on another disk than before: mount its disk, then configure again"
            )
        has_files = any(name.endswith(SUFFIX) for name in os.listdir(folder))
        if has_files or os.fstat(folder).st_uid != before.st_uid:
            raise MemoryFileError(
                f"folder {self._path} was replaced by one that has key-frame files or another owner: put the previous "
                "folder back, or configure again"
            )

    def _is_read_only(self) -> bool:
        return bool(os.fstatvfs(self._folder).f_flag & os.ST_RDONLY)

    def _check_free_space(self, size: int) -> None:
        disk = os.fstatvfs(self._folder)
        if disk.f_bavail * disk.f_frsize < size or (disk.f_files and not disk.f_favail):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._folder)

    @contextmanager
    def _errors_as_memory_file_error(self, failure: str) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise MemoryFileError(
                f"{failure}: {reason}; check that folder {self._path} exists, is writable for this user and has free "
                "disk space"
            ) from error


def _mount_of(descriptor: int) -> str:
    """Return the number of the mount through which a folder was opened; also bind mounts of one disk differ."""
    details = Path(f"/proc/self/fdinfo/{descriptor}").read_text(encoding="ascii")
    return next(iter(details.partition("mnt_id:")[2].split()), "")
