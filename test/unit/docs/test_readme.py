"""README.md and docs/architecture.md match the code."""

import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "delayed_vlm_ros"


def test_figures_of_the_readme_are_those_of_the_results():
    file = ROOT / "docs" / "scripts" / "make_readme.py"
    spec = importlib.util.spec_from_file_location(file.stem, file)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.PAGE.read_text(encoding="utf-8") == script.page(), f"run .venv/bin/python {file.relative_to(ROOT)}"


def test_paths_in_the_architecture_page_exist():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    known = [path.relative_to(ROOT) for path in (*ROOT.glob("*.*"), *PACKAGE.rglob("*.py"))]
    # A sentence that has named a folder names files relative to it, such as `cache/encoding.py`.
    named = re.findall(r"`([a-z_0-9/]+\.(?:py|txt|toml))`", text)
    missing = [name for name in named if not any(f"/{path}".endswith(f"/{name}") for path in known)]
    assert named
    assert not missing


def test_folders_in_the_architecture_page_are_those_of_the_package():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = [line for line in text.splitlines() if line.startswith("| `")]
    named = {name for line in table for name in re.findall(r"`([a-z]+)/`", line.split("|")[1])}
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert named == folders | {"lab"}
