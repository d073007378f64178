"""The documents agree with the code."""

import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_parameter_page_is_what_the_code_says():
    # given
    spec = importlib.util.spec_from_file_location("make_parameters", ROOT / "docs" / "make_parameters.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    # then
    assert script.PAGE.read_text(encoding="utf-8") == script.page(), "run .venv/bin/python docs/make_parameters.py"


def test_every_link_between_documents_leads_somewhere():
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_make_target_of_the_readme_exists():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page in ("README.md", "CONTRIBUTING.md"):
        named = set(re.findall(r"`?make ([a-z]+)", (ROOT / page).read_text(encoding="utf-8")))
        assert named <= targets, f"{page} names {named - targets}"
