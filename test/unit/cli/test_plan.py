"""``delayed-vlm plan``: what it prints, and which input it refuses."""

import json
import re
import subprocess
import sys

import pytest
from command_line import run_here

QWEN = "Qwen/Qwen2.5-VL-3B-Instruct"


def run_plan(*arguments, cwd):
    return run_here("plan", *arguments, cwd=cwd, columns=200)


def test_model_that_fits_is_shown_by_kind_with_largest_memory_and_times(tmp_path):
    # when
    done = run_plan("--gpu", "rtx-4090", "--model", "Qwen2.5-VL-3B", cwd=tmp_path)
    # then
    assert done.returncode == 0, done.stderr
    text = done.stdout
    assert text.startswith(f"{QWEN}, 3755 million parameters in bfloat16; 256 tokens per pair of frames")
    for kind in ("weights", "vision features", "KV cache", "working space", "peak"):
        assert f"\n{kind}  " in text
    assert "\nfits: 9.4 GB of 24.0 GB\n" in text
    assert "such as --star" in text
    assert "memory.budget_mb: 300" in text
    assert "RTX 4090 at best: first token after" in text
    assert "not measured" in text


def test_model_that_does_not_fit_ends_with_1_and_says_what_to_do(tmp_path):
    # when
    done = run_plan("--gpu-gb", 8, "--model", QWEN, cwd=tmp_path)
    # then
    assert done.returncode == 1
    assert "does not fit: 9.4 GB of 8.0 GB" in done.stdout
    assert "not even one pair of frames fits: choose a smaller model" in done.stdout
    assert "at best" not in done.stdout, "no times without the name of a GPU"


def test_json_has_bytes_by_kind_and_times(tmp_path):
    # when
    done = run_plan("--gpu", "Thor", "--model", "qwen3.5-4b", "--cameras", 2, "--json", cwd=tmp_path)
    # then
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    sizes = printed["bytes"]
    assert sizes.pop("peak") == sum(sizes.values()) - sizes["images"]
    assert printed["available"] == 96 * 10**9
    assert printed["fits"] is True
    assert set(printed["lower_bounds_sec"]) == {"first_question", "new_pair", "next_question", "token"}
    assert "lower bounds" in printed["note"]


def test_largest_memory_is_that_of_each_camera(tmp_path):
    # when
    one, two = (
        run_plan("--gpu-gb", 24, "--model", QWEN, "--cameras", cameras, cwd=tmp_path).stdout for cameras in (1, 2)
    )
    # then
    (largest,) = re.findall(r"largest memory that fits: (\d+) frames, such", one)
    (each,) = re.findall(r"largest memory that fits: (\d+) frames per camera, such", two)
    assert int(each) < int(largest)


def test_embedded_model_is_planned_from_its_files(tmp_path):
    done = run_plan("--gpu-gb", 2, "--model", "demo", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "demo, 2 million parameters" in done.stdout
    assert "warning: demo model, synthetic scenes only" in done.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--model", QWEN), "give its name (--gpu) or its memory (--gpu-gb)"),
        (("--model", QWEN, "--gpu-gb", -8), "--gpu-gb must be a positive number, got -8"),
        (("--model", QWEN, "--gpu-gb", "nan"), "--gpu-gb must be a positive number, got nan"),
        (("--model", QWEN, "--gpu-gb", "1e300"), "--gpu-gb must be a positive number, got 1e+300"),
        (("--model", QWEN, "--gpu-gb", "1e-10"), "--gpu-gb must be a positive number, got 1e-10"),
        (("--model", "auto", "--gpu-gb", "8"), "--model must name a model: auto depends on the GPU of this machine"),
        (("--model", QWEN, "--gpu", "abacus"), "unknown GPU 'abacus': use one of orin-nano-8,"),
        (("--model", "Qwen9-VL", "--gpu-gb", 8), "known without files: Qwen/Qwen3-VL-8B-Instruct"),
        (("--model", ".", "--gpu-gb", 8), "has no config.json"),
        (("--model", QWEN, "--gpu-gb", 8, "--star", 1), "star_memory_size"),
        (("--model", QWEN, "--gpu-gb", 8, "--star", 10**9), "at most 20000 frames"),
        (("--model", QWEN, "--gpu-gb", 8, "--max-pixels", 100), "max_pixels is 100"),
    ],
)
def test_invalid_input_is_refused_on_one_line(options, message, tmp_path):
    done = run_plan(*options, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr


def test_plan_loads_neither_torch_nor_transformers():
    code = (
        "import sys; from delayed_vlm_ros.cli.main import app\n"
        "app(['plan', '--gpu', 'l4', '--model', 'demo'], standalone_mode=False)\n"
        "sys.exit(','.join({'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
