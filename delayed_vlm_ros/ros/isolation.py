"""An isolated corner of DDS for demos and tests: a domain nobody here uses, and discovery on this machine only."""

from __future__ import annotations

import os
import random
from pathlib import Path

from delayed_vlm_ros.resources import config_file

_FIRST_PORT = 7400  # of DDS in domain 0
_PORTS_PER_DOMAIN = 250
_DOMAINS = range(1, 101)  # above 101 the ports reach into Linux's ephemeral range; 0 is everybody's default
_PROFILES, _OLD_PROFILES = (
    "FASTDDS_DEFAULT_PROFILES_FILE",
    "FASTRTPS_DEFAULT_PROFILES_FILE",
)  # of Fast DDS 3, and before
_WITH_FAST_DDS_2 = ("iron", "jazzy")


def isolated_environment() -> dict[str, str]:
    """This process's environment, changed so that no robot hears us and we hear none.

    Where nothing else is set, Fast DDS also gets shared memory enough for raw images.
    """
    environment = dict(os.environ)
    environment["ROS_DOMAIN_ID"] = str(free_domain())
    environment.pop("ROS_STATIC_PEERS", None)  # these are contacted whatever the range of discovery
    distribution = environment.get("ROS_DISTRO")
    if distribution == "humble":
        # No profile: one that names its transports undoes this there.
        environment["ROS_LOCALHOST_ONLY"] = "1"
        return environment
    environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    if _PROFILES not in environment and _OLD_PROFILES not in environment:
        name = _OLD_PROFILES if distribution in _WITH_FAST_DDS_2 else _PROFILES
        environment[name] = str(config_file("fastdds_large_images.xml"))
    return environment


def free_domain() -> int:
    """A ROS domain of whose ports no process on this machine has one open."""
    # Not the port of discovery alone: a participant that finds others by other means may not have opened it.
    taken = {(port - _FIRST_PORT) // _PORTS_PER_DOMAIN for port in _udp_ports()}
    free = [domain for domain in _DOMAINS if domain not in taken]
    return random.choice(free or list(_DOMAINS))  # noqa: S311  not for secrets: two demos must not choose alike


def _udp_ports() -> set[int]:
    ports = set()
    for table in ("/proc/net/udp", "/proc/net/udp6"):
        try:
            lines = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        ports |= {int(line.split()[1].rpartition(":")[2], 16) for line in lines}
    return ports
