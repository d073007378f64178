"""The Python in use and its packages."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, distributions, requires, version

from packaging.requirements import Requirement

from delayed_vlm_ros import __version__
from delayed_vlm_ros.dependencies import install_command, is_installed
from delayed_vlm_ros.doctor.finding import Finding, error, ok, warn
from delayed_vlm_ros.doctor.running import Answer

_PACKAGE = "delayed_vlm_ros"
_MIN_PYTHON = (3, 10)
_NODE_EXTRAS = {"": "the commands and the memory", "vlm": "the model", "remote": "a model on a server"}
_OPTIONAL_EXTRAS = {
    "remote": _NODE_EXTRAS["remote"],
    "evaluation": "delayed-vlm replay",
    "ray": "delayed-vlm replay --ray",
    "web": "the web page",
    "mcp": "delayed-vlm mcp",
    "scenes": "questions at scene changes",
}
_BUSY = 1.5
_UNKNOWN = "(version unknown)"  # of packages from apt, for example
_MODULES = {  # import names that differ from the package's name
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "rosbags-image": "rosbags.image",
    "scenedetect-headless": "scenedetect",
}
_REINSTALL = "install numpy, opencv-python-headless and cv_bridge for this Python again"
_OPENCV = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")


def python_findings() -> list[Finding]:
    """Check version and architecture of Python; name the interpreter and its environment."""
    here = f"Python {platform.python_version()} on {platform.machine()}, {sys.executable}, {_environment()}"
    if sys.version_info < _MIN_PYTHON:
        return [error("python", here, "use Python 3.10 or newer")]
    if sys.maxsize <= 2**32:
        return [error("python", f"{here}, 32 bits", "install a 64-bit Python: torch has no other")]
    return [ok("python", f"{here}; delayed_vlm_ros {__version__}")]


def load_findings() -> list[Finding]:
    """Report whether other programs occupy the processors."""
    text = f"{load_per_processor():.1f} runnable programs for each of {os.cpu_count()} processors"
    if not is_busy():
        return [ok("load", text)]
    return [warn("load", f"{text}: images may be dropped, and questions are slow", "stop what is not needed (top)")]


def is_busy() -> bool:
    """Return whether other programs occupy the processors."""
    return load_per_processor() > _BUSY


def load_per_processor() -> float:
    """Return the runnable programs of the last minute, divided by the number of processors."""
    return os.getloadavg()[0] / (os.cpu_count() or 1)


def package_findings(model_extras: Sequence[str] = ("vlm",)) -> list[Finding]:
    """Compare the installed packages with the requirements of this package and its extras.

    Args:
        model_extras: Extras that the node's model needs: ``vlm``, ``remote`` for one on a server, or both.
    """
    declared = _requirements()
    if not declared:
        return [
            warn(
                "packages",
                "the requirements are unknown, because this package is not installed with pip",
                install_command("vlm"),
            )
        ]
    needed = [_node_extra(extra, _NODE_EXTRAS[extra], declared) for extra in ("", *model_extras)]
    return [*needed, *_optional_extras(declared, model_extras), *_opencv_findings(), *_torchvision_findings()]


def converter_findings(answer: Answer) -> list[Finding]:
    """Report whether images can be converted.

    Args:
        answer: Result of ``probe_converter`` in a child process.
    """
    if answer.error:
        return [error("image conversion", answer.error, _REINSTALL if answer.has_ended else "")]
    reason = answer.value["fallback_reason"]
    if "does not work" not in reason:
        return [ok("image conversion", f"{answer.value['name']} with NumPy {_version('numpy')}")]
    remedy = "pip install 'numpy<2' makes cv_bridge work; rosbags-image converts the images meanwhile"
    return [warn("image conversion", reason, remedy)]


def probe_converter() -> dict[str, str]:
    """Convert a test image with the library that the node would choose; for a child process."""
    from delayed_vlm_ros.images.conversion import make_converter  # noqa: PLC0415  a broken cv_bridge may crash

    converter = make_converter()
    return {"name": converter.name, "fallback_reason": converter.fallback_reason}


def installed_versions() -> list[str]:
    """Return ``name==version`` of every installed package, as ``pip list`` does."""
    found = {f"{one.metadata['Name']}=={one.version}" for one in distributions() if one.metadata["Name"]}
    return sorted(found, key=str.lower)


def _environment() -> str:
    if sys.prefix != sys.base_prefix:
        return f"virtual environment {sys.prefix}"
    return "no virtual environment"


def _requirements() -> list[Requirement]:
    """Return the requirements; a ROS workspace may hold a second, incomplete description of this package."""
    for found in distributions(name=_PACKAGE):
        if found.requires:
            return [Requirement(text) for text in found.requires]
    return []


def _of_extra(declared: Sequence[Requirement], extra: str) -> Iterator[Requirement]:
    for requirement in declared:
        is_core = requirement.marker is None
        if is_core != (extra != "") and (is_core or requirement.marker.evaluate({"extra": extra})):  # type: ignore[union-attr]
            yield requirement


def _unsatisfied(declared: Sequence[Requirement], extra: str) -> tuple[list[str], list[str]]:
    """Return the names of missing packages, and the packages of other versions than required."""
    missing, wrong = [], []
    for requirement in _of_extra(declared, extra):
        present = _version(requirement.name)
        if not present:
            missing.append(requirement.name)
        elif present != _UNKNOWN and not requirement.specifier.contains(present, prereleases=True):
            wrong.append(f"{requirement.name} {present} instead of {requirement.specifier}")
    return missing, wrong


def _node_extra(extra: str, use: str, declared: Sequence[Requirement]) -> Finding:
    subject = f"packages for {use}"
    missing, wrong = _unsatisfied(declared, extra)
    remedy = f"in the repository, run {install_command(extra)}"
    if missing:
        return error(subject, f"not installed in {sys.executable}: {', '.join(missing)}", remedy)
    if wrong:
        return warn(subject, ", ".join(wrong), remedy)
    names = [f"{one.name} {_version(one.name)}" for one in _of_extra(declared, extra)]
    return ok(subject, ", ".join(names))


def _optional_extras(declared: Sequence[Requirement], needed: Sequence[str]) -> Iterator[Finding]:
    optional = {extra: use for extra, use in _OPTIONAL_EXTRAS.items() if extra not in needed}
    absent = []
    for extra, use in optional.items():
        missing, wrong = _unsatisfied(declared, extra)
        if wrong:
            yield warn(f"packages for {use}", ", ".join(wrong), f"in the repository, run {install_command(extra)}")
        if missing:
            absent.append(f"{', '.join(missing)} for {use} ({install_command(extra)})")
    if absent:
        yield ok("optional packages", f"not installed: {'; '.join(absent)}")
    else:
        yield ok("optional packages", f"all installed ({', '.join(optional)})")


def _opencv_findings() -> Iterator[Finding]:
    installed = [name for name in _OPENCV if _distribution_version(name)]
    if len(installed) > 1:
        remedy = f"pip uninstall {' '.join(installed)}, then pip install opencv-python-headless"
        yield warn("opencv", f"{' and '.join(installed)} are installed and overwrite each other's files", remedy)


def _torchvision_findings() -> Iterator[Finding]:
    """Compare torchvision's own requirement with torch: importing it, too, would take as long as torch."""
    torch = _distribution_version("torch")
    needs = (
        Requirement(one) for one in (requires("torchvision") if _distribution_version("torchvision") else None) or ()
    )
    for need in needs:
        if need.name == "torch" and torch and not need.specifier.contains(torch, prereleases=True):
            text = (
                f"torchvision {_distribution_version('torchvision')} needs torch {need.specifier}, installed is {torch}"
            )
            yield error("torchvision", text, "install torch and torchvision together, from one source")


def _version(name: str) -> str:
    """Return the version of a package, or ``_UNKNOWN`` for a module without metadata; empty if it is not installed."""
    found = _distribution_version(name)
    module = _MODULES.get(name, name.replace("-", "_"))
    return found or (_UNKNOWN if is_installed(module) else "")


def _distribution_version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
