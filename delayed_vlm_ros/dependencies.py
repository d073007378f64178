"""Error messages for missing or broken Python packages: the package, the Python in use, and how to install it."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec

from delayed_vlm_ros.errors import DependencyError

# OpenCV reads it once, when it is imported. Each image is checked as well; this limits what a check overlooks.
_DECODER_LIMIT = ("OPENCV_IO_MAX_IMAGE_PIXELS", "100000000")
_INTERRUPTED = 130  # exit code of a process that was interrupted, as shells report it
_CORE, _ROS = "", "ros"
_OUR_PACKAGE = __name__.partition(".")[0]

# ROS packages without wheels: import name -> suffix of the Debian package.
_ROS_DEBIAN = {"nav_msgs": "nav-msgs", "tf2_ros": "tf2-ros-py"}

# Import name -> source: the extra of setup.py that installs it, _CORE for the package itself, or _ROS for ROS 2.
_SOURCES = {
    **dict.fromkeys(("cv2", "numpy", "packaging", "PIL", "rich", "simplejpeg", "typer", "yaml"), _CORE),
    **dict.fromkeys(
        (
            *("accelerate", "huggingface_hub", "qwen_vl_utils", "safetensors", "tokenizers"),
            *("torch", "torchvision", "transformers"),
        ),
        "vlm",
    ),
    **dict.fromkeys(
        ("jinja2", "markupsafe", "matplotlib", "mcap", "rosbags", "sacrebleu", "zstandard"),
        "evaluation",
    ),
    **dict.fromkeys(("fastapi", "nicegui", "uvicorn"), "web"),
    **dict.fromkeys(("httpx2", "openai"), "remote"),
    **dict.fromkeys(("anyio", "mcp", "pydantic", "starlette"), "mcp"),
    "dateparser": "time",
    "ray": "ray",
    "scenedetect": "scenes",
    **dict.fromkeys(
        (
            *("action_msgs", "builtin_interfaces", "diagnostic_msgs", "geometry_msgs", "lifecycle_msgs"),
            *("rcl_interfaces", "rclpy", "rosgraph_msgs", "sensor_msgs", "std_msgs", "std_srvs"),
            *_ROS_DEBIAN,
        ),
        _ROS,
    ),
}
_INTERFACES = tuple(f"{_OUR_PACKAGE}.{kind}" for kind in ("msg", "srv", "action"))


def is_installed(package: str) -> bool:
    """Return whether Python finds a top-level package, without importing it."""
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):  # hidden, or partially imported
        return False


def install_command(extra: str) -> str:
    """Return the command that installs this package with an extra; without one if empty."""
    return f"pip install '.[{extra}]'" if extra else "pip install ."


def missing(package: str) -> str:
    """Return the message for a package that is not installed, with the Python in use and the remedy."""
    return f"{package} is not installed in this Python ({sys.executable}): {_remedy(package)}"


def dependency_error(error: Exception) -> DependencyError | None:
    """Explain an import error.

    Args:
        error: Exception of the import, with its traceback.

    Returns:
        An error that names the package and the remedy, or None for an error with another cause. Its message says "not
        installed" only for a package that Python does not find. For an installed package that fails to import, it
        repeats the cause.
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
    """Convert import errors in the block to ``DependencyError``.

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
    """Import a module and run its ``main()``; print one line if a required package is missing.

    Ctrl-C ends the program without a traceback, also during the seconds of the imports. OpenCV decodes no image of more
    than 100 megapixels in the process, unless the environment sets another limit.

    Args:
        module: Full name of the module.

    Returns:
        The exit code of ``main()``, 1 if a package is missing or broken, or 130 after Ctrl-C.
    """
    os.environ.setdefault(*_DECODER_LIMIT)
    try:
        with _exit_on_interrupt():
            program = import_module(module).main
        return program() or 0
    except KeyboardInterrupt:
        return _INTERRUPTED
    except ImportError as error:
        explained = dependency_error(error)
        if explained is None:
            raise
        sys.stderr.write(f"error: {explained}\n")
        return 1


@contextmanager
def _exit_on_interrupt() -> Iterator[None]:
    """End the process at Ctrl-C: some packages turn a ``KeyboardInterrupt`` in their imports into other errors."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # ignored in the background of a shell
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _remedy(package: str) -> str:
    source = _SOURCES.get(package, _ROS)  # the interfaces of this package are part of ROS, too
    if package in _ROS_DEBIAN:
        return f"source your ROS workspace, or run 'sudo apt install ros-$ROS_DISTRO-{_ROS_DEBIAN[package]}'"
    if source == _ROS:
        return "source your ROS workspace, or run 'make setup' in the repository"
    command = install_command(source)
    return f"activate the environment that has it, or install it in the repository: {command}, or 'make setup'"


def _failing_package(error: Exception) -> str:
    """Return the known package whose own code failed during import; empty if there is none.

    Frames are searched from the innermost one outward, up to this package, whose callers are not at fault.
    """
    for frame, _line in reversed(list(traceback.walk_tb(error.__traceback__))):
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package in _SOURCES:
            return package
        if package == _OUR_PACKAGE:
            return ""
    return ""
