"""``delayed-vlm journal``: show the lines of the journal of a running ``scene_memory`` node, or remove them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from delayed_vlm_ros.cli import options, output, terminal
from delayed_vlm_ros.cli.ask import DISCOVERY_SEC, not_found_message
from delayed_vlm_ros.cli.find import moment_json
from delayed_vlm_ros.cli.stamps import parse_stamp, stamp_text
from delayed_vlm_ros.cli.terminal import literal
from delayed_vlm_ros.errors import AskError, NodeNotFoundError
from delayed_vlm_ros.time import nanoseconds_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from delayed_vlm_ros.msg import Moment
    from delayed_vlm_ros.ros.journal_client import JournalClient


def journal(
    camera: Annotated[str, typer.Option(help="Camera of the lines.", show_default="all")] = "",
    since: Annotated[
        str,
        typer.Option(help="Only lines about frames from this time on: 10:30 or '2026-11-30 10:30'.", metavar="TIME"),
    ] = "",
    until: Annotated[str, typer.Option(help="Only lines about frames up to this time.", metavar="TIME")] = "",
    max_lines: Annotated[int, typer.Option("--max", help="Largest number of lines, the newest ones.", min=1)] = 20,
    clear: Annotated[bool, typer.Option("--clear", help="Remove all lines from the node's disk.")] = False,
    namespace: options.Namespace = "/",
    as_json: options.Json = False,
) -> None:
    """Show what a running scene_memory node has noted about frames that it no longer keeps.

    The newest line is the last one. 'delayed-vlm find' searches the lines. The ROS environment variables, such as
    ROS_DOMAIN_ID, select the node.
    """
    since_ns, until_ns = parse_stamp("--since", since), parse_stamp("--until", until)
    # Requires ROS.
    from delayed_vlm_ros.ros.client import SceneMemoryClient  # noqa: PLC0415
    from delayed_vlm_ros.ros.journal_client import JournalClient  # noqa: PLC0415

    with SceneMemoryClient.connect(namespace) as client:
        lines = JournalClient(client)
        if not client.wait_until(lines.is_ready, DISCOVERY_SEC):
            raise NodeNotFoundError(not_found_message("service scene_memory/get_journal", DISCOVERY_SEC))
        if clear:
            _clear(lines, as_json=as_json)
        else:
            limits = {"camera": camera, "since_ns": since_ns, "until_ns": until_ns}
            _list(lines, max_lines, limits, as_json=as_json)


def _clear(client: JournalClient, *, as_json: bool) -> None:
    response = client.clear_journal()
    if not response.success:
        raise AskError(response.message)
    if as_json:
        terminal.write_json({"success": True, "message": response.message})
    else:
        terminal.write(response.message)


def _list(client: JournalClient, max_lines: int, limits: dict[str, Any], *, as_json: bool) -> None:
    lines: list[Moment] = []
    left, warnings, error = 0, [], ""
    for response in client.pages(max_lines, **limits):
        lines += response.lines
        left, warnings, error = response.lines_left, list(response.warnings), response.error_msg
    if as_json:
        shown = [moment_json(line) for line in reversed(lines)]
        terminal.write_json(
            {"success": not error, "error": error, "lines": shown, "lines_left": left, "warnings": warnings}
        )
    elif not error:
        _show(list(reversed(lines)), left, warnings)
    if error:
        raise AskError(error)


def _show(lines: Sequence[Moment], left: int, warnings: Sequence[str]) -> None:
    console = terminal.console()
    if lines:
        console.print(_table(lines), highlight=False)
    earlier = (
        f"; {left} earlier {'line is' if left == 1 else 'lines are'} not shown: use --max or --until" if left else ""
    )
    count = "1 line" if len(lines) == 1 else f"{len(lines)} lines"
    console.print(f"{count}{earlier}", highlight=False, soft_wrap=True)
    output.show_warnings(console, warnings)


def _table(lines: Sequence[Moment]) -> Table:
    table = Table(box=None, pad_edge=False)
    cameras = {line.camera for line in lines}
    headings = ("line", "time", *(["camera"] if len(cameras) > 1 else []), "why kept", "caption")
    for heading in headings:
        table.add_column(heading, overflow="fold", justify="right" if heading == "line" else "left")
    for line in lines:
        camera = [literal(line.camera)] if len(cameras) > 1 else []
        caption = "; ".join(filter(None, (line.label, line.caption)))
        time = stamp_text(nanoseconds_of(line.header.stamp))
        table.add_row(str(line.journal_id), time, *camera, literal(line.reason), literal(caption))
    return table
