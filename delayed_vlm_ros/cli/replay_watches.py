"""The table of watches that ``delayed-vlm replay`` prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from delayed_vlm_ros.cli import terminal

_NO_VALUE = "–"
_MIN_NAME_WIDTH = 10  # characters
_COLUMNS = ("alerts", "precision", "recall", "delay", "false/h", "unknown", "checks", "device s/h")  # fit 80 characters


def watch_table(result: Mapping[str, Any]) -> Table:
    """Return a table of the watches in a result, with their totals if there are several.

    Args:
        result: Result of a recording.
    """
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("  watch", overflow="fold", min_width=_MIN_NAME_WIDTH)
    for column in _COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    watches = result["watches"]
    for watch in watches:
        alerts = sum(alert["edge"] == "rising" for alert in watch["alerts"])
        table.add_row(f"  {terminal.literal(watch['name'])}", *_cells(watch, alerts))
    if len(watches) > 1:
        table.add_row("  all", *_cells(result["watch_summary"], result["watch_summary"]["alerts"]), style="bold")
    return table


def _cells(watch: Mapping[str, Any], alerts: int) -> list[str]:
    scores = watch["scores"] or {}
    return [
        str(alerts),
        _share(scores.get("precision")),
        _share(scores.get("recall")),
        _seconds(scores.get("delay_sec")),
        _number(scores.get("false_alarms_per_hour")),
        _seconds(watch["unknown_sec"]),
        str(watch["checks"]),
        _number(watch["device_sec_per_hour"]),
    ]


def _share(share: float | None) -> str:
    return _NO_VALUE if share is None else f"{share:.0%}"


def _seconds(value: float | None) -> str:
    return _NO_VALUE if value is None else f"{value:.1f} s"


def _number(value: float | None) -> str:
    return _NO_VALUE if value is None else f"{value:.1f}"
