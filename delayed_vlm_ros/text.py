"""Text from outside made safe to show in logs and terminals: control characters are written as escapes."""

from __future__ import annotations

import json
import logging
import re
import sys
from io import TextIOWrapper
from typing import Any

# Terminal controls (C0, DEL, C1), line separators, overrides of the writing direction, and surrogates, which no stream
# can encode. Everything else is shown as it is, also what Python calls unprintable, such as the ideographic space.
_CONTROL = re.compile("[\0-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_CONTROL_IN_JSON = re.compile(_CONTROL.pattern.replace("\0-\x1f", ""))  # the rest is escaped, except for line ends


def escaped(text: str) -> str:
    r"""Return the text on one line, with each control character as a Python escape, such as ``\x1b``."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def escaped_lines(text: str, indent: str = "") -> str:
    """Return the text with the control characters of each line escaped.

    Args:
        text: One or more lines.
        indent: Text before each line but the first.
    """
    return f"\n{indent}".join(map(escaped, text.split("\n")))


def escaped_json(content: Any, *, ascii_only: bool = False, indent: int | None = 2) -> str:
    """Return an object as JSON without control characters; its values stay the same.

    Args:
        content: Object of plain values.
        ascii_only: Whether to escape all other characters, too.
        indent: Spaces of each level; None for one line.
    """
    text = json.dumps(content, ensure_ascii=ascii_only, indent=indent)
    return _CONTROL_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class _EscapingFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return escaped_lines(super().format(record))


def escape_output() -> None:
    """Escape what libraries log and warn of in this process, and what the encoding of the terminal lacks.

    Nothing else changes: warnings and errors go to standard error, as without a configuration of ``logging``.
    """
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(_EscapingFormatter())
    logging.basicConfig(handlers=[handler])
    logging.captureWarnings(capture=True)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
