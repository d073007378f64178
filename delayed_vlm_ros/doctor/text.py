"""Text from outside made safe to show: control characters escaped, passwords in URLs and secrets removed."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from delayed_vlm_ros.errors import shortened, without_credentials
from delayed_vlm_ros.text import escaped

REMOVED = "<removed>"
"""Text that replaces a secret."""

# "first_token" and "tokens" are times and counts, "tokenizer" is a part of a model.
_SENSITIVE = (
    r"(?:(?<!first[_ ])token(?!s|iz)|passw(?:or)?d|passphrase|secret|credential|authori[sz]ation|cookie"
    r"|(?:api|access|private)_?key)"
)
_SECRET_NAME = re.compile(rf"{_SENSITIVE}|(?:^|[_.-])(?:key|pass|pwd|auth)$", re.IGNORECASE)
_ASSIGNMENT = re.compile(
    rf"({_SENSITIVE}[\w-]*[\"']?\s*[:=]+\s*)(?:(?:bearer|basic)\s+)?(\"[^\"]*\"|'[^']*'|[^\s,;&\"'}}]+)",
    re.IGNORECASE,
)
_KNOWN_TOKENS = re.compile(
    r"\b(?:(?:hf_|gh[pousr]_|sk-)[\w-]{16,}|eyJ[\w-]{10,}\.[\w-]+\.[\w-]*)|(?<=\bBearer )\S+", re.IGNORECASE
)
_MIN_SECRET_CHARACTERS = 4  # shorter values would match parts of ordinary words


def printable(text: str) -> str:
    """Return the text with control characters escaped, without URL credentials, and of limited length."""
    return shortened(escaped(without_credentials(text, REMOVED)))


def is_secret_name(name: str) -> bool:
    """Return whether a variable or parameter of this name may hold a secret."""
    return _SECRET_NAME.search(name) is not None


class Redactor:
    """Removes secrets and the home folder from text for others.

    Args:
        environment: Environment variables; the values of those with secret names are removed wherever they occur.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        values = {value.strip() for name, value in environment.items() if is_secret_name(name)}
        self._secrets = sorted(
            (value for value in values if len(value) >= _MIN_SECRET_CHARACTERS), key=len, reverse=True
        )
        self._home = _home_folder(environment)

    def redact(self, text: str) -> str:
        """Return the text without secrets, URL credentials and the home folder."""
        for secret in self._secrets:
            text = text.replace(secret, REMOVED)
        text = _KNOWN_TOKENS.sub(REMOVED, without_credentials(text, REMOVED))
        text = _ASSIGNMENT.sub(rf"\1{REMOVED}", text)
        return re.sub(rf"{re.escape(self._home)}(?![\w.-])", "~", text) if self._home else text

    def value_of(self, name: str, text: str) -> str:
        """Return the value of a named variable or parameter; a fixed text if the name marks a secret."""
        return REMOVED if is_secret_name(name) else self.redact(text)


def _home_folder(environment: Mapping[str, str]) -> str:
    """Return the home folder; empty if it is unknown or the root folder."""
    try:
        home = environment.get("HOME") or str(Path.home())
    except RuntimeError:  # this user has none
        return ""
    return home.rstrip("/")
