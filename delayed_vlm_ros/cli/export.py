"""``delayed-vlm export``: write the memory of a running ``scene_memory`` node into a folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from delayed_vlm_ros.cli import options, terminal
from delayed_vlm_ros.cli.ask import DISCOVERY_SEC, not_found_message
from delayed_vlm_ros.cli.interrupts import deferred_interrupt
from delayed_vlm_ros.cli.stamps import parse_stamp
from delayed_vlm_ros.cli.terminal import literal
from delayed_vlm_ros.errors import DelayedVlmError, ExportError, NodeNotFoundError
from delayed_vlm_ros.export.contents import ExportCounts, LeftPair, PairImages, Records
from delayed_vlm_ros.export.targets import FolderTarget
from delayed_vlm_ros.export.writer import PAGE, SESSION_FILE, write_export

if TYPE_CHECKING:
    from delayed_vlm_ros.export.contents import JournalLine
    from delayed_vlm_ros.msg import Alert
    from delayed_vlm_ros.ros.client import SceneMemoryClient

_OTHERS_SEC = 2.0  # after the service ask_scene, which belongs to the same node
_ALERTS_SEC = 1.0  # for the alerts that the node keeps for new subscribers
_MIN_TIMEOUT_SEC = 0.1


def export(
    folder: Annotated[Path, typer.Argument(help="Folder to make; it must not exist, or be empty.", show_default=False)],
    questions: options.Questions = None,
    camera: Annotated[str, typer.Option(help="Camera to export.", show_default="all")] = "",
    since: Annotated[
        str, typer.Option(help="Only frames from this time on: 10:30 or '2026-11-30 10:30'.", metavar="TIME")
    ] = "",
    until: Annotated[str, typer.Option(help="Only frames up to this time.", metavar="TIME")] = "",
    mcap: Annotated[
        bool, typer.Option("--mcap", help="Write session.mcap too, for Foxglove and rosbags.", show_default=False)
    ] = False,
    timeout: Annotated[float, typer.Option(help="Deadline of each question, in s.", min=_MIN_TIMEOUT_SEC)] = 60.0,
    namespace: options.Namespace = "/",
    as_json: options.Json = False,
) -> None:
    """Write frames (PNG), alerts, journal lines and answers (JSON), and a page (HTML) of a scene_memory node.

    The questions are asked about the exported time and cameras first. The page needs no other file and no network.
    The ROS environment variables, such as ROS_DOMAIN_ID, select the node.
    """
    limits_ns = parse_stamp("--since", since), parse_stamp("--until", until)
    if all(limits_ns) and limits_ns[0] > limits_ns[1]:
        raise ExportError(f"--since ({since}) is after --until ({until}): swap them")
    options.check_questions(questions or [])
    target = FolderTarget(folder)
    write: Callable[[Records, Iterable[PairImages | LeftPair], FolderTarget], ExportCounts] = write_export
    if mcap:  # a missing package is reported before anything is exported
        from delayed_vlm_ros.export.session_file import write_with_session_file as write  # noqa: PLC0415  optional
    # Requires ROS.
    from delayed_vlm_ros.ros.client import SceneMemoryClient  # noqa: PLC0415
    from delayed_vlm_ros.ros.memory_export import read_answers, read_pairs, read_stamps  # noqa: PLC0415
    from delayed_vlm_ros.ros.services.requests import ALL_CAMERAS  # noqa: PLC0415
    from delayed_vlm_ros.ros.watch_client import WatchClient  # noqa: PLC0415

    alerts: list[Alert] = []
    with SceneMemoryClient.connect(namespace) as client:
        watches = WatchClient(client, on_alert=alerts.append)
        try:
            if not client.wait_until(client.service_is_ready, DISCOVERY_SEC):
                raise NodeNotFoundError(not_found_message(f"service {client.service_name}", DISCOVERY_SEC))
            with (
                terminal.console(stderr=True).status("exporting") as status,
                deferred_interrupt() as interrupted,
                target,
            ):
                records = _records(client, camera, limits_ns, alerts)
                answers = read_answers(client, questions or [], camera, limits_ns, timeout, interrupted)
                records = replace(records, answers=answers)
                stamps_ns = read_stamps(client) if any(limits_ns) else {}
                pairs = read_pairs(client, camera or ALL_CAMERAS, limits_ns, stamps_ns, interrupted)
                counts = write(records, _reported(pairs, status.update), target)
        finally:
            watches.close()
    _show(folder, records, counts, mcap=mcap, as_json=as_json)


def _records(client: SceneMemoryClient, camera: str, limits_ns: tuple[int, int], alerts: list[Alert]) -> Records:
    """Return alerts and lines of the journal."""
    from delayed_vlm_ros.ros.journal_client import JournalClient  # noqa: PLC0415
    from delayed_vlm_ros.ros.memory_export import read_lines, to_alerts  # noqa: PLC0415
    from delayed_vlm_ros.ros.services.requests import ALL_CAMERAS  # noqa: PLC0415

    journal = JournalClient(client)
    warnings: list[str] = []
    lines: tuple[JournalLine, ...] = ()
    try:
        if not client.wait_until(journal.is_ready, _OTHERS_SEC):
            raise NodeNotFoundError("no service scene_memory/get_journal: update the node")
        lines, limitations = read_lines(journal, camera or ALL_CAMERAS, limits_ns)
        warnings += limitations
    except DelayedVlmError as error:
        warnings.append(f"the journal is missing: {error}")
    client.wait_until(lambda: False, _ALERTS_SEC)
    return Records(
        source=client.status_prefix.rstrip(": "),
        created_ns=time.time_ns(),
        since_ns=limits_ns[0],
        until_ns=limits_ns[1],
        alerts=to_alerts(alerts, camera or ALL_CAMERAS, limits_ns),
        lines=lines,
        warnings=tuple(warnings),
    )


def _reported(pairs: Iterable[PairImages | LeftPair], report: Callable[[str], None]) -> Iterator[PairImages | LeftPair]:
    for number, pair in enumerate(pairs, 1):
        report(f"exporting: {number} pairs of frames")
        yield pair


def _show(folder: Path, records: Records, counts: ExportCounts, *, mcap: bool, as_json: bool) -> None:
    failed = [f"no answer to '{one.question}': {one.error}" for one in records.answers if one.error]
    left = f"{counts.pairs_left} pairs left the memory during the export and are missing"
    warnings = [*records.warnings, *failed, *([left] if counts.pairs_left else [])]
    session = str(folder / SESSION_FILE) if mcap else ""
    if as_json:
        terminal.write_json({"folder": str(folder), "mcap": session, **asdict(counts), "warnings": warnings})
        return
    console = terminal.console()
    console.print(
        f"{counts.pairs} pairs of frames ({counts.images} images), {counts.answers} answers, {counts.alerts} alerts, "
        f"{counts.lines} journal lines: {literal(str(folder / PAGE))}",
        highlight=False,
        soft_wrap=True,
    )
    if session:
        console.print(f"for Foxglove and rosbags: {literal(session)}", highlight=False, soft_wrap=True)
    for warning in warnings:
        console.print(f"[yellow]warning:[/] {literal(warning)}", highlight=False, soft_wrap=True)
