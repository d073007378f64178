"""Alerts and watches as resources, with notices of their changes."""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import dataclass, field

import anyio
from mcp.server import ServerRequestContext
from mcp.server.session import ServerSession
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ResourceUpdated
from mcp.shared.exceptions import MCPError
from mcp.types import INTERNAL_ERROR, INVALID_PARAMS, Resource, ResourceTemplate, TextResourceContents

from delayed_vlm_ros.agents.bridge import NodeBridge
from delayed_vlm_ros.agents.conversion import ALERTS_URI, WATCHES_URI, to_alert, watch_of_uri
from delayed_vlm_ros.agents.tools import list_watches
from delayed_vlm_ros.errors import DelayedVlmError

MAX_SUBSCRIBERS = 64
"""Largest number of connections with subscriptions; the oldest ones give way."""

_JSON = "application/json"
_NOTICE_SEC = 1.0

RESOURCES = (
    Resource(
        uri=ALERTS_URI,
        name="alerts",
        title="Alerts",
        description="The newest alerts of all watches, oldest first. Updated with each alert.",
        mime_type=_JSON,
    ),
    Resource(
        uri=WATCHES_URI,
        name="watches",
        title="Watches",
        description="All watches with their present answers. Updated when a watch changes, is added or ends.",
        mime_type=_JSON,
    ),
)
"""Resources that are always there."""

TEMPLATES = (
    ResourceTemplate(
        uri_template=f"{ALERTS_URI}/{{watch}}",
        name="alerts_of_watch",
        title="Alerts of a watch",
        description="The newest alerts of one watch; its alerts_uri is in the result of watch and list_watches.",
        mime_type=_JSON,
    ),
)
"""Resources by name of the watch."""


def read_resource(bridge: NodeBridge, uri: str) -> TextResourceContents:
    """Return a resource as JSON; blocks.

    Raises:
        MCPError: The resource is unknown, or the node does not run.
    """
    try:
        watched = list_watches(bridge)
    except DelayedVlmError as error:
        raise MCPError(INTERNAL_ERROR, str(error)) from error
    if uri == WATCHES_URI:
        return _contents(uri, {"watches": [one.model_dump() for one in watched.watches]})
    alerts = [to_alert(alert) for alert in bridge.alerts]
    name = watch_of_uri(uri)
    if name is not None:
        alerts = [alert for alert in alerts if alert.watch == name]
        if not alerts and name not in {one.name for one in watched.watches}:
            raise MCPError(INVALID_PARAMS, f"no watch '{name}', and no alerts of one: see the tool list_watches")
    elif uri != ALERTS_URI:
        raise _unknown(uri)
    return _contents(uri, {"alerts": [alert.model_dump() for alert in alerts]})


def _contents(uri: str, content: object) -> TextResourceContents:
    return TextResourceContents(uri=uri, mime_type=_JSON, text=json.dumps(content, ensure_ascii=False))


def _unknown(uri: str) -> MCPError:
    return MCPError(
        INVALID_PARAMS,
        f"unknown resource '{uri}': the resources are {ALERTS_URI}, {ALERTS_URI}/{{watch}}, {WATCHES_URI}",
    )


@dataclass
class _Subscriber:
    """A connection of a protocol version with ``resources/subscribe``."""

    connection: object  # kept: while it exists, no other connection has its id
    session: ServerSession
    uris: set[str] = field(default_factory=set)


class Notices:
    """Sends notices of changed resources: to the streams of ``subscriptions/listen``, and to older clients.

    Everything runs in the server's event loop.

    Attributes:
        listen: Handler of ``subscriptions/listen``.
    """

    def __init__(self) -> None:
        self._bus = InMemorySubscriptionBus()
        self.listen = ListenHandler(self._bus)
        self._subscribers: OrderedDict[int, _Subscriber] = OrderedDict()

    def subscribe(self, context: ServerRequestContext[NodeBridge], uri: str) -> None:
        """Add a subscription of an older client.

        Raises:
            MCPError: The resource is unknown.
        """
        if uri not in (ALERTS_URI, WATCHES_URI) and not watch_of_uri(uri):
            raise _unknown(uri)
        connection = context.session.client_params
        subscriber = self._subscribers.setdefault(id(connection), _Subscriber(connection, context.session))
        subscriber.uris.add(uri)
        while len(self._subscribers) > MAX_SUBSCRIBERS:
            self._subscribers.popitem(last=False)

    def unsubscribe(self, context: ServerRequestContext[NodeBridge], uri: str) -> None:
        """Remove a subscription of an older client, if there is one."""
        subscriber = self._subscribers.get(id(context.session.client_params))
        if subscriber is not None:
            subscriber.uris.discard(uri)

    async def publish(self, uri: str) -> None:
        """Send a notice to all subscribers of a resource. A client that does not read delays no other one for long."""
        await self._bus.publish(ResourceUpdated(uri=uri))
        for subscriber in list(self._subscribers.values()):
            if uri in subscriber.uris:
                with anyio.move_on_after(_NOTICE_SEC):
                    await subscriber.session.send_resource_updated(uri)
