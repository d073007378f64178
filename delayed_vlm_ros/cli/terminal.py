"""Output of the commands. Text from outside cannot control the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.segment import Segment

from delayed_vlm_ros.text import escaped, escaped_json, escaped_lines


class EscapingConsole(Console):
    """A console that escapes the control characters of every text, and keeps its own colours and cursor movements."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render an object, as ``Console`` does."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else escaped_lines(text), style, control)


def console(*, stderr: bool = False) -> Console:
    """Return a console for standard output or standard error."""
    return EscapingConsole(stderr=stderr)


def literal(text: str) -> str:
    """Return a text as markup that shows it as it is, on one line."""
    return escape(escaped(text))


def write(text: str, *, stderr: bool = False) -> None:
    """Write lines of plain text, without line breaks in long ones."""
    stream = sys.stderr if stderr else sys.stdout
    stream.write(f"{escaped_lines(text)}\n")
    stream.flush()


def write_json(content: Any) -> None:
    """Write an object as JSON on standard output."""
    sys.stdout.write(escaped_json(content, ascii_only=not is_unicode(sys.stdout.encoding)) + "\n")


def is_unicode(encoding: str | None) -> bool:
    """Return whether a stream's encoding has all characters."""
    return (encoding or "").lower().replace("_", "-").startswith("utf")
