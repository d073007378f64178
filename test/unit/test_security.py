"""Code is run and processes are started by known modules only."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "delayed_vlm_ros"

# What runs code or starts a process, and the modules that may use it.
ALLOWED = {
    "subprocess": {
        *("doctor/clocks.py", "doctor/running.py", "ros/process_group.py"),
        "inference/local/models/gpu_memory.py",  # the driver's tool, with the index of a GPU
        "inference/local/models/new_process.py",  # of the node: loads the configured checkpoint
    },
    "multiprocessing": {"benchmark/process_pool.py", "replay/executor.py"},
    # Of the names in a fixed list.
    "importlib.import_module": {
        *("__init__.py", "cli/replay.py", "dependencies.py", "doctor/running.py", "replay/executor.py"),
        *("inference/local/models/adapters/registry.py", "ros/input/poses.py", "ros/input/transforms.py"),
    },
    "np.load": {"inference/local/familiarity.py"},  # the package's own file, without pickle
    "yaml.load": {"ros/parameter_files.py"},  # with a safe loader
}
RUNS_CODE = re.compile(
    r"subprocess|multiprocessing|pty|runpy|pickle|dill|shelve|marshal|joblib|cloudpickle|eval|exec|compile|__import__"
    r"|os\.(system|popen|exec.+|spawn.+|posix_spawn.*|fork.*)|asyncio\.create_subprocess.+|importlib\.import_module"
    r"|(torch|np|numpy)\.load|yaml\.(unsafe_|full_)?load(_all)?|shell=(?!False).*|trust_remote_code=(?!False).*"
    r"|allow_pickle=(?!False).*"
)


def uses_of(source):
    """Yield what the source uses of the means to run code or to start a process."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{name.name}" for name in node.names)
            yield str(node.module).partition(".")[0]
        elif isinstance(node, ast.Attribute):
            yield ast.unparse(node)
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.keyword):
            yield f"{node.arg}={ast.unparse(node.value)}"


def test_only_known_modules_could_run_what_comes_from_outside():
    found = {}
    for file in PACKAGE.rglob("*.py"):
        for use in filter(RUNS_CODE.fullmatch, uses_of(file.read_text())):
            found.setdefault(use, set()).add(file.relative_to(PACKAGE).as_posix())
    assert found == ALLOWED


@pytest.mark.parametrize(
    "source",
    [
        *(
            "import subprocess",
            "import subprocess as s",
            "from subprocess import Popen as P",
            "import os; os.system('')",
        ),
        *("from os import system", "import os; os.execv('', [])", "eval('1')", "exec('1')", "import pickle"),
        *("from pickle import loads", "import torch; torch.load('')", "import yaml; yaml.load('')", "f(shell=True)"),
        *("from torch import load", "from importlib import import_module as i", "f(trust_remote_code=x)"),
        *("import asyncio; asyncio.create_subprocess_exec('')", "import yaml; yaml.unsafe_load('')"),
    ],
)
def test_every_form_is_found(source):
    assert any(map(RUNS_CODE.fullmatch, uses_of(source)))
