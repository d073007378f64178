"""Errors for Python packages that are missing or broken: which one, in which Python, and what installs it."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec

from delayed_vlm_ros.errors import DependencyError

_CORE, _ROS = "", "ros"
_OURS = __name__.partition(".")[0]

# By the name that is imported: the extra of setup.py that installs it; _CORE: the package itself; _ROS: ROS 2.
_SOURCES = {
    **dict.fromkeys(("cv2", "numpy", "PIL", "rich", "typer", "yaml"), _CORE),
    **dict.fromkeys(
        ("accelerate", "huggingface_hub", "safetensors", "tokenizers", "torch", "torchvision", "transformers"), "vlm"
    ),
    **dict.fromkeys(("jinja2", "matplotlib", "mcap", "rosbags", "sacrebleu"), "evaluation"),
    **dict.fromkeys(("fastapi", "nicegui", "uvicorn"), "web"),
    "ray": "ray",
    "scenedetect": "scenes",
    **dict.fromkeys(
        (
            *("action_msgs", "builtin_interfaces", "diagnostic_msgs", "geometry_msgs", "lifecycle_msgs"),
            *("rcl_interfaces", "rclpy", "rosgraph_msgs", "sensor_msgs", "std_msgs", "std_srvs"),
        ),
        _ROS,
    ),
}
_INTERFACES = tuple(f"{_OURS}.{kind}" for kind in ("msg", "srv", "action"))


def is_installed(package: str) -> bool:
    """Whether Python finds a top-level package; does not import it."""
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):  # hidden, or half imported
        return False


def install_command(extra: str) -> str:
    """Return the command that installs this package with one of its extras; empty: without any."""
    return f"pip install '.[{extra}]'" if extra else "pip install ."


def missing(package: str) -> str:
    """Return a sentence on a package that is not installed: in which Python, and the remedy."""
    return f"{package} is not installed in this Python ({sys.executable}): {_remedy(package)}"


def dependency_error(error: Exception) -> DependencyError | None:
    """Explain an error of an import.

    Args:
        error: What the import raised, with its traceback.

    Returns:
        The error that names the package and the remedy. It says "not installed" only of a package that Python did not
        find; of an installed package that fails to import, it repeats the cause. None: the error has another cause.
    """
    name = (error.name or "") if isinstance(error, ImportError) else ""
    if isinstance(error, ModuleNotFoundError) and (name in _SOURCES or name in _INTERFACES):
        return DependencyError(missing(name))
    package = name.partition(".")[0]
    if package not in _SOURCES:
        package = _failing_package(error)
    if not package:
        return None
    return DependencyError(
        f"{package} is installed in this Python ({sys.executable}) but cannot be imported "
        f"({type(error).__name__}: {error}): repair that installation, or {_remedy(package)}"
    )


@contextmanager
def explained_imports() -> Iterator[None]:
    """Raise the errors of the imports within as ``DependencyError``.

    Raises:
        DependencyError: A package is missing or broken.
    """
    try:
        yield
    except (ImportError, OSError) as error:  # OSError: a shared library of the package is missing
        explained = dependency_error(error)
        if explained is None:
            raise
        raise explained from error


def run_program(module: str) -> int:
    """Import a module and run its ``main()``; without a package that it needs, print a sentence.

    Args:
        module: Its full name.

    Returns:
        The process's exit code: that of ``main()``, or 1 when a package is missing or broken.
    """
    try:
        return import_module(module).main() or 0
    except ImportError as error:
        explained = dependency_error(error)
        if explained is None:
            raise
        sys.stderr.write(f"error: {explained}\n")
        return 1


def _remedy(package: str) -> str:
    source = _SOURCES.get(package, _ROS)  # the interfaces of this package come with ROS, too
    if source == _ROS:
        return "source your ROS workspace, or run 'make setup' in the repository"
    command = install_command(source)
    return f"activate the environment that has it, or install it in the repository: {command}, or 'make setup'"


def _failing_package(error: Exception) -> str:
    """Return the known package in whose own code an import failed; empty: none.

    Frames are read from the innermost one outward, up to this package: what called this package is not at fault.
    """
    for frame, _line in reversed(list(traceback.walk_tb(error.__traceback__))):
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package in _SOURCES:
            return package
        if package == _OURS:
            return ""
    return ""
