"""Command of a new Python process that finds the modules where this one does, not in the working folder."""

from __future__ import annotations

import sys

_START = (
    "import sys; sys.path[:] = sys.argv[1].splitlines(); from importlib import import_module; "
    "module, name = sys.argv[2].split(':'); getattr(import_module(module), name)(*sys.argv[3:])"
)


def python_command(function: str, *arguments: str) -> list[str]:
    """Return the command of a Python process that calls a function.

    Args:
        function: ``module:function``, with the full name of a module.
        arguments: Arguments of the function.
    """
    return [sys.executable, "-c", _START, "\n".join(sys.path), function, *arguments]
