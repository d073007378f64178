"""The scene_memory node: whether it runs, its state, and what it reports."""

from __future__ import annotations

from delayed_vlm_ros.doctor.finding import Finding, Level, error, ok, warn
from delayed_vlm_ros.doctor.observation import DiagnosticLine, Observation

_START = "start it with ros2 launch delayed_vlm_ros bringup.launch.py"
_LOADING = "it is busy, such as with loading the model: run this again when it is active; if this stays, see its log"
_BUSY = "it is starting, blocked or dead: see its log, and restart it"


def node_findings(seen: Observation) -> list[Finding]:
    """Report the node's state, and each of its diagnostics that is not OK."""
    if not seen.runs:
        return [_missing(seen)]
    if seen.parameters is None and seen.diagnostics:
        return [warn("node", f"{seen.node_name} reports its state and does not answer", _LOADING)]
    if seen.parameters is None:
        return [error("node", f"{seen.node_name} is in the graph and does not answer", _BUSY)]
    if not seen.diagnostics:
        return [error("node", f"{seen.node_name} publishes no diagnostics", _BUSY)]
    bad = [_relayed(line) for line in seen.diagnostics if line.level]
    # The status "lifecycle" has the reason of another state.
    state = ok("node", f"{seen.node_name} on {seen.middleware} is {seen.state or 'in an unknown state'}")
    return [state, *bad]


def _missing(seen: Observation) -> Finding:
    others = [name for name in seen.nodes if name.endswith("/scene_memory")]
    text = f"{seen.node_name} does not run in this domain, among {len(seen.nodes)} nodes"
    if others:
        namespaces = " or ".join(name.removesuffix("/scene_memory") or "/" for name in others)
        return warn("node", f"{text}; {' and '.join(others)} runs", f"use --namespace {namespaces}")
    return warn("node", text, f"{_START}, or set ROS_DOMAIN_ID and --namespace as for the node")


def _relayed(line: DiagnosticLine) -> Finding:
    level = Level.WARN if line.level == Level.WARN else Level.ERROR  # STALE: no image arrives
    return Finding(level, f"diagnostics of {line.name}", line.message)


def is_model_loaded(seen: Observation | None) -> bool:
    """Return whether the node holds a loaded model, whose memory is then in use already."""
    lines = seen.diagnostics if seen is not None else ()
    return any(line.name == "model" and line.values.get("state") == "ready" for line in lines)
