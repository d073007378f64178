"""All checks of ``delayed-vlm doctor``, which run side by side and end after about ten seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass

from delayed_vlm_ros.doctor import (
    clocks,
    compute,
    disk,
    environment,
    middleware,
    model,
    model_server,
    node,
    page,
    self_test,
    topics,
)
from delayed_vlm_ros.doctor.finding import Finding, Level, error
from delayed_vlm_ros.doctor.observation import Observation, from_json
from delayed_vlm_ros.doctor.running import Answer, in_background, run_check, run_child

_CHILD_TIMEOUT_SEC = 14.0  # about twice the time that importing libraries and waiting for messages takes
_MAX_STRETCH = 4.0  # of the time limit on a busy machine

_CHECK_TIMEOUT_SEC = 5.0


@dataclass(frozen=True)
class Diagnosis:
    """Result of all checks.

    Attributes:
        findings: What was found, by subject.
        observation: What was seen of the ROS graph; None without ROS.
    """

    findings: tuple[Finding, ...]
    observation: Observation | None

    @property
    def has_error(self) -> bool:
        """Whether something prevents the node from working."""
        return any(one.level is Level.ERROR for one in self.findings)


def diagnose(namespace: str = "/", timeout_sec: float | None = None) -> Diagnosis:
    """Run all checks.

    Args:
        namespace: Namespace of the ``scene_memory`` node.
        timeout_sec: Time limit of a check that imports libraries or waits for messages, in seconds; None: 12 s, and up
            to four times as long on a busy machine.
    """
    return _diagnose(namespace, default_timeout_sec() if timeout_sec is None else timeout_sec)


def default_timeout_sec() -> float:
    """Return the time limit of a check for the present load of this machine, in seconds."""
    return _CHILD_TIMEOUT_SEC * min(_MAX_STRETCH, max(1.0, environment.load_per_processor()))


def _diagnose(namespace: str, timeout_sec: float) -> Diagnosis:
    graph = in_background(lambda: run_child("observe:observe", namespace, timeout_sec, timeout_sec=timeout_sec))
    exchange = in_background(lambda: self_test.exchange(timeout_sec))
    torch = in_background(lambda: run_child("compute:probe_torch", timeout_sec=timeout_sec))
    converter = in_background(lambda: run_child("environment:probe_converter", timeout_sec=timeout_sec))
    quick = _quick_checks()
    seen, graph_findings = _observed(graph)
    parameters = seen.parameters if seen is not None else None
    settings = model.settings_of(parameters)
    found_torch, converted, exchanged = _answer(torch), _answer(converter), _answer(exchange)
    return Diagnosis(
        (
            *quick["environment"],
            *_check("packages", lambda: environment.package_findings(settings.extras)),
            *quick["load"],
            *_check("image conversion", lambda: environment.converter_findings(converted)),
            *_model_findings(settings, found_torch, timeout_sec, is_loaded=node.is_model_loaded(seen)),
            *quick["middleware"],
            *_check("socket buffers", lambda: middleware.socket_findings(seen.topics if seen is not None else ())),
            *_check("message exchange", lambda: middleware.delivery_findings(exchanged, is_busy=environment.is_busy())),
            *quick["clock"],
            *graph_findings,
            *_check("disk", lambda: disk.disk_findings(parameters)),
            *_check("page", lambda: page.page_findings(seen.page_parameters if seen is not None else None)),
        ),
        seen,
    )


def _model_findings(
    settings: model.ModelSettings, torch: Answer, timeout_sec: float, *, is_loaded: bool
) -> list[Finding]:
    """Check the model server, and torch, GPU and checkpoint where a model on this machine is used."""
    found = []
    if settings.server:
        found += run_check(
            "model server",
            lambda: model_server.server_findings(settings.server, settings.remote),
            timeout_sec,  # it imports a library
        )
    if settings.model:
        found += _check("torch", lambda: compute.compute_findings(torch, settings.device))
        found += run_check(
            "model",
            lambda: model.model_findings(settings, torch.value, is_loaded=is_loaded),
            timeout_sec,  # it imports a library
        )
    return found


def _quick_checks() -> dict[str, list[Finding]]:
    return {
        "environment": _check("python", environment.python_findings),
        "load": _check("load", environment.load_findings),
        "middleware": [
            *_check("ros variables", middleware.variable_findings),
            *_check("ROS_STATIC_PEERS", middleware.peer_findings),
            *_check("shared memory", middleware.shared_memory_findings),
            *_check("multicast", middleware.multicast_findings),
        ],
        "clock": _check("system clock", clocks.system_clock_findings),
    }


def _observed(graph: Future[Answer]) -> tuple[Observation | None, list[Finding]]:
    """Return the observation of the graph, and the findings about it."""
    answer = _answer(graph)
    if answer.error:
        return None, [error("ros", answer.error, middleware.remedy_of(answer))]
    seen = from_json(answer.value)
    checks: Iterable[tuple[str, Callable[[Observation], list[Finding]]]] = (
        ("ros clock", clocks.ros_clock_findings),
        ("image topics", topics.topic_findings),
        ("node", node.node_findings),
    )
    return seen, [finding for subject, check in checks for finding in _about(seen, subject, check)]


def _about(seen: Observation, subject: str, check: Callable[[Observation], list[Finding]]) -> Iterator[Finding]:
    yield from _check(subject, lambda: check(seen))


def _answer(pending: Future[Answer]) -> Answer:
    """Return the result of a child process, which has a time limit."""
    try:
        return pending.result()
    except Exception as failure:  # noqa: BLE001  such as a process that cannot be started
        return Answer(error=f"the check failed ({type(failure).__name__}: {failure}): run it again")


def _check(subject: str, check: Callable[[], list[Finding]]) -> list[Finding]:
    return run_check(subject, check, _CHECK_TIMEOUT_SEC)
