"""The package turns no text into code, and few modules start processes or import a module by its name."""

import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "delayed_vlm_ros"
PROCESSES = ("doctor/", "inference/local/models/", "ros/process_group.py")
IMPORTS = (
    *("__init__.py", "child_process.py", "cli/replay.py", "dependencies.py", "doctor/running.py", "replay/executor.py"),
    *("inference/local/models/adapters/registry.py", "ros/input/poses.py", "ros/input/transforms.py"),
)


@pytest.mark.parametrize(
    ("use", "modules"),
    [
        (r"\bos\.(system|popen|exec\w+|spawn\w+)\(|shell=True", ()),
        (r"(?<![.\w])(eval|exec|__import__)\(|\bpickle\.|import pickle|torch\.load\(", ()),
        (r"trust_remote_code(?!=False)|allow_pickle=True", ()),
        (r"yaml\.(unsafe_|full_)?load(_all)?\((?!.*Loader=yaml\.BaseLoader)", ()),
        (r"\bsubprocess\.(run|Popen|call|check_\w+)\(", PROCESSES),
        (r"\bimport_module\(", IMPORTS),
    ],
    ids=["commands", "code", "foreign code", "yaml", "processes", "imports"],
)
def test_only_known_modules_could_run_what_comes_from_outside(use, modules):
    found = [
        file.relative_to(PACKAGE).as_posix()
        for file in PACKAGE.rglob("*.py")
        if re.search(use, file.read_text(encoding="utf-8"))
    ]
    assert [module for module in found if not module.startswith(modules or "no module")] == []
