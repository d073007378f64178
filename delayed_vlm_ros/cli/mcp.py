"""``delayed-vlm mcp``: serve a running ``scene_memory`` node to language-model agents."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from delayed_vlm_ros.cli import options, terminal
from delayed_vlm_ros.errors import BadRequestError

_TOKEN_VARIABLE = "DELAYED_VLM_MCP_TOKEN"  # noqa: S105  the name of the variable, not a token
_ADDRESS = "127.0.0.1"
_PORT = 8090


def mcp(
    http: Annotated[
        bool, typer.Option("--http", help="Serve over streamable HTTP, not on standard input and output.")
    ] = False,
    address: Annotated[
        str | None,
        typer.Option(
            help="With --http: address to serve at. Addresses other than loopback require a token in the environment "
            f"variable {_TOKEN_VARIABLE}.",
            show_default=_ADDRESS,
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(help="With --http: port; 0 for any free port.", min=0, max=65535, show_default=str(_PORT)),
    ] = None,
    namespace: options.Namespace = "/",
) -> None:
    """Serve a scene_memory node as tools of language-model agents (Model Context Protocol), until Ctrl-C.

    An MCP client starts this command itself and talks to it on standard input and output; with --http, clients connect.
    The node may be started later. The ROS environment variables, such as ROS_DOMAIN_ID, select it.
    """
    if not http and (address is not None or port is not None):
        raise BadRequestError("--address and --port require --http: add it, or omit them")
    # Requires ROS and the MCP SDK.
    from delayed_vlm_ros.agents.access import TOKEN_VARIABLE, make_access  # noqa: PLC0415
    from delayed_vlm_ros.agents.server import SceneServer  # noqa: PLC0415
    from delayed_vlm_ros.agents.transports import HttpServer, serve_stdio  # noqa: PLC0415
    from delayed_vlm_ros.ros.initialisation import check_namespace, ros_domain  # noqa: PLC0415

    check_namespace(namespace)
    ros_domain()
    scene = SceneServer(namespace)
    if http:
        server = HttpServer(
            scene,
            make_access(_ADDRESS if address is None else address, os.environ.get(TOKEN_VARIABLE, "")),
            _PORT if port is None else port,
        )
        server.run(lambda: terminal.write(f"The MCP server is at {server.url}", stderr=True))
    else:
        if sys.stdin.isatty():
            terminal.write(
                "Waiting for an MCP client on standard input: name this command in the client's configuration, see "
                "docs/agents.md. Ctrl-C ends it.",
                stderr=True,
            )
        serve_stdio(scene)
