"""Shortages of memory, threads and file descriptors: recognised, answered with less, and over when they end."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
import textwrap
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from delayed_vlm_ros.errors import (
    ConfigurationError,
    DependencyError,
    DeviceMemoryError,
    NonFiniteError,
    UnsupportedModelError,
)
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.engine import CachedBytes
from delayed_vlm_ros.inference.local.models import new_process
from delayed_vlm_ros.inference.local.models.checkpoint import resolve_checkpoint
from delayed_vlm_ros.inference.local.models.new_process import (
    LoadResult,
    load_in_new_process,
    may_need_a_new_process,
)
from delayed_vlm_ros.inference.local.oom import is_out_of_memory, is_shortage
from delayed_vlm_ros.inference.request import AskRequest

CPU_TEXT = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "4 bytes. Error code 12 (Cannot allocate memory)"
)
HALF_SECONDS = [0.5 * number for number in range(8)]


def caused(error, cause):
    error.__cause__ = cause
    return error


def suppressed(error, context):
    """Return an error that was raised ``from None`` while another was handled."""
    error.__context__ = context
    error.__suppress_context__ = True
    return error


def numpy_error():
    try:
        np.empty(1 << 60, np.uint8)
    except MemoryError as error:
        return error


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError(CPU_TEXT),
    RuntimeError("could not create a primitive"),
    RuntimeError("CUDA error: out of memory"),
    MemoryError(),
    numpy_error(),
]
SHORT = [
    OSError(errno.EMFILE, "Too many open files"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"),
    RuntimeError("can't start new thread"),
    ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    caused(DependencyError("torch cannot be imported"), MemoryError()),
]
NEITHER = [
    suppressed(ValueError("damaged"), MemoryError()),
    RuntimeError("could not create a primitive descriptor for a matmul primitive"),
    RuntimeError("shape '[2]' is invalid for input of size 3"),
    ImportError("libgomp.so.1: cannot allocate memory in static TLS block"),
    ModuleNotFoundError("No module named 'torch'", name="torch"),
    FileNotFoundError(errno.ENOENT, "No such file"),
    ValueError("memory"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=repr)
def test_lack_of_memory_is_recognised(error):
    assert is_out_of_memory(error)
    assert is_shortage(error)


@pytest.mark.parametrize("error", SHORT, ids=repr)
def test_other_shortages_are_recognised(error):
    assert is_shortage(error)
    assert not is_out_of_memory(error)


@pytest.mark.parametrize("error", NEITHER, ids=repr)
def test_other_errors_are_no_shortage(error):
    assert not is_shortage(error)
    assert not is_out_of_memory(error)


# --- questions ------------------------------------------------------------------------------------------------------


class FailingOperations(TorchDispatchMode):
    """Counts torch's operations, and fails some of them as a shortage would.

    Args:
        first: Number of the first operation that fails; None: none fails.
        count: Operations that fail.
        error: Error of each.
    """

    def __init__(self, first=None, count=1, error=None):
        super().__init__()
        self.number = 0
        self._failing = range(0) if first is None else range(first, first + count)
        self._error = error

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.number += 1
        if self.number in self._failing:
            raise self._error
        return func(*args, **(kwargs or {}))


def test_answers_after_a_shortage_at_any_operation_equal_cold_ones(make_engine, image):
    # given the operations of a cold question, of one after new frames, and their answers
    def histories():
        engine = make_engine(stamps=HALF_SECONDS)
        yield engine
        engine.ask("Who?", max_new_tokens=4)
        engine.add_frame(image(20), 9.0)
        engine.add_frame(image(21), 9.5)
        yield engine

    draw, failed, answered = random.Random(20), 0, 0
    for warm in (False, True):
        *_, engine = histories() if warm else [next(histories())]
        with FailingOperations() as counted:
            expected = engine.ask("Where?", max_new_tokens=4)[0]
        cold = make_engine(frame_manager=engine.frame_manager)
        for _ in range(10):
            # when some operations from an arbitrary one on fail
            *_, engine = histories() if warm else [next(histories())]
            first, count = draw.randrange(1, counted.number), draw.choice([1, 2, 10**6])
            error = draw.choice([RuntimeError(CPU_TEXT), MemoryError("no memory")])
            control = AskControl()
            try:
                with FailingOperations(first, count, error):
                    engine.answer(AskRequest("Where?", max_new_tokens=4), control)
                answered += 1
            except DeviceMemoryError as raised:
                assert "memory sizes" in str(raised)  # noqa: PT017
                assert engine.cached_bytes() == CachedBytes(0, 0)
                failed += 1
            # then the next answers are those of an engine without a cache
            assert control.ran_out_of_memory
            assert engine.ask("Where?", max_new_tokens=4)[0] == expected
            assert engine.ask("Who?", max_new_tokens=4)[0] == cold.ask("Who?", max_new_tokens=4)[0]
    assert failed
    assert answered


def test_precompute_that_runs_out_of_memory_keeps_nothing(make_engine):
    engine, control = make_engine(stamps=HALF_SECONDS), AskControl()
    with FailingOperations(300, 10**6, RuntimeError(CPU_TEXT)), pytest.raises(DeviceMemoryError):
        engine.precompute(control, prefill=True)
    assert control.ran_out_of_memory
    assert engine.cached_bytes() == CachedBytes(0, 0)
    assert engine.precompute(prefill=True)


# --- loading --------------------------------------------------------------------------------------------------------


def run(script):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )


ENGINE = """
    import math, os, resource, sys
    from pathlib import Path
    from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine
    from delayed_vlm_ros.scenes import Scene, render
    from delayed_vlm_ros.scenes.scene import Episode

    scene = Scene.from_script(7, (Episode(1, 0.0, math.inf, "red", "box", 0.12),))
    engine = DelayedBatchInferenceEngine.from_pretrained("demo", device="cpu")
    for number in range(8):
        engine.add_frame(render(scene, number / 2, 240, 320), number / 2)
