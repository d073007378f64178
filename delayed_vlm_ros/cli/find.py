"""``delayed-vlm find``: search the memory of a running ``scene_memory`` node for moments."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from delayed_vlm_ros.cli import options, output, terminal
from delayed_vlm_ros.cli.ask import DISCOVERY_SEC, not_found_message
from delayed_vlm_ros.cli.interrupts import deferred_interrupt
from delayed_vlm_ros.cli.stamps import parse_stamp, stamp_text
from delayed_vlm_ros.cli.terminal import literal
from delayed_vlm_ros.errors import AskError, NodeNotFoundError
from delayed_vlm_ros.inference.moments import DEFAULT_MAX_MOMENTS, MAX_MOMENTS, does_fit
from delayed_vlm_ros.time import nanoseconds_of

if TYPE_CHECKING:
    from delayed_vlm_ros.msg import Moment
    from delayed_vlm_ros.srv import FindMoments

_MIN_TIMEOUT_SEC = 0.1
_TIME = "a time such as 10:30 or '2026-11-30 10:30'"


def find(
    description: Annotated[str, typer.Argument(help="What to find, or a yes/no question that ends with '?'.")],
    camera: Annotated[str, typer.Option(help="Camera to search; * for all cameras.", show_default="the first")] = "",
    since: Annotated[str, typer.Option(help=f"Search only frames from this time on: {_TIME}.", metavar="TIME")] = "",
    until: Annotated[str, typer.Option(help="Search only frames up to this time.", metavar="TIME")] = "",
    max_moments: Annotated[
        int, typer.Option("--max", help="Largest number of moments.", min=1, max=MAX_MOMENTS)
    ] = DEFAULT_MAX_MOMENTS,
    timeout: Annotated[
        float,
        typer.Option(
            help="Deadline, in s, including the time to find the node and to load a model.", min=_MIN_TIMEOUT_SEC
        ),
    ] = 120.0,
    namespace: options.Namespace = "/",
    as_json: options.Json = False,
) -> None:
    """Find the moments that fit a description, best first, in the memory of a running scene_memory node.

    The ROS environment variables, such as ROS_DOMAIN_ID, select the node.
    """
    since_ns, until_ns = parse_stamp("--since", since), parse_stamp("--until", until)
    # Requires ROS.
    from delayed_vlm_ros.ros.client import SceneMemoryClient  # noqa: PLC0415

    deadline = time.monotonic() + timeout
    with SceneMemoryClient.connect(namespace) as client:
        discovery_sec = min(DISCOVERY_SEC, timeout)
        if not client.wait_until(client.search_is_ready, discovery_sec):
            raise NodeNotFoundError(not_found_message("service scene_memory/find_moments", discovery_sec))
        with terminal.console(stderr=True).status("searching"), deferred_interrupt() as interrupted:
            response = client.find_moments(
                description,
                camera=camera,
                since_ns=since_ns,
                until_ns=until_ns,
                max_moments=max_moments,
                timeout_sec=max(_MIN_TIMEOUT_SEC, round(deadline - time.monotonic(), 1)),
                cancelled=interrupted,
            )
    if as_json:
        terminal.write_json(found_json(response))
    elif response.success:
        _show(response)
    if not response.success:
        raise AskError(response.error_msg)


def found_json(response: FindMoments.Response) -> dict[str, Any]:
    """Return the object that ``delayed-vlm find --json`` prints."""
    return {
        "success": response.success,
        "error": response.error_msg,
        "question": response.question,
        "pairs_searched": response.pairs_searched,
        "journal_lines_searched": response.journal_lines_searched,
        "warnings": list(response.warnings),
        "moments": [moment_json(moment) for moment in response.moments],
    }


def moment_json(moment: Moment) -> dict[str, Any]:
    """Return a ``Moment`` message without its thumbnail."""
    position = moment.pose.pose.position
    return {
        "score": round(moment.score, 4),
        "stamp": nanoseconds_of(moment.header.stamp) / 1e9,
        "end_stamp": nanoseconds_of(moment.end_stamp) / 1e9,
        "camera": moment.camera,
        "id": moment.id,
        "journal_id": moment.journal_id,
        "caption": moment.caption,
        "reason": moment.reason,
        "label": moment.label,
        "frame_id": moment.pose.header.frame_id if moment.pose_valid else "",
        "position": [position.x, position.y, position.z] if moment.pose_valid else None,
    }


def _show(response: FindMoments.Response) -> None:
    console = terminal.console()
    if response.question:
        console.print(f"[bold]Q:[/] {literal(response.question)}", highlight=False, soft_wrap=True)
    if response.moments:
        console.print(_table(response.moments), highlight=False)
    fitting = sum(map(_fits, response.moments))
    journal = f" and {response.journal_lines_searched} lines of the journal" if response.journal_lines_searched else ""
    console.print(
        f"{fitting} {'moment fits' if fitting == 1 else 'moments fit'}; {response.pairs_searched} key frames{journal} "
        "searched",
        highlight=False,
        soft_wrap=True,
    )
    output.show_warnings(console, response.warnings)


def _table(moments: list[Moment]) -> Table:
    table = Table(box=None, pad_edge=False)
    cameras = {moment.camera for moment in moments}
    headings = ("score", "time", *(["camera"] if len(cameras) > 1 else []), "key frame", "position", "")
    for heading in headings:
        table.add_column(heading, overflow="fold", justify="right" if heading == "score" else "left")
    for moment in moments:
        camera = [literal(moment.camera)] if len(cameras) > 1 else []
        frame = str(moment.id) if moment.id else "journal"
        texts = literal("; ".join(filter(None, (moment.label, moment.caption or moment.reason))))
        cells = (f"{moment.score:.2f}", _time(moment), *camera, frame, literal(_position(moment)), texts)
        table.add_row(*cells, style="" if _fits(moment) else "dim")
    return table


def _fits(moment: Moment) -> bool:
    return does_fit(moment.score, is_journal_line=bool(moment.journal_id))


def _time(moment: Moment) -> str:
    begin, end = (stamp_text(nanoseconds_of(stamp)) for stamp in (moment.header.stamp, moment.end_stamp))
    return begin if begin == end else f"{begin} – {end}"


def _position(moment: Moment) -> str:
    position = moment.pose.pose.position
    if not moment.pose_valid or not all(map(math.isfinite, (position.x, position.y))):
        return ""
    return f"{position.x:.1f}, {position.y:.1f} ({moment.pose.header.frame_id})"
