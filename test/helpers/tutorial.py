"""The blocks of a tutorial: which commands run in tests, and the output that the page shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_DOCS = Path(__file__).resolve().parents[2] / "docs"
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NOT_RUN = re.compile(r"\*Not run by the tests: .+\*")
_TERMINAL = re.compile(r"\*\*Terminal \d.*\*\*.*")


@dataclass
class Commands:
    """A block of commands.

    Attributes:
        text: Commands for bash.
        is_run: Whether tests run it.
        has_terminal: Whether it runs in a terminal of its own, until the end.
        shown: Lines of its output that the page shows.
    """

    text: str
    is_run: bool
    has_terminal: bool
    shown: tuple[str, ...] = ()


def commands(page: str) -> Iterator[Commands]:
    """Yield the blocks of commands of a page in ``docs``, each with the output in the block after it."""
    text = (_DOCS / page).read_text(encoding="utf-8")
    last: Commands | None = None
    for found in _BLOCK.finditer(text):
        language, content = found.groups()
        if language == "text":
            assert last is not None, "output without commands"
            last.shown = tuple(content.splitlines())
        elif not language:
            if last is not None:
                yield last
            before = text[: found.start()].rstrip().splitlines()[-1]
            last = Commands(content, not _NOT_RUN.fullmatch(before), bool(_TERMINAL.fullmatch(before)))
    if last is not None:
        yield last


def missing_lines(shown: tuple[str, ...], output: str) -> list[str]:
    """Return the shown lines that an output does not have, with any numbers."""

    def masked(line: str) -> str:
        return re.sub(r"\s+", " ", re.sub(r"\d+(\.\d+)?", "0", line)).strip()

    lines = {masked(line) for line in output.splitlines()}
    return [line for line in shown if masked(line) not in lines]
