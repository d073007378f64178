"""``delayed-vlm watch``: follow a standing question on a running ``scene_memory`` node."""

from __future__ import annotations

import secrets
import signal
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from delayed_vlm_ros.cli import options, terminal
from delayed_vlm_ros.cli.ask import DISCOVERY_SEC, not_found_message
from delayed_vlm_ros.cli.interrupts import deferred_interrupt
from delayed_vlm_ros.cli.terminal import is_unicode
from delayed_vlm_ros.cli.watch_changes import (
    Change,
    WatchChanges,
    change_json,
    settings_text,
    show_change,
    show_watches,
    state_json,
)
from delayed_vlm_ros.errors import AskError, BadRequestError, NodeNotFoundError
from delayed_vlm_ros.text import escaped, escaped_json
from delayed_vlm_ros.watches import Gate, Watch
from delayed_vlm_ros.watches.watch import MAX_NAME_CHARACTERS, MIN_PERIOD_SEC

if TYPE_CHECKING:
    from delayed_vlm_ros.msg import NodeStats, WatchSettings
    from delayed_vlm_ros.ros.client import SceneMemoryClient
    from delayed_vlm_ros.ros.watch_client import WatchClient

_ALL_FRAMES = -1.0  # last_sec in a message; 0 is the default there
_PERIOD_SEC = 0.25  # between two looks at what has arrived
_SILENT_SEC = 5.0  # without a report of the node, which reports once per second
_MISSING_SEC = 5.0  # without the watch in the node's list, as while a restarted node restores it
_REMOVE_TIMEOUT_SEC = 3.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def watch(
    question: Annotated[str, typer.Argument(help="Yes/no question in plain text.", show_default=False)] = "",
    camera: Annotated[str, typer.Option(help="Camera to ask about.", show_default="the first")] = "",
    last: Annotated[
        float, typer.Option(help="Seconds before the newest frame to ask about; 0 for all frames.", min=0)
    ] = Watch.last_sec,
    every: Annotated[
        float, typer.Option(help="Shortest time between two checks, in s.", min=MIN_PERIOD_SEC)
    ] = Watch.period_sec,
    gate: Annotated[
        Gate,
        typer.Option(
            help="Check always, only after a change of the view, or only after a new key frame in Star memory."
        ),
    ] = Watch.gate,
    threshold: Annotated[
        float, typer.Option(help="Probability of yes from which a check counts as yes.", min=0.01, max=0.99)
    ] = Watch.threshold,
    hold: Annotated[
        float, typer.Option(help="Time for which all checks must count as yes, in s.", min=0)
    ] = Watch.hold_sec,
    confirm: Annotated[
        tuple[int, int],
        typer.Option(
            help="Checks of the last ones that must count as yes; 1 1: the first yes suffices.", metavar="N OF"
        ),
    ] = (Watch.yes_checks, Watch.of_checks),
    cooldown: Annotated[
        float, typer.Option(help="Shortest time between two alerts, in s.", min=0)
    ] = Watch.cooldown_sec,
    once: Annotated[bool, typer.Option("--once", help="End with the first yes.")] = False,
    name: Annotated[str, typer.Option(help="Name of the watch.", show_default="from the question")] = "",
    keep: Annotated[bool, typer.Option("--keep", help="Leave the watch on the node at the end.")] = False,
    list_all: Annotated[bool, typer.Option("--list", help="Show all watches of the node.")] = False,
    remove: Annotated[str, typer.Option(help="Remove the watch of this name.", metavar="NAME")] = "",
    namespace: options.Namespace = "/",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each change as one JSON object on a line, and nothing else.")
    ] = False,
) -> None:
    """Let a running scene_memory node ask a yes/no question again and again, and show each change.

    Ctrl-C removes the watch. The ROS environment variables, such as ROS_DOMAIN_ID, select the node.
    """
    if (bool(question) + list_all + bool(remove)) != 1:
        raise BadRequestError("give either a question, or --list, or --remove NAME")
    if not 1 <= confirm[0] <= confirm[1]:
        raise BadRequestError(f"--confirm must be like '2 3' (2 of the last 3 checks), got '{confirm[0]} {confirm[1]}'")
    # Requires ROS.
    from delayed_vlm_ros.msg import WatchSettings  # noqa: PLC0415
    from delayed_vlm_ros.ros.client import SceneMemoryClient  # noqa: PLC0415
    from delayed_vlm_ros.ros.watch_client import WatchClient  # noqa: PLC0415

    with SceneMemoryClient.connect(namespace) as client:
        name = name or _default_name(question, keep=keep)
        changes = WatchChanges(name)
        watches = WatchClient(client, on_alert=changes.add_alert)
        try:
            if not client.wait_until(watches.is_ready, DISCOVERY_SEC):
                raise NodeNotFoundError(not_found_message(f"watches of {client.status_prefix.rstrip(': ')}"))
            if list_all:
                _list(watches, as_json=as_json)
            elif remove:
                _remove(watches, remove)
                terminal.write(f"removed watch '{remove}'", stderr=as_json)
            else:
                settings = WatchSettings(
                    name=name,
                    question=question,
                    camera=camera,
                    last_sec=last or _ALL_FRAMES,
                    period_sec=every,
                    gate=list(Gate).index(gate),
                    threshold=threshold,
                    hold_sec=hold,
                    yes_checks=confirm[0],
                    of_checks=confirm[1],
                    cooldown_sec=cooldown,
                    once=once,
                )
                _Following(client, watches, changes, keep=keep, as_json=as_json).run(settings)
        finally:
            watches.close()


