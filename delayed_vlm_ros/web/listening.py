"""A socket for a server on this machine, bound before the server starts, so that its port is known."""

from __future__ import annotations

import socket

from delayed_vlm_ros.errors import ConfigurationError


def bind(address: str, port: int, failure: str) -> socket.socket:
    """Return a socket that is bound to an address.

    Args:
        address: Address of this machine.
        port: Port; 0 for any free port.
        failure: Beginning of the error.

    Raises:
        ConfigurationError: The address or the port is not available.
    """
    try:
        family = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0][0]
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((address, port))
    except (OSError, OverflowError) as error:
        raise ConfigurationError(
            f"{failure} at {address} port {port} ({error}): choose a free port, and an address of this machine"
        ) from None
    return bound
