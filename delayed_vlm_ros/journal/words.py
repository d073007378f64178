"""Words of captions and descriptions, as the full-text index has them."""

from __future__ import annotations

import re
import unicodedata

MAX_TERMS = 32
"""Number of words of a description that a search uses."""

# Scripts without spaces between words: each character becomes a word of its own.
_NO_SPACES = re.compile("([\u0e00-\u0eff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff])")

# Words that nearly every caption has say nothing about it.
_COMMON = frozenset(
    re.findall(
        r"\w+",
        "a an and any are at be by did do does for from has have i in is it of on or see seen some somebody someone "
        "something that the there this to was were what when where which who with you",
    )
)


def indexed_text(text: str) -> str:
    """Return a text as it is indexed: normalised, and with spaces between characters of scripts that use none."""
    return _NO_SPACES.sub(r" \1 ", unicodedata.normalize("NFKC", text).replace("\0", " "))


def query_terms(description: str) -> tuple[str, ...]:
    """Return the words of a description as quoted terms of an FTS5 query, each once.

    Nothing in a description is query syntax. Words that nearly every caption has are left out, unless there are no
    others.

    Args:
        description: Any text.

    Returns:
        At most ``MAX_TERMS`` terms; none if the description has no words.
    """
    return tuple(dict.fromkeys(term for run in _runs(description) for term in run))[:MAX_TERMS]


def query_phrases(description: str) -> tuple[str, ...]:
    """Return the parts of a description as phrases of an FTS5 query: words that follow each other, such as "red box".

    The words that ``query_terms`` leaves out separate the parts.

    Args:
        description: Any text.
    """
    return tuple(dict.fromkeys(" + ".join(run[:MAX_TERMS]) for run in _runs(description)))[:MAX_TERMS]


def _runs(description: str) -> list[list[str]]:
    """Return the words as quoted terms, in lists of words that follow each other."""
    words = [_without_punctuation(word).lower() for word in indexed_text(description).split()]
    words = [word for word in words if any(letter.isalnum() for letter in word)]
    common = _COMMON if any(word not in _COMMON for word in words) else frozenset[str]()
    runs: list[list[str]] = [[]]
    for word in words:
        if word in common:
            runs.append([])
        else:
            runs[-1].append('"' + word.replace('"', '""') + '"')
    return [run for run in runs if run]


def _without_punctuation(word: str) -> str:
    """Return a word without punctuation at its ends."""
    letters = [index for index, letter in enumerate(word) if unicodedata.category(letter)[0] not in "PSC"]
    return word[letters[0] : letters[-1] + 1] if letters else ""
