"""The documents agree with the code."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    "name", ["make_answers", "make_encodings", "make_memory", "make_parameters", "make_performance", "make_presets"]
)
def test_the_page_is_what_the_code_says(name):
    # given
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    # then
    assert script.PAGE.read_text(encoding="utf-8") == script.page(), f"run .venv/bin/python docs/{name}.py"


def test_every_link_between_documents_leads_somewhere():
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_make_target_of_the_readme_exists():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page in ("README.md", "CONTRIBUTING.md"):
        named = set(re.findall(r"`?make ([a-z]+)", (ROOT / page).read_text(encoding="utf-8")))
        assert named <= targets, f"{page} names {named - targets}"


def test_every_line_of_the_fault_table_has_its_test():
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    faults = page.split("## Faults\n")[1].split("\n## ")[0]
    lines = [line for line in faults.splitlines() if line.startswith("| ")][2:]
    assert len(lines) >= 16
    for line in lines:
        named = re.search(r"`(test/\S+\.py)::(\w+)` \|$", line)
        assert named, line
        assert f"def {named[2]}(" in (ROOT / named[1]).read_text(encoding="utf-8"), line