def _default_name(question: str, *, keep: bool) -> str:
    """Return the question, with random digits unless the watch stays: everybody may then ask it."""
    suffix = "" if keep else f" {secrets.token_hex(2)}"
    return escaped(question.strip())[: MAX_NAME_CHARACTERS - len(suffix)].strip() + suffix


def _list(watches: WatchClient, *, as_json: bool) -> None:
    states = watches.list_watches().watches
    if as_json:
        terminal.write_json({"watches": [state_json(state) for state in states]})
    else:
        show_watches(terminal.console(), states)


def _remove(watches: WatchClient, name: str, timeout_sec: float = DISCOVERY_SEC) -> None:
    response = watches.unwatch(name, timeout_sec=timeout_sec)
    if not response.success:
        raise AskError(response.error_msg)


class _Following:
    """Adds a watch, shows its changes until the end, and removes it.

    Args:
        client: Client of the node.
        watches: Client of its watches.
        changes: Changes of the watch.
        keep: Whether to leave the watch on the node.
        as_json: Whether to show the changes as JSON.
    """

    def __init__(
        self, client: SceneMemoryClient, watches: WatchClient, changes: WatchChanges, *, keep: bool, as_json: bool
    ) -> None:
        self._client = client
        self._watches = watches
        self._changes = changes
        self._keep = keep
        self._as_json = as_json
        self._is_present = True
        self._present_at = self._reported_at = 0.0
        self._report: NodeStats | None = None
        self._has_warned = False
        self._shown_warnings: set[str] = set()

    def run(self, settings: WatchSettings) -> None:
        """Follow a watch until a signal, its end, or its removal.

        Raises:
            AskError: The node refuses the watch, or no longer has it.
            NodeNotFoundError: The node does not respond.
        """
        with deferred_interrupt(_SIGNALS) as interrupted:
            existed = settings.name in {state.settings.name for state in self._watches.list_watches().watches}
            response = self._watches.watch(settings)
            if not response.success:
                raise AskError(response.error_msg)
            keeps = self._keep or existed
            end = "the watch was on the node already and stays" if existed else "the watch stays at the end"
            self._present_at = self._reported_at = time.monotonic()
            self._is_present = True
            try:
                self._introduce(response.state.settings, end if keeps else "Ctrl-C removes the watch")
                self._changes.add_states([response.state])
                self._follow(interrupted, once=settings.once)
            finally:
                if self._is_present and not keeps:
                    _remove(self._watches, settings.name, _REMOVE_TIMEOUT_SEC)
                    terminal.write(f"removed watch '{settings.name}'", stderr=True)

    def _introduce(self, settings: WatchSettings, end: str) -> None:
        if self._as_json:
            return
        console = terminal.console()
        console.print(f"[bold]Q:[/] {terminal.literal(settings.question)}", highlight=False, soft_wrap=True)
        console.print(f"   {settings_text(settings)}; {end}", highlight=False, soft_wrap=True)

    def _follow(self, interrupted: Callable[[], bool], *, once: bool) -> None:
        while not interrupted():
            self._client.wait_until(interrupted, _PERIOD_SEC)
            self._look(time.monotonic())
            changes = self._changes.take(time.monotonic())
            for change in changes:
                self._show(change)
            self._warn(self._overdue() or self._changes.warning)
            if self._changes.has_ended or (once and any(change.is_rising for change in changes)):
                return
            if not self._is_present:
                raise AskError(
                    "the node no longer has the watch: it was restarted, or somebody has removed it: add it once more"
                )

    def _look(self, now: float) -> None:
        """Note the newest states, and how long the node or the watch has been missing."""
        report = self._client.node_statistics
        if report is not self._report:
            self._report, self._reported_at = report, now
        silent_sec = now - self._reported_at
        self._changes.interruption = f"no report of the node for {_SILENT_SEC:g} s" if silent_sec > _SILENT_SEC else ""
        if self._watches.states is None or self._changes.add_states(self._watches.states):
            self._present_at = now
        self._is_present = now - self._present_at < _MISSING_SEC

    def _overdue(self) -> str:
        """Return why the newest state is old: the watch is overdue; empty if it is not."""
        # Requires ROS.
        from diagnostic_msgs.msg import DiagnosticStatus  # noqa: PLC0415

        status = self._client.diagnostics.get(f"{self._client.status_prefix}watch {self._changes.name}")
        return str(status.message) if status is not None and status.level == DiagnosticStatus.STALE else ""

    def _warn(self, warning: str) -> None:
        """Show a warning about rare checks once; the numbers in it change all the time."""
        if warning and not self._has_warned:
            self._has_warned = True
            terminal.write(f"warning: {warning}", stderr=True)

    def _show(self, change: Change) -> None:
        if self._as_json:
            terminal.write(
                escaped_json(change_json(change), ascii_only=not is_unicode(sys.stdout.encoding), indent=None)
            )
        else:
            show_change(terminal.console(), change, self._shown_warnings)
