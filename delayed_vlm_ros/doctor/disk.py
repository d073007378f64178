"""Folders that the node writes: key frames and log."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from delayed_vlm_ros.doctor.finding import Finding, Level, error, ok, warn
from delayed_vlm_ros.memory import MemoryConfig

_MOUNTS = Path("/proc/mounts")
_PIXEL_BYTES = 3
_MIN_LOG_BYTES = 100 * 10**6


def disk_findings(parameters: Mapping[str, Any] | None, environment: Mapping[str, str] = os.environ) -> list[Finding]:
    """Check the folder of key frames of a running node, and the folder of the ROS log.

    Args:
        parameters: Parameters of the node; None without one.
        environment: Environment variables.
    """
    return [_key_frames(parameters or {}), _log(log_folder(environment))]


def log_folder(environment: Mapping[str, str] = os.environ) -> Path | None:
    """Return the folder of the ROS log, as rcl chooses it; None if the variables name none."""
    if environment.get("ROS_LOG_DIR"):
        return Path(environment["ROS_LOG_DIR"]).expanduser()
    if environment.get("ROS_HOME"):
        return Path(environment["ROS_HOME"]).expanduser() / "log"
    return Path(environment["HOME"]) / ".ros" / "log" if environment.get("HOME") else None


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
    existing = next((one for one in (folder, *folder.parents) if one.exists()), folder)
    found = _writable("log files", existing, _MIN_LOG_BYTES, "set ROS_LOG_DIR")
    return found if existing == folder or found.level else ok("log files", f"{folder}, made at the first start")


def _is_in_memory(folder: Path) -> bool:
    """Return whether the mount that holds a folder keeps its files in memory."""
    mounts = [line.split()[1:3] for line in _MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()]
    real = folder.resolve()
    holding = [(point, kind) for point, kind in mounts if real.is_relative_to(point)]
    return max(holding, key=lambda one: len(one[0]), default=("", ""))[1] in ("tmpfs", "ramfs")


def _writable(subject: str, folder: Path, needed: int, absent: str) -> Finding:
    if not folder.is_dir():
        return error(subject, f"the folder {folder} does not exist on this machine", absent)
    state = os.statvfs(folder)
    free = state.f_bavail * state.f_frsize
    if state.f_flag & os.ST_RDONLY:
        return error(subject, f"{folder} is on a read-only file system", "mount it writable, or choose another folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        return error(
            subject, f"user {os.geteuid()} cannot write to {folder}", "change its owner, or choose another folder"
        )
    if state.f_files and not state.f_favail:
        return error(subject, f"{folder} has no free inodes: no file can be created", "remove files")
    text = f"{folder}, {free / 1e6:.0f} MB free"
    if free < needed:
        return error(subject, f"{text}, {needed / 1e6:.0f} MB needed", "free disk space, or choose another folder")
    return ok(subject, text)
