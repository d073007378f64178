"""ROS middleware: its environment variables, shared memory, socket buffers and multicast."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from delayed_vlm_ros.doctor.finding import Finding, error, ok, warn
from delayed_vlm_ros.doctor.observation import Topic
from delayed_vlm_ros.doctor.running import Answer

_RANGES = ("SUBNET", "LOCALHOST", "OFF", "SYSTEM_DEFAULT")
_MAX_DOMAIN = 232
_LAST_SAFE_DOMAIN = 101  # above it, the ports of DDS reach into Linux's ephemeral range
_PROFILES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE", "CYCLONEDDS_URI")
_MIN_SHARED_BYTES = 64 * 2**20
_MIN_SOCKET_BYTES = 2 * 2**20
_SOCKET_BYTES = Path("/proc/sys/net/core/rmem_max")
_MORE_BUFFERS = "run sudo sysctl -w net.core.rmem_max=8388608"
_GROUP = "239.255.0.1"  # of DDS discovery
_MULTICAST_TIMEOUT_SEC = 1.0
_LATE_SEC = 1.0
_MIDDLEWARE = "check RMW_IMPLEMENTATION, ROS_DOMAIN_ID and the profile of the middleware"
_LARGE_IMAGES = "use the Fast DDS profile config/fastdds_large_images.xml for the camera and the node"


def variable_findings(environment: Mapping[str, str] = os.environ) -> list[Finding]:
    """Check the environment variables of ROS."""
    return [_domain(environment), _discovery(environment), *_profiles(environment)]


def peer_findings(environment: Mapping[str, str] = os.environ) -> list[Finding]:
    """Check that the machines in ``ROS_STATIC_PEERS`` have an address: an unknown one ends every node at its start."""
    peers = [peer.strip() for peer in environment.get("ROS_STATIC_PEERS", "").split(";") if peer.strip()]
    unknown = [peer for peer in peers if not _has_address(peer)]
    if not unknown:
        return []
    remedy = "correct the name, or use an IP address: nodes may not start"
    return [error("ROS_STATIC_PEERS", f"no address of {', '.join(unknown)}", remedy)]


def shared_memory_findings(folder: Path = Path("/dev/shm")) -> list[Finding]:  # noqa: S108  the system's, not a file
    """Check size and space of the shared memory, and find segments of dead Fast DDS processes."""
    if not folder.is_dir():
        return [warn("shared memory", f"{folder} does not exist", "DDS sends all images through sockets")]
    if not os.access(folder, os.W_OK | os.X_OK):
        text = f"user {os.geteuid()} cannot write to {folder}: DDS sends all images through sockets"
        return [warn("shared memory", text, f"sudo chmod 1777 {folder}")]
    state = os.statvfs(folder)
    total, free = state.f_blocks * state.f_frsize, state.f_bavail * state.f_frsize
    text = f"{_megabytes(free)} of {_megabytes(total)} free in {folder}"
    if free < _MIN_SHARED_BYTES:
        remedy = "free it, or start the container with --ipc=host or --shm-size=1g"
        return [warn("shared memory", text, remedy), *_segments(folder)]
    return [ok("shared memory", text), *_segments(folder)]


def socket_findings(topics: Sequence[Topic] = (), file: Path = _SOCKET_BYTES) -> list[Finding]:
    """Check the size of socket buffers, which large images from other machines need.

    Args:
        topics: Topics with images.
        file: File of the kernel with the size.
    """
    try:
        size = int(file.read_text(encoding="ascii"))
    except OSError:  # older kernels hide it in containers
        return [ok("socket buffers", f"{file} cannot be read: see the machine that runs this container")]
    text = f"net.core.rmem_max is {size} B"
    if size >= _MIN_SOCKET_BYTES:
        return [ok("socket buffers", text)]
    remote = [topic.name for topic in topics if topic.is_remote]
    if not remote:
        return [ok("socket buffers", f"{text}; for large images from other machines, {_MORE_BUFFERS}")]
    found = f"{text}, less than a large image, and {' and '.join(remote)} comes from another machine or container"
    return [warn("socket buffers", found, _MORE_BUFFERS)]


def multicast_findings(environment: Mapping[str, str] = os.environ) -> list[Finding]:
    """Send a packet to the group of DDS discovery and receive it."""
    try:
        _send_multicast()
    except OSError as failure:
        if is_local_only(environment):
            return [ok("multicast", f"not available ({failure}), not needed on this machine alone")]
        remedy = "enable it (ip link), or name the other machines in ROS_STATIC_PEERS"
        return [warn("multicast", f"a packet to {_GROUP} does not return ({failure})", remedy)]
    return [ok("multicast", f"a packet to {_GROUP} returns")]


def delivery_findings(answer: Answer, *, is_busy: bool) -> list[Finding]:
    """Report whether two processes can exchange large messages.

    Args:
        answer: Result of ``self_test.exchange``.
        is_busy: Whether other programs occupy the processors: then a message that is late or lost is no error.
    """
    subject = "message exchange"
    if is_busy and not answer.has_ended and (answer.error or not _has_arrived(answer)):
        return [warn(subject, "no result: this machine is busy", "run doctor again when it is not")]
    if answer.error:
        return [error(subject, answer.error, remedy_of(answer))]
    found = answer.value
    size = f"an image of {_megabytes(found['bytes'])}"
    if not found["matched"]:
        remedy = "check RMW_IMPLEMENTATION, ROS_DOMAIN_ID, the discovery range and the firewall"
        return [error(subject, "two processes of this user do not discover each other", remedy)]
    if found["reliable_sec"] is None:
        remedy = "remove leftovers in /dev/shm, check its space, and the firewall of UDP"
        return [error(subject, f"{size} does not arrive between two processes", remedy)]
    text = f"{size} took {found['reliable_sec'] * 1000:.0f} ms between two processes"
    exchanged = ok(subject, text) if found["reliable_sec"] < _LATE_SEC else warn(subject, text, _LARGE_IMAGES)
    return [exchanged, _best_effort(found["best_effort_received"], found["best_effort_sent"])]


def _has_arrived(answer: Answer) -> bool:
    return answer.value["matched"] and answer.value["reliable_sec"] is not None


def remedy_of(answer: Answer) -> str:
    """Return the remedy for a ROS process that ended; empty if the error has one."""
    return _MIDDLEWARE if answer.has_ended else ""


def is_local_only(environment: Mapping[str, str]) -> bool:
    """Return whether the variables restrict ROS to this machine."""
    by_range = environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "").upper() in ("LOCALHOST", "OFF")
    return by_range or environment.get("ROS_LOCALHOST_ONLY") == "1"


def _best_effort(received: int, sent: int) -> Finding:
    text = f"{received} of {sent} best-effort images arrived"
    return ok("best effort", text) if received == sent else warn("best effort", text, _LARGE_IMAGES)


def _domain(environment: Mapping[str, str]) -> Finding:
    text = environment.get("ROS_DOMAIN_ID") or "0"
    subject = "ROS_DOMAIN_ID"
    if not (text.isascii() and text.isdecimal() and int(text) <= _MAX_DOMAIN):
        return error(subject, f"'{text}' is not a domain", f"set a number from 0 to {_LAST_SAFE_DOMAIN}")
    if int(text) > _LAST_SAFE_DOMAIN:
        remedy = f"set a number from 0 to {_LAST_SAFE_DOMAIN}"
        return warn(subject, f"the ports of domain {text} are also used by other programs of Linux", remedy)
    return ok(subject, f"{text}, the same value is needed everywhere")


def _discovery(environment: Mapping[str, str]) -> Finding:
    new, old = environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE", ""), environment.get("ROS_LOCALHOST_ONLY", "")
    subject = "discovery"
    if new and new.upper() not in _RANGES:
        remedy = f"set one of {', '.join(_RANGES)}"
        return error(subject, f"ROS_AUTOMATIC_DISCOVERY_RANGE is '{new}', which ROS ignores", remedy)
    if new.upper() == "OFF":
        return error(subject, "ROS_AUTOMATIC_DISCOVERY_RANGE is OFF: no node finds another", "set SUBNET or LOCALHOST")
    if old not in ("", "0", "1"):
        return error(subject, f"ROS_LOCALHOST_ONLY is '{old}'", "set 0 or 1")
    if old == "1" and new.upper() == "SUBNET":
        remedy = "unset ROS_LOCALHOST_ONLY, which is of Humble"
        return warn(subject, "ROS_LOCALHOST_ONLY and ROS_AUTOMATIC_DISCOVERY_RANGE contradict each other", remedy)
    if is_local_only(environment):
        return ok(subject, "this machine only: cameras on other machines are not found")
    peers = environment.get("ROS_STATIC_PEERS", "")
    return ok(subject, f"the subnet{f', and {peers}' if peers else ''}")


def _has_address(host: str) -> bool:
    try:
        socket.getaddrinfo(host, None)
    except (OSError, UnicodeError):
        return False
    return True


def _profiles(environment: Mapping[str, str]) -> Iterator[Finding]:
    for name in _PROFILES:
        file = environment.get(name, "").removeprefix("file://")
        if file.startswith("/") and not Path(file).is_file():
            yield error("middleware profile", f"{name} names {file}, which does not exist", f"correct or unset {name}")
        elif file:
            yield ok("middleware profile", f"{name} is {file}")


def _segments(folder: Path) -> Iterator[Finding]:
    leftovers, others = 0, set()
    for lock in folder.glob("fastdds_*_el"):
        owner = _owner(lock)
        if owner is not None and owner != os.getuid():
            others.add(owner)
        elif _is_released(lock):
            leftovers += 1
    if leftovers:
        text = f"{leftovers} segments of dead processes in {folder}"
        yield warn("shared memory segments", text, "remove them with fastdds shm clean, or restart the machine")
    if others:
        users = ", ".join(map(str, sorted(others)))
        remedy = "run cameras and node as one user, or set FASTDDS_BUILTIN_TRANSPORTS=UDPv4 for all"
        yield warn("shared memory segments", f"user {users} runs ROS, too, and DDS shares no memory with it", remedy)


def _owner(file: Path) -> int | None:
    try:
        return file.stat().st_uid
    except OSError:  # it has ended
        return None


def _is_released(lock: Path) -> bool:
    """Return whether the process that made a segment has ended: Fast DDS holds a lock until then."""
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:  # locked, or gone
        return False
    return True


def _send_multicast() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("", 0))
        receiver.settimeout(_MULTICAST_TIMEOUT_SEC)
        membership = socket.inet_aton(_GROUP) + socket.inet_aton("0.0.0.0")  # noqa: S104  the default interface
        receiver.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 0)
            sender.sendto(b"delayed-vlm doctor", (_GROUP, receiver.getsockname()[1]))
        receiver.recv(64)


def _megabytes(size: int) -> str:
    return f"{size / 10**6:.0f} MB"
