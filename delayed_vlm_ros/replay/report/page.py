"""The report of ``delayed-vlm replay``: one HTML page that needs nothing else, and a table for spreadsheets.

The page has no script and forbids itself to load anything; what is text in a result is text in the page.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from delayed_vlm_ros.replay.report.plots import MARKERS
from delayed_vlm_ros.replay.report.view import view_of
from delayed_vlm_ros.resources import data_folder

_TEMPLATES = data_folder("replay", "report")
_FIGURES = (
    "first_token_sec",
    "total_sec",
    "visual_tokens",
    "kv_length",
    "peak_memory_bytes",
    "frames_encoded",
    "frames_reused",
    "cached_bytes",
)
_SCORES = ("exact_match", "contains", "token_f1", "chrf", "length_ratio")
_FEW_NAMES = 3  # so many make a title
_FILTERS = (("wrong", "not all right"), ("unlike", "unlike native"), ("noted", "with a warning or error"))

COLUMNS = (
    "recording",
    "path",
    "complete",
    "number",
    "at",
    "asked_at",
    "kind",
    "ask",
    "expect",
    "method",
    "answer",
    "error",
    *_FIGURES,
    *_SCORES,
    *(f"agreement_{name}" for name in _SCORES),
    "warnings",
    "evidence",
)
"""Of ``answers.csv``. Several expected answers and warnings are on lines of their own in one field."""


def write_report(results: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    """Write ``report.html`` and ``answers.csv``.

    Args:
        results: One for each recording, as ``delayed-vlm replay`` writes them.
        folder: Where to; made if it is not there.

    Returns:
        Path of the page.

    Raises:
        OSError: The folder or a file cannot be written. What was there before is still whole.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "answers.csv", _table(results))
    return _write(folder / "report.html", _page(results))


def _page(results: Sequence[Mapping[str, Any]]) -> str:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    view = view_of(results)
    names = [recording.name for recording in view["recordings"]]
    return environment.get_template("report.html.jinja").render(
        title=" · ".join(names) if len(names) <= _FEW_NAMES else f"{len(names)} recordings",
        style=Markup((_TEMPLATES / "report.css").read_text(encoding="utf-8")),  # noqa: S704  ours
        orders={method.key: order % len(MARKERS) for order, method in enumerate(view["methods"])},
        filters=_FILTERS,
        **view,
    )


def _table(results: Sequence[Mapping[str, Any]]) -> str:
    written = io.StringIO()
    table = csv.DictWriter(written, COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(row for result in results for row in _rows(result))
    return written.getvalue()


def _rows(result: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    recording = {name: result["recording"].get(name) for name in ("path",)} | {"complete": result["complete"]}
    for question in result.get("questions", ()):
        asked = {name: question[name] for name in ("number", "at", "asked_at", "kind", "ask")}
        for method, answer in question["answers"].items():
            yield {
                "recording": result["recording"]["name"],
                **recording,
                **asked,
                "expect": "\n".join(question["expect"]),
                "method": method,
                **{name: answer[name] for name in ("answer", "error", *_FIGURES)},
                **{name: (answer["scores"] or {}).get(name) for name in _SCORES},
                **{f"agreement_{name}": (answer["agreement"] or {}).get(name) for name in _SCORES},
                "warnings": "\n".join(answer["warnings"]),
                "evidence": " ".join(map(str, answer["evidence"])),
            }


def _write(file: Path, text: str) -> Path:
    """Whole or not at all: somebody may be looking at the file that was there."""
    draft = file.with_name(f".{file.name}.draft")
    draft.write_text(text, encoding="utf-8", newline="\n")
    draft.replace(file)
    return file
