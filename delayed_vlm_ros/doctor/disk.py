"""Folders that the node writes: key frames and log."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from delayed_vlm_ros.doctor.finding import Finding, Level, error, ok, warn
from delayed_vlm_ros.memory import MemoryConfig
from delayed_vlm_ros.resources import log_folder

_MOUNTS = Path("/proc/mounts")
_PROCESSES = Path("/proc")
_NODE = "scene_memory"
_PIXEL_BYTES = 3
_MIN_LOG_BYTES = 100 * 10**6


def disk_findings(parameters: Mapping[str, Any] | None, environment: Mapping[str, str] = os.environ) -> list[Finding]:
    """Check the folder of key frames of a running node, and the folder of the ROS log.

    Args:
        parameters: Parameters of the node; None without one.
        environment: Environment variables.
    """
    return [_key_frames(parameters or {}), _log(log_folder(environment))]


def _key_frames(parameters: Mapping[str, Any]) -> Finding:
    folder = str(parameters.get("persistence.folder", ""))
    if not folder:
        return ok("key-frame files", "not saved: persistence.folder is empty, or the node does not run")
    needed = 2 * _file_bytes(parameters)  # a new file is complete before it replaces the old one
    found = _writable("key-frame files", Path(folder), needed, "create it for the user of the node")
    if found.level is Level.OK and _is_in_memory(Path(folder)):
        text = f"{folder} is on a file system in memory: key frames do not survive a restart of this machine"
        return warn("key-frame files", text, "choose a folder on a disk")
    return found


def _file_bytes(parameters: Mapping[str, Any]) -> int:
    star = int(parameters.get("memory.star.size", MemoryConfig.star_memory_size))
    pixels = int(parameters.get("memory.max_pixels", MemoryConfig.max_pixels))
    return star * pixels * _PIXEL_BYTES * len(parameters.get("cameras") or ("camera",))


def _log(folder: Path | None) -> Finding:
    if folder is None:
        return warn("log files", "the node writes none: HOME is not set", "set HOME, or ROS_LOG_DIR")
    existing = next((one for one in (folder, *folder.parents) if not _is_visible(one) or one.exists()), folder)
    found = _writable("log files", existing, _MIN_LOG_BYTES, "set ROS_LOG_DIR")
    return found if existing == folder or found.level else ok("log files", f"{folder}, made at the first start")


def _is_in_memory(folder: Path) -> bool:
    """Return whether the mount that holds a folder keeps its files in memory."""
    mounts = [line.split()[1:3] for line in _MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()]
    real = folder.resolve()
    holding = [(point, kind) for point, kind in mounts if real.is_relative_to(point)]
    return max(holding, key=lambda one: len(one[0]), default=("", ""))[1] in ("tmpfs", "ramfs")


def _writable(subject: str, folder: Path, needed: int, absent: str) -> Finding:
    return _absent(subject, folder, absent) or _forbidden(subject, folder) or _full(subject, folder, needed)


def _absent(subject: str, folder: Path, remedy: str) -> Finding | None:
    if not _is_visible(folder):
        return _other_user(subject, f"user {os.geteuid()} cannot see {folder}")
    if not folder.is_dir():
        return error(subject, f"the folder {folder} does not exist on this machine", remedy)
    return None


def _forbidden(subject: str, folder: Path) -> Finding | None:
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        return error(subject, f"{folder} is on a read-only file system", "mount it writable, or choose another folder")
    if os.access(folder, os.W_OK | os.X_OK):
        return None
    text = f"user {os.geteuid()} cannot write to {folder}"
    if os.geteuid() not in (_node_users() or {folder.stat().st_uid}):
        return _other_user(subject, text)
    return error(subject, text, "change its owner, or choose another folder")


def _full(subject: str, folder: Path, needed: int) -> Finding:
    state = os.statvfs(folder)
    free = state.f_bavail * state.f_frsize
    if state.f_files and not state.f_favail:
        return error(subject, f"{folder} has no free inodes: no file can be created", "remove files")
    text = f"{folder}, {free / 1e6:.0f} MB free"
    if free < needed:
        return error(subject, f"{text}, {needed / 1e6:.0f} MB needed", "free disk space, or choose another folder")
    return ok(subject, text)


def _other_user(subject: str, text: str) -> Finding:
    return warn(subject, text, "run doctor as the node's user (sudo -u)")


def _is_visible(folder: Path) -> bool:
    """Return whether this user may ask for a folder; a folder above it may be private."""
    try:
        folder.stat()
    except PermissionError:
        return False
    except OSError:
        return True
    return True


def _node_users() -> set[int]:
    """Return the users who run a ``scene_memory`` node on this machine."""
    users = set()
    for process in _PROCESSES.glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if any(Path(word).name == _NODE for word in words[:2]):  # Python, script
                users.add(process.stat().st_uid)
    return users
