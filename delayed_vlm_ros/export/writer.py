"""Writes an export: images first, then the JSON file and the page with what was really written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import cv2
import numpy as np

from delayed_vlm_ros.export.contents import ExportCounts, ExportedPair, LeftPair, PairImages, Records
from delayed_vlm_ros.export.overview import overview, time_text
from delayed_vlm_ros.export.targets import Target
from delayed_vlm_ros.images.encoding import encode_thumbnail

VERSION = 1
"""Version of ``export.json``."""

PAGE, DATA, FRAMES, SESSION_FILE = "index.html", "export.json", "frames", "session.mcap"
"""Names of the page, of the JSON file, of the folder with the images, and of the MCAP file (``session_file.py``)."""

_NOT_IN_NAMES = re.compile(r"[^\w-]")


def write_export(records: Records, pairs: Iterable[PairImages | LeftPair], target: Target) -> ExportCounts:
    """Write an export, and return what was written.

    Args:
        records: Answers, alerts and lines of the journal.
        pairs: Pairs with their images, in any order; each is read when the one before is written.
        target: Where to write.

    Raises:
        ExportError: A file cannot be written.
    """
    written: list[tuple[ExportedPair, list[str]]] = []
    left: list[int] = []
    thumbnails: dict[int, bytes] = {}
    for one in pairs:
        if isinstance(one, LeftPair):
            left.append(one.id)
            continue
        written.append((one.pair, _write_images(one, target)))
        thumbnails[one.pair.id] = _thumbnail(one.first)
    written.sort(key=lambda entry: (entry[0].stamp_ns, entry[0].id))
    counts = ExportCounts(
        pairs=len(written),
        images=sum(len(files) for _, files in written),
        pairs_left=len(left),
        answers=len(records.answers),
        alerts=len(records.alerts),
        lines=len(records.lines),
    )
    data = _data(records, counts, written, left)
    target.add(DATA, json.dumps(data, ensure_ascii=False, indent=1).encode("utf-8", "replace"))
    page = overview(records, counts, [pair for pair, _ in written], thumbnails)
    target.add(PAGE, page.encode("utf-8", "replace"))
    return counts


def _write_images(images: PairImages, target: Target) -> list[str]:
    """Write the images of a pair; return the names of the files."""
    camera = _NOT_IN_NAMES.sub("_", images.pair.camera)
    files = []
    for number, png in enumerate((images.first, images.second), 1):
        if png:
            name = f"{FRAMES}/{camera}-{images.pair.id}-{number}.png"
            target.add(name, png)
            files.append(name)
    return files


def _thumbnail(png: bytes) -> bytes:
    """Return a small JPEG of an image; empty if it cannot be decoded."""
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR) if png else None
    return encode_thumbnail(np.ascontiguousarray(image[..., ::-1], np.uint8)) if image is not None else b""


def _data(
    records: Records, counts: ExportCounts, written: list[tuple[ExportedPair, list[str]]], left: list[int]
) -> dict[str, Any]:
    return {
        "version": VERSION,
        "source": records.source,
        "created": time_text(records.created_ns),
        "since_ns": records.since_ns,
        "until_ns": records.until_ns,
        "counts": asdict(counts),
        "warnings": list(records.warnings),
        "pairs": [{**_with_time(pair), "files": files} for pair, files in written],
        "pairs_left": left,
        "answers": [_with_time(answer) for answer in records.answers],
        "alerts": [_with_time(alert) for alert in records.alerts],
        "journal": [_with_time(line) for line in records.lines],
    }


def _with_time(entry: Any) -> dict[str, Any]:
    return {"time": time_text(entry.stamp_ns), **asdict(entry)}