"""


def test_first_question_imports_nothing_and_starts_no_thread():
    done = run(f"""{ENGINE}
    modules, threads = set(sys.modules), set(os.listdir("/proc/self/task"))
    answer = engine.ask("What is on the left?")[0]
    print([answer, sorted(set(sys.modules) - modules), sorted(set(os.listdir("/proc/self/task")) - threads)])
    """)
    assert done.stdout.strip() == "['a red box', [], []]", done.stderr


def test_first_question_during_shortages_does_no_lasting_harm():
    done = run(f"""{ENGINE}
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    lows = {{resource.RLIMIT_AS: pages * resource.getpagesize(), resource.RLIMIT_NOFILE: 3}}
    before = {{limit: resource.getrlimit(limit) for limit in lows}}
    for limit, low in lows.items():
        resource.setrlimit(limit, (low, before[limit][1]))
    try:
        engine.ask("What is on the left?")
    except Exception as error:
        assert type(error).__name__ == "DeviceMemoryError", repr(error)
    for limit in lows:
        resource.setrlimit(limit, before[limit])
    print(engine.ask("What is on the left?")[0])
    """)
    assert done.stdout.strip() == "a red box", done.stderr


@pytest.mark.parametrize(
    "error",
    [
        ConfigurationError("no such device"),
        NonFiniteError("NaN"),
        DeviceMemoryError("too large"),
        UnsupportedModelError("no chat template"),
        caused(DependencyError("torch is missing"), ModuleNotFoundError("No module named 'tosch'", name="tosch")),
    ],
    ids=repr,
)
def test_failure_that_a_new_process_has_too_is_not_tried_in_one(error):
    assert not may_need_a_new_process(error)


@pytest.mark.parametrize(
    "error",
    [
        caused(DependencyError("broken"), ModuleNotFoundError("Could not import module 'AutoProcessor'")),
        caused(DependencyError("broken"), ModuleNotFoundError("No module named 'torch._C'", name="torch._C")),
        caused(DependencyError("broken"), ImportError("partially initialized module 'torch'", name="torch")),
        caused(UnsupportedModelError("cannot load"), ValueError("Could not load any image processor class")),
        RuntimeError("function '_has_torch_function' already has a docstring"),
        SystemExit("as a panic of a library"),
    ],
    ids=repr,
)
def test_failure_of_a_library_is_tried_in_a_new_process(error):
    assert may_need_a_new_process(error)


def load_demo(path=None, is_cancelled=lambda: False):
    checkpoint = resolve_checkpoint(str(path or "demo"))
    return load_in_new_process(checkpoint, device="cpu", dtype="auto", attention="auto", is_cancelled=is_cancelled)


def test_new_process_loads_a_good_checkpoint_whatever_the_working_folder_has(tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    (tmp_path / "delayed_vlm_ros.py").write_text("raise SystemExit(1)\n")
    monkeypatch.chdir(tmp_path)
    assert load_demo() is LoadResult.LOADS
    assert not (tmp_path / "ran").exists()


def test_new_process_fails_as_this_one_with_a_damaged_checkpoint(checkpoint_folder, tmp_path):
    for file in checkpoint_folder().iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    os.truncate(tmp_path / "model.safetensors", 100_000)
    assert load_demo(tmp_path) is LoadResult.FAILS


def in_new_process(monkeypatch, program, **options):
    """Return the result when the new process runs another program."""
    monkeypatch.setattr(new_process, "python_command", lambda *_: [sys.executable, "-S", "-c", program])
    return load_demo(**options)


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("import os; os._exit(0)", LoadResult.LOADS),
        ("import os; os._exit(3)", LoadResult.FAILS),
        ("import os; os._exit(75)", LoadResult.SHORTAGE),
        ("import os; os.kill(os.getpid(), 9)", LoadResult.FAILS),
        ("import os; os.kill(os.getpid(), 11)", LoadResult.FAILS),
        ("raise MemoryError", LoadResult.NOT_STARTED),
    ],
)
def test_end_of_the_new_process_is_the_result(monkeypatch, program, expected):
    assert in_new_process(monkeypatch, program) is expected


def test_new_process_that_exceeds_the_time_limit_fails(monkeypatch):
    monkeypatch.setattr(new_process, "_TIMEOUT_SEC", 0.2)
    assert in_new_process(monkeypatch, "import time; time.sleep(60)") is LoadResult.FAILS


def test_new_process_is_killed_when_the_node_ends():
    ended = threading.Event()
    ended.set()
    assert load_demo(is_cancelled=ended.is_set) is LoadResult.FAILS


class Weights:
    """Weights that a failed load holds."""


def test_failed_model_is_freed_with_the_causes_of_its_error():
    held = []

    def read():
        weights = Weights()
        held.append(weakref.ref(weights))
        raise ValueError("damaged")

    def load():
        weights = Weights()
        held.append(weakref.ref(weights))
        try:
            read()
        except ValueError as error:
            raise UnsupportedModelError("cannot load") from error

    try:
        load()
    except UnsupportedModelError as error:
        assert [weights() is None for weights in held] == [False, False]
        new_process.free_failed_model(error)
        assert [weights() is None for weights in held] == [True, True]
