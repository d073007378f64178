"""The answering methods that a replay can compare, without the code that runs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

DELAYED = "delayed"
DELAYED_UNCACHED = "delayed_uncached"
NATIVE_KEPT = "native_kept"
NATIVE_ALL = "native_all"
NEWEST_4 = "newest_4"


@dataclass(frozen=True)
class Method:
    """An answering method.

    Attributes:
        key: Name in options and results.
        name: Name in headings and tables.
        short: Short name for legends and labels.
    """

    key: str
    name: str
    short: str


METHODS = (
    Method(DELAYED, "delayed, with caches (this package)", "delayed"),
    Method(DELAYED_UNCACHED, "delayed, caches dropped before each question", "delayed, no caches"),
    Method(NATIVE_KEPT, "native video inference on the kept frames", "native, kept"),
    Method(NATIVE_ALL, "native video inference on all sampled frames", "native, all"),
    Method(NEWEST_4, "newest 4 frames only", "newest 4"),
)
METHOD_KEYS = tuple(method.key for method in METHODS)


def local_methods(methods: Sequence[str]) -> tuple[str, ...]:
    """Return those of the methods that need a model on this machine."""
    return tuple(method for method in methods if method != DELAYED)


def left_out_warnings(left_out: Sequence[str]) -> tuple[str, ...]:
    """Return what to say about methods that need a model on this machine."""
    return (f"left out, because the model is on a server: {', '.join(left_out)}",) if left_out else ()
