"""Write the report: a self-contained HTML page and a CSV table for spreadsheets.

The page has no script, and its content security policy forbids loading anything. All text of a result is escaped.
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
from delayed_vlm_ros.replay.report.view import make_view
from delayed_vlm_ros.resources import data_folder
from delayed_vlm_ros.text import escaped_lines

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
    "answer_tokens",
    "finish_reason",
    "exact",
    "bytes_sent",
)
_SCORES = ("exact_match", "contains", "token_f1", "chrf", "length_ratio")
_MAX_NAMES_IN_TITLE = 3
_FILTERS = (
    ("inexact", "with an inexact answer"),
    ("differs", "with a difference from native"),
    ("flagged", "with a warning or error"),
)
_QUESTION = ("number", "at", "asked_at", "gap_sec", "after_end", "kind", "ask")

COLUMNS = (
    "recording",
    "path",
    "complete",
    *_QUESTION,
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
"""Columns of ``answers.csv``. A field with several expected answers or warnings has one per line."""


def write_report(results: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    """Write ``report.html`` and ``answers.csv``.

    Args:
        results: Results of the recordings, as ``delayed-vlm replay`` writes them.
        folder: Folder of the files; created if it does not exist.

    Returns:
        Path of the page.

    Raises:
        OSError: The folder or a file cannot be written. Existing files remain intact.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "answers.csv", _csv_table(results))
    return _write(folder / "report.html", _page(results))


def _page(results: Sequence[Mapping[str, Any]]) -> str:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    view = make_view(results)
    names = [recording.name for recording in view["recordings"]]
    return environment.get_template("report.html.jinja").render(
        title=" · ".join(names) if len(names) <= _MAX_NAMES_IN_TITLE else f"{len(names)} recordings",
        style=Markup((_TEMPLATES / "report.css").read_text(encoding="utf-8")),  # noqa: S704  a file of this package
        orders={method.key: order % len(MARKERS) for order, method in enumerate(view["methods"])},
        filters=_FILTERS,
        **view,
    )


def _csv_table(results: Sequence[Mapping[str, Any]]) -> str:
    written = io.StringIO()
    table = csv.DictWriter(written, COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(row for result in results for row in _rows(result))
    return written.getvalue()


def _rows(result: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    recording = {
        "recording": result["recording"]["name"],
        "path": result["recording"].get("path"),
        "complete": result["complete"],
    }
    for question in result.get("questions", ()):
        for method, answer in question["answers"].items():
            yield {
                **recording,
                **{name: question[name] for name in _QUESTION},
                "expect": "\n".join(question["expect"]),
                "method": method,
                **{name: answer[name] for name in ("answer", "error")},
                **{name: answer.get(name) for name in _FIGURES},
                **{name: (answer["scores"] or {}).get(name) for name in _SCORES},
                **{f"agreement_{name}": (answer["agreement"] or {}).get(name) for name in _SCORES},
                "warnings": "\n".join(answer["warnings"]),
                "evidence": " ".join(map(str, answer["evidence"])),
            }


def _write(file: Path, text: str) -> Path:
    """Replace a file in one step, with control characters escaped; a reader of the earlier one is not disturbed."""
    draft = file.with_name(f".{file.name}.draft")
    draft.write_text(escaped_lines(text), encoding="utf-8", newline="\n")
    draft.replace(file)
    return file
