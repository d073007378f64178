"""ROS isolation for demos and tests: an unused domain, and discovery on this machine only."""

from __future__ import annotations

import os
import random
from pathlib import Path

from delayed_vlm_ros.resources import config_file

_FIRST_PORT = 7400  # of DDS in domain 0
_PORTS_PER_DOMAIN = 250
_DOMAINS = range(1, 101)  # above 101 the ports reach into Linux's ephemeral range; 0 is the default domain
# Of Fast DDS 3 and 2; each version ignores the other's. Both are set, since wheels leave ROS_DISTRO unset.
_PROFILES_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")


def isolated_environment() -> dict[str, str]:
    """Return this process's environment, isolated from all other ROS nodes.

    Fast DDS gets enough shared memory for raw images, unless a profile is already set.
    """
    environment = dict(os.environ)
    environment["ROS_DOMAIN_ID"] = str(free_domain())
    environment.pop("ROS_STATIC_PEERS", None)  # static peers are contacted in any discovery range
    if environment.get("ROS_DISTRO") == "humble":
        # Without the profile: in Humble a profile that lists transports overrides this variable.
        environment["ROS_LOCALHOST_ONLY"] = "1"
        return environment
    environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    if environment.keys().isdisjoint(_PROFILES_VARIABLES):
        environment |= dict.fromkeys(_PROFILES_VARIABLES, str(config_file("fastdds_large_images.xml")))
    return environment


def free_domain() -> int:
    """Return a ROS domain none of whose ports is open on this machine."""
    # All ports count: a participant with another means of discovery does not open the discovery port.
    taken = {(port - _FIRST_PORT) // _PORTS_PER_DOMAIN for port in _udp_ports()}
    free = [domain for domain in _DOMAINS if domain not in taken]
    return random.choice(free or list(_DOMAINS))  # noqa: S311  two demos must not choose alike


def _udp_ports() -> set[int]:
    ports = set()
    for table in ("/proc/net/udp", "/proc/net/udp6"):
        try:
            lines = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        ports |= {int(line.split()[1].rpartition(":")[2], 16) for line in lines}
    return ports
