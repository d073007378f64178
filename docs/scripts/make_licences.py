"""Write the table of docs/licences.md from the metadata of the installed packages.

Run it in the environment of ``make setup`` after the requirements in setup.py have changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, metadata, requires
from pathlib import Path

PAGE = Path(__file__).parents[1] / "licences.md"

_BEGIN, _END = "<!-- made by docs/scripts/make_licences.py -->\n", "<!-- end of packages -->\n"
_ALWAYS = "always"
_NOT_INSTALLED = ("docs", "test", "lint", "scenes")  # extras of developers


def page() -> str:
    """Return the page with its table generated."""
    before, rest = PAGE.read_text(encoding="utf-8").split(_BEGIN)
    rows = (f"| `{name}` | {licence_of(name)} | {', '.join(extras)} |\n" for name, extras in sorted(packages().items()))
    table = "| package | licence | installed with |\n| --- | --- | --- |\n" + "".join(rows)
    return before + _BEGIN + table + _END + rest.split(_END)[1]


def packages() -> Mapping[str, list[str]]:
    """Return the extras that require each package directly; those of developers are left out."""
    found: dict[str, list[str]] = {}
    for requirement in requires("delayed_vlm_ros") or ():
        extra = re.search(r"extra == ['\"](\w+)", requirement)
        name = re.match(r"[\w.-]+", requirement)
        if name and not (extra and extra[1] in _NOT_INSTALLED):
            found.setdefault(name[0], []).append(f"`{extra[1]}`" if extra else _ALWAYS)
    return found


def licence_of(name: str) -> str:
    """Return the licence in the metadata of a package: its SPDX expression, or else what it says."""
    try:
        about = metadata(name)
    except PackageNotFoundError:
        return "not installed here"
    if "License-Expression" in about:
        return about["License-Expression"]
    classified = " and ".join(_classified(about.get_all("Classifier") or []))
    stated = (about.get_all("License") or ["not stated"])[0]
    return classified or stated.splitlines()[0]


def _classified(classifiers: list[str]) -> Iterator[str]:
    prefix = "License :: OSI Approved :: "
    return (one.removeprefix(prefix) for one in classifiers if one.startswith(prefix))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
