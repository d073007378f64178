"""Shared by all tests: helper modules on the path, a marker per folder, and nodes in an isolated ROS domain."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

if TYPE_CHECKING:
    from harness import Client, NodeProcess

HERE = Path(__file__).parent
sys.path.append(str(HERE / "helpers"))

# A timing never decides a test.
hypothesis.settings.register_profile("delayed_vlm_ros", deadline=None)
hypothesis.settings.load_profile("delayed_vlm_ros")

MARKED_FOLDERS = ("ros", "browser", "slow", "fuzz")

# Unit tests that run a model, start processes or simulate hours; ``make test-fast`` leaves them out.
HEAVY_FILES = frozenset(
    HERE / "unit" / name
    for name in (
        *("benchmark/test_ask_cost.py", "benchmark/test_sweep.py", "cli/test_cli.py", "demo/test_tiny_scene.py"),
        *("docs/test_reliability.py", "doctor/test_command.py", "doctor/test_running.py"),
        *("images/test_malformed_images.py", "inference/test_engine.py"),
        *("inference/test_engine_delayed.py", "inference/test_engine_failures.py", "inference/test_exactness.py"),
        *("inference/test_native_equality.py", "inference/test_native_mutations.py", "inference/test_non_finite.py"),
        *("inference/test_decoding.py", "inference/test_familiarity.py", "inference/test_finish_reason.py"),
        *("inference/test_hub_layouts.py", "inference/test_moments.py", "lab/test_find.py", "web/test_in_process.py"),
        *(
            "inference/test_shortages.py",
            "inference/test_worker.py",
            "lab/test_answers.py",
            "lab/test_memory.py",
            "lab/test_trace.py",
        ),
        *("memory/scoring/test_event_detection.py", "memory/scoring/test_importance.py", "memory/test_manager.py"),
        *("memory/test_eviction_chunk.py", "memory/test_marks.py", "memory/test_star.py", "replay/test_answerers.py"),
        *("replay/test_executor.py", "replay/test_native.py", "replay/test_replay_command.py"),
        *("ros/test_process_group.py", "scenes/test_render.py", "storage/test_folder.py", "test_dependencies.py"),
        "test_layers.py",
    )
)

# A test with many processes may take long on a busy machine; single waits have their own limits.
_PROCESSES_TIMEOUT_SEC = 600

# Of the memories of fake nodes, in frames: tests count frames, and must not depend on the defaults.
_SIZES = {"memory__star__size": 20, "memory__stream__size": 20}
_numbers = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with its folder's name: ``-m "not ros and not browser"``."""
    for item in items:
        if item.path in HEAVY_FILES:
            item.add_marker("heavy")
        folder = item.path.relative_to(HERE).parts[0] if HERE in item.path.parents else ""
        if folder in MARKED_FOLDERS:
            item.add_marker(folder)
            if folder != "fuzz":  # ``make fuzz`` sets its own limit, which a marker would override
                item.add_marker(pytest.mark.timeout(_PROCESSES_TIMEOUT_SEC))


@pytest.fixture(scope="session")
def ros() -> Iterator[None]:
    """Initialise rclpy in an unused domain that is invisible to other machines."""
    rclpy = pytest.importorskip("rclpy", reason="ROS 2 is not installed")
    from harness import CONTEXT, free_domain  # noqa: PLC0415

    domain, reservation = free_domain()
    os.environ["ROS_DOMAIN_ID"] = str(domain)
    # For this process and its nodes. Tests kill nodes, and Fast DDS has crashed when it wrote to the shared memory of a
    # killed one.
    os.environ["FASTDDS_BUILTIN_TRANSPORTS"] = "UDPv4"
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    os.environ.pop("ROS_LOCALHOST_ONLY", None)  # Jazzy warns about it on the standard error of each process
    if os.environ.get("ROS_DISTRO") == "humble":
        os.environ["ROS_LOCALHOST_ONLY"] = "1"
    rclpy.init(context=CONTEXT)
    yield
    rclpy.try_shutdown(context=CONTEXT)
    reservation.close()


@pytest.fixture
def start(ros: None) -> Iterator[Callable[..., tuple[NodeProcess, Client]]]:
    """Return a function that starts a scene-memory node and a client, by default in a new namespace."""
    yield from _starter()


@pytest.fixture(scope="module")
def start_for_module(ros: None) -> Iterator[Callable[..., tuple[NodeProcess, Client]]]:
    """Return the same function as ``start``, for nodes shared by all tests of a module."""
    yield from _starter()


@pytest.fixture(scope="module")
def with_images(start_for_module: Callable[..., tuple[NodeProcess, Client]]) -> Client:
    """Return a client of a node with a fake engine and four images in its memory."""
    _, client = start_for_module(memory__sample_fps=50.0)
    client.wait_until_ready()
    client.show_images(4)
    return client


def _starter() -> Iterator[Callable[..., tuple[NodeProcess, Client]]]:
    from harness import FAKE_SCENE_MEMORY, SCENE_MEMORY, Client, NodeProcess  # noqa: PLC0415

    opened: list[Any] = []

    def start_one(
        *,
        fake: bool = True,
        command: list[str] | None = None,
        namespace: str = "",
        remap: dict[str, str] | None = None,
        environment: dict[str, str] | None = None,
        new_interpreter: bool = False,
        **parameters: Any,
    ) -> tuple[NodeProcess, Client]:
        namespace = namespace or f"/test_{next(_numbers)}"
        if fake and command is None:
            parameters = _SIZES | parameters
        named = {name.replace("__", "."): value for name, value in parameters.items()}
        command = command or (FAKE_SCENE_MEMORY if fake else SCENE_MEMORY)
        client = Client(namespace)
        opened.append(client)
        named = {"model.name": "demo", **named}
        process = NodeProcess(
            namespace, command, named, remap or {}, environment or {}, new_interpreter=new_interpreter
        )
        opened.append(process)
        return process, client

    yield start_one
    for closable in reversed(opened):
        closable.close()
