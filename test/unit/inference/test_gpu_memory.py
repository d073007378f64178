"""The GPU's memory, as its driver's tool reports it."""

import stat
from pathlib import Path

import pytest

from delayed_vlm_ros.inference.local.models import gpu_memory
from delayed_vlm_ros.inference.local.models.gpu_memory import has_cuda_device, usable_gpu_memory


@pytest.fixture
def driver(monkeypatch, tmp_path):
    """Return a function that installs a tool that prints a text for each GPU, and fails for an unknown one."""

    def install(**memories):
        tool = tmp_path / "nvidia-smi"
        cases = "".join(f"*--id={name.removeprefix('gpu')}*) echo '{text}';;" for name, text in memories.items())
        tool.write_text(f'#!/bin/sh\ncase "$*" in {cases} *) echo "No devices were found"; exit 6;; esac\n')
        tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    return install


def test_memory_is_that_of_the_device(driver):
    driver(gpu0="24564", gpu1="8192")
    assert usable_gpu_memory("auto") == usable_gpu_memory("cuda") == usable_gpu_memory("cuda:0") == 24564 * 2**20
    assert usable_gpu_memory("cuda:1") == 8192 * 2**20


def test_device_is_counted_among_the_visible_ones(driver, monkeypatch):
    driver(gpu0="24564", gpu1="8192")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    assert usable_gpu_memory("cuda:0") == 8192 * 2**20
    assert usable_gpu_memory("cuda:1") == 24564 * 2**20


def test_three_quarters_of_a_shared_memory_are_usable(driver):
    driver(gpu0="[N/A]")
    total = int(Path("/proc/meminfo").read_text(encoding="ascii").split()[1]) * 1024
    assert usable_gpu_memory("auto") == pytest.approx(0.75 * total)


@pytest.mark.parametrize("answer", ["[Unknown Error]", "[GPU is lost]", "No devices were found"])
def test_memory_is_unknown_after_an_error_of_the_driver(driver, answer):
    driver(gpu0=answer)
    assert usable_gpu_memory("auto") is None


@pytest.mark.parametrize(("visible", "expected"), [("", False), ("-1", False), ("0", True), (None, True)])
def test_hidden_device_is_none(monkeypatch, tmp_path, visible, expected):
    monkeypatch.setattr(gpu_memory, "_DEVICE_FILES", (str(tmp_path),))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert has_cuda_device() is expected


def test_memory_is_unknown_without_the_tool_or_the_device(driver, monkeypatch, tmp_path):
    driver(gpu0="24564")
    assert usable_gpu_memory("cuda:7") is None
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert usable_gpu_memory("auto") is None
