"""The workflow files run what the project's own CI runs, and say that they have not run here."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def load(name):
    return yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text(encoding="utf-8"))


def commands_of(job):
    return [step["run"] for step in job["steps"] if "run" in step]


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_workflow_has_not_run_here_and_may_write_no_more_than_it_needs(file):
    text = file.read_text(encoding="utf-8")
    assert "NOT RUN HERE" in text
    assert set(yaml.safe_load(text)["permissions"]) == {"contents"}


def test_checks_are_those_of_the_own_ci():
    own = re.findall(r"^make \S+", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE)
    named = [command for command in commands_of(load("ci.yml")["jobs"]["checks"]) if command.startswith("make ")]
    assert named == [command for command in own if command != "make test-slow"]


def test_matrix_has_the_oldest_python_of_the_package():
    oldest = re.search(r'python_requires=">=([\d.]+)"', (ROOT / "setup.py").read_text(encoding="utf-8"))
    assert oldest[1] == load("ci.yml")["jobs"]["checks"]["strategy"]["matrix"]["python"][0]


def test_release_compares_the_tag_with_every_version():
    (compared,) = (
        command
        for command in commands_of(load("release.yml")["jobs"]["release"])
        if "GITHUB_REF_NAME" in command and "assert" in command
    )
    version = re.search(
        r'__version__ = "(.+)"', (ROOT / "delayed_vlm_ros" / "__init__.py").read_text(encoding="utf-8")
    )[1]
    for file in ("package.xml", "delayed_vlm_ros/__init__.py", "CHANGELOG.rst"):
        assert file in compared
        assert version in (ROOT / file).read_text(encoding="utf-8")
