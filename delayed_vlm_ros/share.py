"""Where the package's configuration files are: a ROS workspace, a Python environment, or the source tree."""

from __future__ import annotations

import sys
from pathlib import Path

from delayed_vlm_ros.errors import ConfigurationError

_PACKAGE = "delayed_vlm_ros"


def config_file(name: str) -> Path:
    """Path of one of the files in ``config/``.

    Args:
        name: Such as ``scene_memory.yaml``.

    Raises:
        ConfigurationError: It is nowhere to be found.
    """
    folders = [*_workspace(), Path(sys.prefix) / "share" / _PACKAGE, Path(__file__).resolve().parents[1]]
    for folder in folders:
        file = folder / "config" / name
        if file.is_file():
            return file
    places = ", ".join(str(folder / "config") for folder in folders)
    raise ConfigurationError(f"there is no {name} in {places}: install the package again")


def _workspace() -> list[Path]:
    try:
        from ament_index_python.packages import get_package_share_directory  # noqa: PLC0415  only where ROS is

        return [Path(get_package_share_directory(_PACKAGE))]
    except (ImportError, LookupError, OSError):
        return []
