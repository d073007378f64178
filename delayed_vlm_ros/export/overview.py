"""The HTML page of an export. It contains its images, loads nothing, runs no script and shows all text as text."""

from __future__ import annotations

import base64
import html
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone

from delayed_vlm_ros.export.contents import Evidence, ExportCounts, ExportedAnswer, ExportedPair, Records
from delayed_vlm_ros.time import FIRST_DATE_SEC, NANOSECONDS_PER_SECOND, seconds_of

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_STYLE = """
:root { color-scheme: light dark; --line: light-dark(#d9dde3, #323a45); --quiet: light-dark(#5d6673, #98a3b1); }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1100px; margin: 0 auto; padding: 16px;
  background: light-dark(#fff, #14181d); color: light-dark(#171a1f, #e9edf2); overflow-wrap: anywhere; }
h1 { font-size: 22px; } h2 { font-size: 17px; margin-top: 28px; }
.quiet { color: var(--quiet); font-size: 13.5px; }
.warning { color: light-dark(#a15c00, #f0b14a); }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(190px, 1fr)); gap: 12px; padding: 0; }
.pairs li, article { list-style: none; border: 1px solid var(--line); border-radius: 8px; padding: 8px; }
article { margin: 10px 0; }
img { width: 100%; border-radius: 5px; display: block; }
p { margin: 4px 0; }
.text { white-space: pre-wrap; }
li:target { outline: 3px solid; }
.question { font-weight: 650; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { text-align: left; vertical-align: top; padding: 4px 10px 4px 0; border-bottom: 1px solid var(--line); }
td:not(:last-child) { white-space: nowrap; }
td:last-child { width: 100%; }
"""


def time_text(stamp_ns: int) -> str:
    """Return a stamp as local time with its date; in seconds if it does not count from 1970."""
    if stamp_ns < FIRST_DATE_SEC * NANOSECONDS_PER_SECOND:
        return f"{seconds_of(stamp_ns):.3f} s"
    local = (_EPOCH + timedelta(microseconds=stamp_ns // 1000)).astimezone()
    return local.strftime("%Y-%m-%d %H:%M:%S %z")


def overview(
    records: Records, counts: ExportCounts, pairs: Sequence[ExportedPair], thumbnails: Mapping[int, bytes]
) -> str:
    """Return the page.

    Args:
        records: Answers, alerts and lines of the journal.
        counts: What the export has.
        pairs: Pairs with their images, oldest first.
        thumbnails: JPEG data of a pair's first image by the pair's id.
    """
    kept = {(pair.id, pair.stamp_ns) for pair in pairs}
    body = [
        f"<h1>Scene memory: {_text(records.source)}</h1>",
        f'<p class="quiet">Exported {time_text(records.created_ns)}. {_summary(records, counts)}</p>',
        *(f'<p class="warning">{_text(warning)}</p>' for warning in records.warnings),
        *_section("Answers", (_answer(answer, kept) for answer in records.answers)),
        *_table(
            "Alerts",
            [(one.stamp_ns, one.camera, _alert_text(one.question, one.is_rising, one.p_yes)) for one in records.alerts],
        ),
        *_section(
            "Frames", (_pair(pair, thumbnails.get(pair.id, b"")) for pair in pairs), '<ul class="pairs">', "</ul>"
        ),
        *_table("Journal", [(one.stamp_ns, one.camera, one.caption) for one in records.lines]),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="content-security-policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">"
        f"<title>Scene memory</title><style>{_STYLE}</style></head><body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def _text(text: str) -> str:
    return html.escape(text)


def _summary(records: Records, counts: ExportCounts) -> str:
    period = [f"from {time_text(records.since_ns)}"] if records.since_ns else []
    period += [f"up to {time_text(records.until_ns)}"] if records.until_ns else []
    numbers = (
        f"{counts.pairs} pairs of frames ({counts.images} images), {counts.answers} answers, {counts.alerts} alerts, "
        f"{counts.lines} lines of the journal"
    )
    left = f" {counts.pairs_left} pairs left the memory during the export and are missing." if counts.pairs_left else ""
    return f"{numbers}{', ' if period else ''}{' '.join(period)}.{left}"


def _section(title: str, entries: Iterable[str], before: str = "", after: str = "") -> list[str]:
    shown = list(entries)
    return [f"<h2>{title}</h2>", before, *shown, after] if shown else []


def _table(title: str, rows: Sequence[tuple[int, str, str]]) -> list[str]:
    cells = (
        f"<tr><td>{time_text(stamp_ns)}</td><td>{_text(camera)}</td><td>{_text(text)}</td></tr>"
        for stamp_ns, camera, text in rows
    )
    return _section(title, cells, "<table><tr><th>Time</th><th>Camera</th><th>Text</th></tr>", "</table>")


def _alert_text(question: str, is_rising: bool, p_yes: float) -> str:  # noqa: FBT001
    return f"{question} {'Yes' if is_rising else 'No'} (probability {p_yes:.2f})"


def _answer(answer: ExportedAnswer, kept: Collection[tuple[int, int]]) -> str:
    best = ", ".join(_link(one, kept) for one in answer.evidence)
    camera = f" · {answer.camera}" if answer.camera else ""
    paragraphs = [
        ("text question", answer.question),
        ("text", answer.answer),
        ("text warning", answer.error),
        ("quiet", f"{time_text(answer.stamp_ns)}{camera}. Based on {len(answer.pair_ids)} pairs."),
        *(("warning", warning) for warning in answer.warnings),
    ]
    shown = "".join(f'<p class="{kind}">{_text(content)}</p>' for kind, content in paragraphs if content)
    return f"<article>{shown}{f'<p>Rests most on: {best}</p>' if best else ''}</article>"


def _link(evidence: Evidence, kept: Collection[tuple[int, int]]) -> str:
    """Return the time of a pair, as a link to its image if the page has it; a restarted node may use its id again."""
    share = f" ({evidence.relevance:.2f})" if evidence.relevance is not None else ""
    time = time_text(evidence.stamp_ns)
    if (evidence.pair_id, evidence.stamp_ns) not in kept:
        return f"{time}{share}, no longer kept"
    return f'<a href="#pair-{evidence.pair_id}">{time}</a>{share}'


def _pair(pair: ExportedPair, thumbnail: bytes) -> str:
    image = f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(thumbnail).decode()}">' if thumbnail else ""
    memories = " and ".join(name for name, holds in (("Star", pair.in_star), ("Stream", pair.in_stream)) if holds)
    mark = f"<br>★ {_text(pair.label)}" if pair.marked else ""
    place = f"<br>{_text(_place(pair))}" if pair.pose is not None else ""
    return (
        f'<li id="pair-{pair.id}">'
        f"{image}{time_text(pair.stamp_ns)}{mark}"
        f'<div class="quiet">{_text(pair.camera)} {pair.id}: {_text(pair.reason or "unremarkable")}, '
        f"score {pair.importance:.2f}, {memories or 'no longer kept'}{place}</div></li>"
    )


def _place(pair: ExportedPair) -> str:
    if pair.pose is None:
        return ""
    x, y, z = pair.pose.position
    return f"at x {x:.2f}, y {y:.2f}, z {z:.2f} m in {pair.pose.frame_id}"
