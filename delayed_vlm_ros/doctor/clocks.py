"""The clock of this machine, the simulated clock, and the stamps of the cameras."""

from __future__ import annotations

import shutil
import subprocess
import time
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path

from delayed_vlm_ros.doctor.finding import Finding, error, ok, warn
from delayed_vlm_ros.doctor.observation import Observation, Topic
from delayed_vlm_ros.time import MAX_AHEAD_SEC, MAX_LATE_SEC, seconds_of

_YEARS = range(2024, 2100)
_DAY_SEC = 86_400.0
_MIN_IMAGES = 3  # of which a standing stamp is not a coincidence
_TIMEDATECTL_TIMEOUT_SEC = 2.0
_ARRIVAL = "set header.stamp to the time of capture; the node uses arrival times meanwhile"
_ROS_CLOCK = "ros clock"
_SET_CLOCK = "set the clock, for example with sudo timedatectl set-ntp true"


def system_clock_findings(now_sec: float | None = None) -> list[Finding]:
    """Check that the clock of this machine is plausible and synchronised.

    Args:
        now_sec: Seconds since 1970; None: the present time.
    """
    now = time.time() if now_sec is None else now_sec
    shown = datetime.fromtimestamp(now, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    installed = Path(__file__).resolve().stat().st_mtime
    if datetime.fromtimestamp(now, timezone.utc).year not in _YEARS:
        return [error("system clock", f"it shows {shown}", _SET_CLOCK)]
    if now < installed - _DAY_SEC:
        return [warn("system clock", f"it shows {shown}, before this package was installed", _SET_CLOCK)]
    return [_synchronisation(shown)]


def ros_clock_findings(seen: Observation) -> list[Finding]:
    """Check the simulated clock and the stamps of the node's images."""
    now_ns = seen.clock.times_ns[-1] if seen.uses_simulated_time and seen.clock.times_ns else None
    topics = [(camera.name, seen.topic(camera.topic)) for camera in seen.cameras]
    stamps = [_stamps(name, topic, now_ns) for name, topic in topics if topic is not None and topic.stamps_ns]
    if not seen.uses_simulated_time:
        return [_real(seen), *stamps]
    return [_simulated(seen), *stamps] if now_ns is not None else [_simulated(seen)]


def _synchronisation(shown: str) -> Finding:
    state = _ntp_state()
    if state == "no":
        return warn("system clock", f"{shown}, not synchronised (timedatectl)", _SET_CLOCK)
    return ok("system clock", f"{shown}, {'synchronised' if state == 'yes' else 'synchronisation unknown'}")


def _ntp_state() -> str:
    """Return ``yes`` or ``no``; empty if it cannot be read."""
    program = shutil.which("timedatectl")
    if program is None:
        return ""
    command = [program, "show", "--property=NTPSynchronized", "--value"]
    try:
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, timeout=_TIMEDATECTL_TIMEOUT_SEC, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def _simulated(seen: Observation) -> Finding:
    publishers, times = seen.clock.publishers, seen.clock.times_ns
    if not publishers:
        text = "use_sim_time is true and nobody publishes /clock: the node's time stays at 0"
        remedy = "start the simulation, play the bag with --clock, or set use_sim_time to false"
        return error(_ROS_CLOCK, text, remedy)
    if len(publishers) > 1:
        return error(_ROS_CLOCK, f"{' and '.join(publishers)} publish /clock, so that time jumps", "stop all but one")
    if not times:
        return warn(_ROS_CLOCK, f"{publishers[0]} publishes /clock, but no time arrives", "check that it runs")
    if times[-1] == times[0]:
        return warn(_ROS_CLOCK, f"/clock stays at {seconds_of(times[0]):.1f} s", "continue the simulation or the bag")
    return ok(_ROS_CLOCK, f"simulated, at {seconds_of(times[-1]):.1f} s, from {publishers[0]}")


def _real(seen: Observation) -> Finding:
    if seen.clock.publishers and seen.runs:
        text = f"{seen.clock.publishers[0]} publishes /clock, but the node uses the system's time"
        return warn(_ROS_CLOCK, text, "set use_sim_time to true, unless the images have present stamps")
    return ok(_ROS_CLOCK, "the system's")


def _stamps(camera: str, topic: Topic, now_ns: int | None) -> Finding:
    """Compare the images' stamps with each other and with the node's clock."""
    subject = f"stamps of {camera}"
    stamps = topic.stamps_ns
    if all(stamp == 0 for stamp in stamps):
        return warn(subject, f"images on {topic.name} have no stamp", _ARRIVAL)
    if len(stamps) >= _MIN_IMAGES and max(stamps) == min(stamps):
        text = f"all images on {topic.name} have the stamp {seconds_of(stamps[0]):.3f} s"
        return warn(subject, text, _ARRIVAL)
    if any(later < earlier for earlier, later in pairwise(stamps)):
        return warn(subject, f"stamps on {topic.name} go back", "let one node publish, and set the camera's clock")
    age = seconds_of((topic.arrivals_ns[-1] if now_ns is None else now_ns) - stamps[-1])
    if not -MAX_AHEAD_SEC <= age <= MAX_LATE_SEC:
        relation = "behind" if age > 0 else "ahead of"
        text = f"the newest stamp on {topic.name} is {abs(age):.1f} s {relation} the node's clock"
        return warn(subject, text, "synchronise the clocks (chrony, NTP), or set use_sim_time for a recording")
    return ok(subject, f"{age:.2f} s old on arrival")
