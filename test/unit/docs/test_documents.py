"""The documents agree with the code."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SCRIPTS = ROOT / "docs" / "scripts"
GENERATORS = [
    "make_answers",
    "make_encodings",
    "make_licences",
    "make_memory",
    "make_parameters",
    "make_performance",
    "make_presets",
    "make_search",
    "make_watches",
]


@pytest.mark.parametrize("name", GENERATORS)
def test_generated_page_matches_its_script(name):
    # given
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    # then
    assert script.PAGE.read_text(encoding="utf-8") == script.page(), f"run .venv/bin/python docs/scripts/{name}.py"


def pages():
    return [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("lab/bench/*.md"), *ROOT.glob("examples/*.md")]


def anchors(page):
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_link_between_documents_has_a_target():
    for page in pages():
        for target, anchor in re.findall(r"\]\(([^)#:]*)#?([^):]*)\)", page.read_text(encoding="utf-8")):
            linked = page.parent / target if target else page
            assert linked.exists(), f"{page.name} links to {target}"
            if anchor and linked.suffix == ".md":
                assert anchor in anchors(linked), f"{page.name} links to {target}#{anchor}"


def test_every_make_target_in_the_documents_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page in pages():
        named = set(re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(encoding="utf-8"), re.MULTILINE))
        assert named <= targets, f"{page.name} names {named - targets}"


def named_tests(text):
    """Return files and names of the tests in a text, such as `test/unit/test_x.py::test_y` and `…::test_z`."""
    found = []
    for file, name in re.findall(r"`(test/[^`\s]+\.py|…)::(\w+)`", text):
        found.append((found[-1][0] if file == "…" else file, name))
    return found


def test_every_line_of_the_fault_table_names_a_test():
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    faults = page.split("## Faults\n")[1].split("\n## ")[0]
    lines = [line for line in faults.splitlines() if line.startswith("| ")][2:]
    assert len(lines) >= 16
    assert [line for line in lines if not named_tests(line.split(" | ")[-1])] == []


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_every_test_that_a_document_names_exists(page):
    for file, name in named_tests(page.read_text(encoding="utf-8")):
        assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), f"{page.name} names {file}::{name}"
