"""package.xml, setup.py and REUSE.toml: declared packages, links and licences."""

import ast
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from fnmatch import fnmatch
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from delayed_vlm_ros import __version__

ROOT = Path(__file__).resolve().parents[3]
MANIFEST = ET.parse(ROOT / "package.xml").getroot()
DECLARED = {node.text for node in MANIFEST if node.tag.endswith("depend")}
# Packages of rosdep and of ROS whose import name differs from their own.
IMPORT_NAMES = {
    "python3-numpy": "numpy",
    "python3-opencv": "cv2",
    "python3-pil": "PIL",
    "python3-yaml": "yaml",
    "tf2_ros_py": "tf2_ros",
}
IMPORTED_BY_NAME = {"nav_msgs", "tf2_ros"}  # where a parameter selects them


def imported_packages():
    """Return the top-level packages that the installed modules, scripts and launch files import."""
    found = set()
    for folder in ("delayed_vlm_ros", "launch", "scripts"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path.suffix in ("", ".py"):
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                    names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                    if isinstance(node, ast.ImportFrom) and node.level == 0:
                        names = [node.module]
                    found |= {name.partition(".")[0] for name in names}
    return (
        found - sys.stdlib_module_names - {"delayed_vlm_ros", "typing_extensions"}
    )  # the latter for type checkers only


def canonical(name):
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", name).group()).lower()


def pip_requirements():
    """Return the canonical names of all distributions that setup.py names."""
    strings = {
        node.value
        for node in ast.walk(ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.match(r"[\w.-]+", node.value)
    }
    return {canonical(text) for text in strings}


def test_every_imported_package_is_declared():
    by_xml = {IMPORT_NAMES.get(name, name) for name in DECLARED}
    distributions = packages_distributions()
    by_pip = {
        name
        for name in imported_packages()
        if {canonical(one) for one in distributions.get(name, [name])} & pip_requirements()
    }
    assert sorted(imported_packages() - by_xml - by_pip) == []
    assert by_xml >= IMPORTED_BY_NAME


def test_core_requirements_of_pip_are_declared_for_ros():
    # With ROS these come from the distribution; the others are installed by pip, see docs/robots.md.
    assert {"python3-numpy", "python3-opencv", "python3-pil", "python3-yaml"} <= DECLARED


def test_manifest_names_version_people_and_links():
    assert MANIFEST.findtext("version") == __version__
    assert {node.get("type") for node in MANIFEST.findall("url")} == {"website", "repository", "bugtracker"}
    assert all(node.text.startswith("https://") for node in MANIFEST.findall("url"))
    for person in (*MANIFEST.findall("maintainer"), *MANIFEST.findall("author")):
        assert person.text.strip()
        assert re.fullmatch(r"[\w.+-]+@[\w.-]+\.\w+", person.get("email"))
    assert MANIFEST.find("maintainer") is not None
    assert MANIFEST.find("author") is not None
    assert MANIFEST.find("license").get("file") == "LICENSE"


def test_every_file_has_a_licence_whose_text_is_there():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 reads TOML")
    annotations = tomllib.loads((ROOT / "REUSE.toml").read_text(encoding="utf-8"))["annotations"]
    for annotation in annotations:
        assert annotation["SPDX-FileCopyrightText"]
        assert (ROOT / "LICENSES" / f"{annotation['SPDX-License-Identifier']}.txt").is_file()
    patterns = [pattern for annotation in annotations for pattern in annotation["path"]]
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert [
        file
        for file in listed.stdout.splitlines()
        if not file.startswith("LICENSES/") and not any(fnmatch(file, pattern) for pattern in patterns)
    ] == []
    assert MANIFEST.findtext("license") in {annotation["SPDX-License-Identifier"] for annotation in annotations}
    assert (ROOT / "LICENSES" / "Apache-2.0.txt").read_text() == (ROOT / "LICENSE").read_text()
