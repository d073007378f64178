"""Locate the package's data files in a ROS workspace, a Python environment or the source tree, and the ROS log."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from delayed_vlm_ros.errors import ConfigurationError

_PACKAGE = "delayed_vlm_ros"
# Resolved, because a symlinked install links single files, and a web server follows no link out of its folder.
_MODULES = Path(__file__).resolve().parent


def data_folder(*names: str) -> Path:
    """Return the resolved path of a data folder among the modules.

    Args:
        names: Path components below the package, such as ``"web", "assets"``.
    """
    return _MODULES.joinpath(*names)


def log_folder(environment: Mapping[str, str] = os.environ) -> Path | None:
    """Return the folder of the ROS log, as rcl chooses it; None if the variables name none.

    Args:
        environment: Environment variables.

    Raises:
        RuntimeError: The folder begins with ``~``, and this user has no home folder.
    """
    if environment.get("ROS_LOG_DIR"):
        return Path(environment["ROS_LOG_DIR"]).expanduser()
    if environment.get("ROS_HOME"):
        return Path(environment["ROS_HOME"]).expanduser() / "log"
    return Path(environment["HOME"]) / ".ros" / "log" if environment.get("HOME") else None


def config_file(name: str) -> Path:
    """Return the path of a file in ``config/``.

    Args:
        name: File name, such as ``scene_memory.yaml``.

    Raises:
        ConfigurationError: The file is not installed.
    """
    folders = [folder / "config" for folder in (*_workspace(), *_environment(), _MODULES.parent)]
    for folder in folders:
        file = folder / name
        if file.is_file():
            return file
    searched = ", ".join(map(str, folders))
    raise ConfigurationError(f"cannot find configuration file {name!r} in {searched}: install the package again")


def _workspace() -> list[Path]:
    try:
        from ament_index_python.packages import get_package_share_directory  # noqa: PLC0415  part of ROS

        return [Path(get_package_share_directory(_PACKAGE))]
    except (ImportError, LookupError, OSError):
        return []


def _environment() -> list[Path]:
    """Return the data folders of pip: for this environment, and for this user."""
    schemes = (sysconfig.get_default_scheme(), sysconfig.get_preferred_scheme("user"))
    return [Path(sysconfig.get_path("data", scheme)) / "share" / _PACKAGE for scheme in schemes]
