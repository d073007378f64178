"""A folder for PYTHONPATH that hides packages from child processes, and hiding one from this process."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_SITE_CUSTOMIZE = """
import sys


class Hiding:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {packages!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
        return None


sys.meta_path.insert(0, Hiding())
"""


def hide(folder: Path, *packages: str) -> dict[str, str]:
    """Write the folder's ``sitecustomize`` and return the environment variables for processes that use it."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(_SITE_CUSTOMIZE.format(packages=set(packages)), encoding="utf-8")
    return {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}


def hide_here(package: str) -> None:
    """Hide a package from this process until its end, also if it is imported already."""
    for name in list(sys.modules):
        if name.partition(".")[0] == package:
            del sys.modules[name]
    exec(_SITE_CUSTOMIZE.format(packages={package}), {})
