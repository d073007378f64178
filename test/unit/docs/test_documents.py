"""The documents agree with the code."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SCRIPTS = ROOT / "docs" / "scripts"
GENERATORS = ["make_answers", "make_encodings", "make_memory", "make_parameters", "make_performance", "make_presets"]


@pytest.mark.parametrize("name", GENERATORS)
def test_generated_page_matches_its_script(name):
    # given
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    # then
    assert script.PAGE.read_text(encoding="utf-8") == script.page(), f"run .venv/bin/python docs/scripts/{name}.py"


def pages():
    return [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("lab/bench/*.md")]


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


def test_every_line_of_the_fault_table_names_an_existing_test():
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    faults = page.split("## Faults\n")[1].split("\n## ")[0]
    lines = [line for line in faults.splitlines() if line.startswith("| ")][2:]
    assert len(lines) >= 16
    for line in lines:
        named = re.search(r"`(test/\S+\.py)::(\w+)` \|$", line)
        assert named, line
        assert f"def {named[2]}(" in (ROOT / named[1]).read_text(encoding="utf-8"), line
