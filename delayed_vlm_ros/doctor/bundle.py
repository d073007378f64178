"""The file of a support case: a zip archive without secrets."""

from __future__ import annotations

import base64
import json
import os
import platform
import sys
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from delayed_vlm_ros import __version__
from delayed_vlm_ros.doctor.diagnosis import Diagnosis
from delayed_vlm_ros.doctor.environment import installed_versions
from delayed_vlm_ros.doctor.observation import Observation
from delayed_vlm_ros.doctor.running import run_child
from delayed_vlm_ros.doctor.text import REMOVED, Redactor, is_secret_name
from delayed_vlm_ros.errors import BadRequestError
from delayed_vlm_ros.resources import log_folder

_LOG_FILES = 3
_SEARCHED_LOG_FILES = 200  # newest ones
_LOG_BYTES = 500_000
_IMAGES_TIMEOUT_SEC = 15.0
_KEY_VALUE = {"key", "value"}  # fields of diagnostic_msgs/KeyValue
_PREFIXES = ("ROS_", "RMW_", "RCUTILS_", "AMENT_", "FASTDDS_", "FASTRTPS_", "CYCLONEDDS_", "CUDA_", "NVIDIA_")
_NAMES = (
    *("DELAYED_VLM_WEB_TOKEN", "HF_HOME", "HF_HUB_OFFLINE", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "OMP_NUM_THREADS"),
    *("PATH", "PYTHONPATH", "PYTHONUNBUFFERED", "PYTORCH_CUDA_ALLOC_CONF", "VIRTUAL_ENV"),
)
_README = """Support file of delayed_vlm_ros {version}, written by delayed-vlm doctor --bundle.

doctor.txt, doctor.json   the checks
versions.txt              this machine's system, and the installed Python packages
environment.txt           environment variables of ROS, CUDA and Python; no others
parameters.json           parameters of the running node, and of the web page
diagnostics.json          diagnostics of some seconds
statistics.json           statistics of some seconds
log/                      the end of the node's last log files
images/                   frames of the memory, only with --with-images

Passwords in URLs, values of variables and parameters whose names look like secrets, and tokens are replaced by
<removed>, the home folder by ~. Questions and answers may be in the log. Read the files before you send them.
"""


@contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """Create a file that only this user can read; remove it again if the block fails.

    Raises:
        BadRequestError: The file exists or cannot be created.
    """
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    except FileExistsError:
        raise BadRequestError(f"'{path}' exists: choose another name for --bundle, or remove it") from None
    except OSError as error:
        raise BadRequestError(f"cannot create '{path}' ({error.strerror}): choose another name for --bundle") from None
    file = os.fdopen(descriptor, "w+b")
    try:
        yield file
        file.close()
    except BaseException:
        with suppress(OSError):  # it may not be possible to write the rest
            file.close()
        with suppress(OSError):
            path.unlink()
        raise


def write_bundle(
    file: IO[bytes],
    diagnosis: Diagnosis,
    *,
    namespace: str = "/",
    with_images: bool = False,
    environment: Mapping[str, str] = os.environ,
) -> list[str]:
    """Write the archive.

    Args:
        file: Open file.
        diagnosis: Result of the checks.
        namespace: Namespace of the node.
        with_images: Whether to add the images of the memory.
        environment: Environment variables.

    Returns:
        Names of the files in the archive.

    Raises:
        BadRequestError: The archive cannot be written, such as on a full disk.
    """
    texts = _texts(diagnosis, Redactor(environment), environment)
    content: list[tuple[str, str | bytes]] = [*texts, *(_images(namespace) if with_images else ())]
    try:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in content:
                archive.writestr(name, data)
        file.flush()
    except OSError as failure:
        remedy = "free disk space, or name a file on another disk"
        raise BadRequestError(f"cannot write the file of --bundle ({failure.strerror}): {remedy}") from None
    return [name for name, _ in content]


def diagnosis_json(diagnosis: Diagnosis) -> dict[str, Any]:
    """Return the findings as one JSON object."""
    findings = [
        {"level": one.level.name, "subject": one.subject, "finding": one.text, "remedy": one.remedy}
        for one in diagnosis.findings
    ]
    return {"success": not diagnosis.has_error, "findings": findings}


