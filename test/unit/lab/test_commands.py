"""The lab's command line."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lab.__main__ import app, bench

ROOT = Path(__file__).parents[3]
BENCHMARKS = [command.callback.__name__.replace("_", "-") for command in bench.registered_commands]


def test_command_line_imports_neither_torch_nor_ros():
    code = "import sys, lab.__main__; sys.exit(bool({'torch', 'transformers', 'rclpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, timeout=120).returncode == 0


@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmark_has_help_and_json_output(name):
    done = CliRunner().invoke(app, ["bench", name, "--help"])
    assert done.exit_code == 0
    assert "--json" in done.output


def test_every_benchmark_is_documented():
    page = (ROOT / "lab" / "bench" / "README.md").read_text(encoding="utf-8")
    assert BENCHMARKS
    assert [name for name in BENCHMARKS if f"## `bench {name}`" not in page] == []
