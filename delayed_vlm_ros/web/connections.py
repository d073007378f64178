"""Bound of the page's connections: their number, the time to send a request, and the time to receive a response.

uvicorn limits neither, and neither does another ASGI server: an idle connection would keep a file descriptor for ever,
and without descriptors asyncio repeats ``accept`` and an error message without pause.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import socket
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

from uvicorn.protocols.http.h11_impl import H11Protocol

ACCEPTED_AT_ONCE = 8
"""Maximum number of connections that the event loop accepts before it ends old ones."""

CONNECTION = "connection"
"""Key of the ``Connection`` in the state of an ASGI scope."""

_MIN_CONNECTIONS = 4
_DESCRIPTORS = Path("/proc/self/fd")
_TCP_INFO_BYTES = 128
_BYTES_ACKED_OFFSET = 120  # in Linux's struct tcp_info
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\ncontent-length: 59\r\nretry-after: 10\r\n"
    b"connection: close\r\n\r\nThe page has too many visitors: try again in some seconds.\n"
)


@dataclass(frozen=True)
class VisitorLimits:
    """Limits of the page's server.

    Attributes:
        connections: Maximum number of connections. Half of the free file descriptors is another maximum.
        open_pages: Maximum number of browser tabs with the page. Three quarters of the connections is another maximum.
        unopened_pages: Maximum number of pages in memory whose browser has not opened a websocket.
        request_sec: Maximum time from the end of a response, or from the start of a connection, to the end of the next
            request's headers, in seconds.
        unsent_sec: Maximum time for which a visitor may leave data unread, in seconds.
        check_sec: Time between two checks, in seconds.
    """

    connections: int = 256
    open_pages: int = 32
    unopened_pages: int = 32
    request_sec: float = 10.0
    unsent_sec: float = 60.0
    check_sec: float = 1.0


DEFAULT_LIMITS = VisitorLimits()


class ConnectionGuard:
    """Ends connections that exceed the limits. Belongs to one event loop.

    A new connection has priority: where there is no room for it, the connection that has been waiting longest without
    a request is closed, of the address with the most such connections.

    Args:
        limits: The limits.
        clock: Steady clock, in seconds.
    """

    def __init__(self, limits: VisitorLimits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock
        self._connections: list[Connection] = []

    @property
    def has_room_for_page(self) -> bool:
        """Whether another browser tab may open the page."""
        open_pages = sum(connection.is_page and not connection.is_closed for connection in self._connections)
        return open_pages < min(self._limits.open_pages, self._max_connections() * 3 // 4)

    def protocol(self) -> type[asyncio.Protocol]:
        """Return the factory of the HTTP protocol for uvicorn."""
        return cast("type[asyncio.Protocol]", partial(_GuardedProtocol, self))

    async def watch(self, report: Callable[[], None] = lambda: None) -> None:
        """Check the connections until cancelled. A defect of a check is logged and does not end the checks.

        Args:
            report: Called after each check.
        """
        while True:
            await asyncio.sleep(self._limits.check_sec)
            try:
                self.check()
                report()
            except Exception:
                logging.getLogger("asyncio").exception("checking the page's connections failed")

    def check(self) -> None:
        """End the connections that took too long."""
        now = self._clock()
        self._connections = [connection for connection in self._connections if not connection.is_closed]
        for connection in self._connections:
            connection.update(now)
            waiting_sec = now - connection.unchanged_since if connection.is_waiting else 0.0
            if waiting_sec > self._limits.request_sec or now - connection.sent_at > self._limits.unsent_sec:
                connection.end()

    def add(self, protocol: _GuardedProtocol) -> Connection:
        """Make room for a new connection, or refuse it."""
        new = Connection(protocol, self._clock())
        self._connections = [connection for connection in self._connections if not connection.is_closed]
        # Counted before the victim is chosen: its descriptor is free a moment later.
        excess = sum(not connection.is_ending for connection in self._connections) + 1 - self._max_connections()
        self._connections.append(new)
        for _ in range(excess):
            victim = self._victim(new)
            if victim is new:
                new.refuse()
                break
            victim.end()
        return new

    def _victim(self, new: Connection) -> Connection:
        now = self._clock()
        others = [connection for connection in self._connections if connection is not new and not connection.is_ending]
        for connection in others:
            connection.update(now)
        waiting = [connection for connection in others if connection.is_waiting]
        if waiting:
            counts = Counter(connection.address for connection in waiting)
            return min(waiting, key=lambda connection: (-counts[connection.address], connection.unchanged_since))
        slow = [connection for connection in others if not connection.is_page and connection.unsent]
        return min(slow, key=lambda connection: connection.sent_at, default=new)

    def _max_connections(self) -> int:
        """Return the maximum number of connections for the file descriptors that the rest of the process leaves."""
        own = sum(not connection.is_closed for connection in self._connections)
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if limit == resource.RLIM_INFINITY:
            return self._limits.connections
        try:
            free = limit - (sum(1 for _ in _DESCRIPTORS.iterdir()) - own)
        except OSError:  # no descriptor is left to look
            free = own
        # A response may need a descriptor for its file; the node needs some as well.
        return max(_MIN_CONNECTIONS, min(self._limits.connections, free // 2))


class Connection:
    """A connection with the times of its latest changes."""

    def __init__(self, protocol: _GuardedProtocol, now: float) -> None:
        self.address = protocol.client[0] if protocol.client else ""
        self.unchanged_since = self.sent_at = now
        self.is_page = False
        self._protocol = protocol
        self._transport = protocol.transport
        self._state: tuple[bool, object] = (True, None)
        self._sent: tuple[int, int] = (0, 0)

    def open_page(self) -> bool:
        """Note that this is the websocket of an open page; return False if there are too many."""
        self.is_page = self._protocol.has_room_for_page
        return self.is_page

    @property
    def is_waiting(self) -> bool:
        """Whether the visitor has sent no complete request since the last response, and has no page open."""
        return not self.is_page and self._protocol.is_waiting

    @property
    def unsent(self) -> int:
        """Bytes that the visitor has not accepted."""
        return self._transport.get_write_buffer_size()

    @property
    def is_closing(self) -> bool:
        """Whether the visitor has left, or is about to be disconnected."""
        return self._transport.is_closing()

    @property
    def is_closed(self) -> bool:
        """Whether its file descriptor is free."""
        return self._transport.is_closing() and self._transport.get_extra_info("socket").fileno() == -1

    @property
    def is_ending(self) -> bool:
        """Whether its file descriptor is free now or in a moment."""
        return self._transport.is_closing() and not self.unsent

    def update(self, now: float) -> None:
        """Note changes since the last call."""
        state = self.is_waiting, self._protocol.cycle
        if state != self._state:
            self._state, self.unchanged_since = state, now
        unsent, acknowledged = self.unsent, self._acknowledged()
        previously_unsent, previously_acknowledged = self._sent
        if not unsent or unsent < previously_unsent or acknowledged > previously_acknowledged:
            self.sent_at = now
        self._sent = unsent, acknowledged

    def _acknowledged(self) -> int:
        """Return how many bytes the visitor has received; 0 if this system does not count them.

        The write buffer alone shows no progress for long: the system takes data from it in blocks of up to megabytes.
        """
        try:
            details = self._transport.get_extra_info("socket").getsockopt(
                socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES
            )
            return int(struct.unpack_from("=Q", details, _BYTES_ACKED_OFFSET)[0])
        except (OSError, struct.error):
            return 0

    def refuse(self) -> None:
        """Answer that there is no room."""
        self._transport.write(_BUSY)
        self._transport.close()

    def end(self) -> None:
        """Close the connection, without what the visitor does not accept."""
        if self.unsent:
            self._transport.abort()
        else:
            self._transport.close()


class _GuardedProtocol(H11Protocol):
    """uvicorn's HTTP protocol for a bounded number of connections."""

    def __init__(self, guard: ConnectionGuard, **settings: Any) -> None:
        super().__init__(**settings)
        self._guard = guard

    @property
    def is_waiting(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def has_room_for_page(self) -> bool:
        """Whether another browser tab may open the page."""
        return self._guard.has_room_for_page

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, CONNECTION: self._guard.add(self)}

    def data_received(self, data: bytes) -> None:
        if not self.transport.is_closing():
            super().data_received(data)

    def handle_websocket_upgrade(self, event: Any) -> None:
        if self.has_room_for_page:
            super().handle_websocket_upgrade(event)
        else:
            self.app_state[CONNECTION].refuse()


def handle_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log an error of the event loop; in one sentence if the process or the system has no file descriptor left."""
    error = context.get("exception")
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        logging.getLogger("asyncio").warning(
            "new visitors wait (%s): raise the limit of open files (ulimit -n)", error.strerror
        )
    else:
        loop.default_exception_handler(context)