def _texts(diagnosis: Diagnosis, redactor: Redactor, environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    seen = diagnosis.observation
    yield "README.txt", _README.format(version=__version__)
    yield "doctor.txt", redactor.redact("".join(f"{one.line}\n" for one in diagnosis.findings))
    yield "doctor.json", _json(diagnosis_json(diagnosis), redactor)
    yield "versions.txt", redactor.redact(_versions())
    yield "environment.txt", _environment(redactor, environment)
    yield "parameters.json", _json(_parameters(seen), redactor)
    reports = dict(seen.reports) if seen is not None else {}
    yield "diagnostics.json", _json(reports.pop("/diagnostics", []), redactor)
    yield "statistics.json", _json(reports, redactor)
    folder = log_folder(environment)
    files = _log_files(folder, _node_name(seen)) if folder is not None else []
    for number, file in enumerate(files, start=1):
        yield _log(file, number, redactor)


def _log(file: Path, number: int, redactor: Redactor) -> tuple[str, str]:
    """Return name and end of a log file; why it cannot be read if it was rotated or removed meanwhile."""
    name = f"log/{number}_{file.name}"
    try:
        return name, redactor.redact(_end_of(file))
    except OSError as failure:
        return f"{name}.error.txt", f"{redactor.redact(str(file))} cannot be read ({failure.strerror})\n"


def _parameters(seen: Observation | None) -> dict[str, Any]:
    if seen is None:
        return {}
    return {seen.node_name: seen.parameters, "web_dashboard": seen.page_parameters}


def _node_name(seen: Observation | None) -> str:
    return seen.node_name.strip("/").replace("/", ".") if seen is not None else "scene_memory"


def _json(value: Any, redactor: Redactor) -> str:
    return json.dumps(_redacted(value, redactor), indent=1, ensure_ascii=True) + "\n"


def _redacted(value: Any, redactor: Redactor, name: str = "") -> Any:
    if is_secret_name(name):
        return REMOVED
    if isinstance(value, Mapping) and set(value) == _KEY_VALUE:
        return {"key": redactor.redact(value["key"]), "value": _redacted(value["value"], redactor, value["key"])}
    if isinstance(value, Mapping):
        return {redactor.redact(key): _redacted(one, redactor, key) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(one, redactor, name) for one in value]
    return redactor.redact(value) if isinstance(value, str) else value


def _versions() -> str:
    system = f"delayed_vlm_ros {__version__}\nPython {sys.version}\n{platform.platform()}\n"
    release = Path("/etc/os-release")
    distribution = release.read_text(encoding="utf-8", errors="replace") if release.is_file() else ""
    return system + distribution + "\n" + "".join(f"{one}\n" for one in installed_versions())


def _environment(redactor: Redactor, environment: Mapping[str, str]) -> str:
    chosen = {name: text for name, text in sorted(environment.items()) if name.startswith(_PREFIXES) or name in _NAMES}
    return "".join(f"{name}={redactor.value_of(name, text)}\n" for name, text in chosen.items())


def _log_files(folder: Path, node_name: str) -> list[Path]:
    """Return the newest log files that contain lines of the node."""
    dated = []
    for file in (*folder.glob("*.log"), *folder.glob("*/*.log")):
        with suppress(OSError):  # removed meanwhile
            dated.append((file.stat().st_mtime, file))
    found = []
    for _, file in sorted(dated, reverse=True)[:_SEARCHED_LOG_FILES]:
        with suppress(OSError):
            if f"[{node_name}]" in _end_of(file):
                found.append(file)
        if len(found) == _LOG_FILES:
            break
    return found


def _end_of(file: Path) -> str:
    with file.open("rb") as log:
        log.seek(max(0, file.stat().st_size - _LOG_BYTES))
        return log.read(_LOG_BYTES).decode("utf-8", errors="replace")


def _images(namespace: str) -> Iterator[tuple[str, bytes]]:
    answer = run_child("images:fetch", namespace, timeout_sec=_IMAGES_TIMEOUT_SEC)
    if answer.error:
        yield "images/error.txt", answer.error.encode()
        return
    for name, data in answer.value:
        yield f"images/{name}", base64.b64decode(data)
