"""The command line. Where the process is the subject, it is started as by a user; elsewhere it runs in this one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from command_line import run_here

VIDEOS = Path(__file__).parents[4] / "shared" / "videos"
METRICS = {
    "total_latency",
    "generation_latency",
    "time_to_first_token",
    "frames_encoded",
    "frames_reused",
    "visual_tokens",
    "kv_cache_length",
    "kv_tokens_reused",
    "answer_tokens",
    "video_grid_thw",
    "exact",
    "warnings",
    "finish_reason",
    "bytes_sent",
}


def run_process(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "delayed_vlm_ros.cli.main", *arguments]
    environment = {**os.environ, "COLUMNS": "100"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=150, check=False)


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    """Twelve seconds of a bright square that moves over a textured background."""
    file = tmp_path_factory.mktemp("video") / "square.avi"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (160, 120))
    background = np.random.default_rng(5).integers(40, 90, (120, 160, 3), dtype=np.uint8)
    for index in range(120):
        image = background.copy()
        image[30:70, index : index + 40] = (30, 200, 240)
        writer.write(image)
    writer.release()
    return file


def test_basic_json_reports_an_ask_from_cache_without_encoding(video):
    # when
    options = ("--model", "demo", "--json", "--max-new-tokens", "12")
    done = run_here("basic", "--video", video.name, *options, cwd=video.parent)
    # then
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert set(printed) == {"stages", "asks", "statistics"}
    assert [stage["frames_added"] for stage in printed["stages"]] == [14, 0, 0, 10]
    first, second, third = (ask["metrics"] for ask in printed["asks"])
    assert set(first) == METRICS | {"encoding_latency"}
    assert set(second) == METRICS
    assert (second["frames_encoded"], second["frames_reused"]) == (0, 14)
    assert second["kv_tokens_reused"] > 0
    assert "encoding_latency" in third
    assert printed["statistics"]["total_frames_added"] == 24


def test_basic_prints_questions_answers_and_stages_on_separate_lines(video):
    # when
    question = "What [bold]moves[/bold]?"
    options = ("-q", question, "--max-new-tokens", "12", "--dtype", "bfloat16", "--device", "cpu")
    done = run_process("basic", "--video", str(video), *options, cwd=video.parent)
    # then
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert any(line.startswith("model: ") and line.endswith(" on cpu in bfloat16") for line in lines)
    assert f"Q: {question}" in lines, "markup in a question must be printed literally"
    assert sum(line.startswith("A: ") and len(line) > 3 for line in lines) == 3
    assert [line.split(":")[0] for line in lines if line.startswith("stage")] == [f"stage {n}" for n in (1, 2, 3, 4)]
    warnings = [number for number, line in enumerate(lines) if "demo model, synthetic scenes only" in line]
    assert len(warnings) == 1, "a standing warning is shown once a session"
    assert warnings[0] < next(number for number, line in enumerate(lines) if line.startswith("A: "))
    assert "visual tokens" not in done.stdout
    assert not done.stderr, "neither an error nor a library's warning"


def test_compare_of_a_complete_memory_reports_identical_answers(video):
    # when
    options = ("-q", "What moves?", "--stream", "40", "--json")
    done = run_here("compare", "--video", str(video), *options, cwd=video.parent)
    # then
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed["dtype"] == ("float32" if printed["device"] == "cpu" else "bfloat16")
    (comparison,) = printed["comparisons"]
    assert comparison["identical"]
    assert comparison["native"]["answer"]
    assert comparison["length_ratio"] == comparison["similarity"] == 1.0


@pytest.mark.parametrize("command", ["basic --video", "compare --video", "replay", "bench ask --seed"])
def test_unknown_number_format_is_refused_with_the_valid_ones(command, tmp_path):
    done = run_here(*command.split(), "1", "--dtype", "half", cwd=tmp_path)
    assert done.returncode == 2
    message = " ".join(done.stderr.replace("│", " ").split())
    assert "'--dtype': must be one of auto, bfloat16, float16, float32, got 'half'" in message


@pytest.mark.parametrize("name", ["bikes.mp4", "bigbuckbunny.mp4", "carphone_pristine.mp4"])
def test_compare_of_a_real_video_reports_identical_answers(name, tmp_path):
    if not VIDEOS.is_dir():
        pytest.skip("no folder with real videos next to this repository")
    # when
    video = str(VIDEOS / name)
    done = run_here("compare", "--video", video, "--stream", "100", "--json", "--max-new-tokens", "24", cwd=tmp_path)
    # then
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["frames"]["native"] == found["frames"]["delayed"] > 1
    assert [one["identical"] for one in found["comparisons"]] == [True] * 3


@pytest.mark.parametrize("name", ["bikes.mp4", "bigbuckbunny.mp4", "carphone_pristine.mp4"])
def test_basic_runs_on_real_videos(name, tmp_path):
    if not VIDEOS.is_dir():
        pytest.skip("no folder with real videos next to this repository")
    # when
    done = run_here("basic", "--video", str(VIDEOS / name), "--json", "--max-new-tokens", "8", cwd=tmp_path)
    # then
    assert done.returncode == 0, done.stderr
    asks = json.loads(done.stdout)["asks"]
    assert ["encoding_latency" in ask["metrics"] for ask in asks] == [True, False, True]


@pytest.mark.parametrize(
    ("run", "arguments", "named"),
    [
        # OpenCV must not write to the process's standard error either.
        (run_process, ("basic", "--video", "nothing.mp4"), "'nothing.mp4'"),
        (run_process, ("basic", "--video", "text.mp4"), "'text.mp4'"),
        (run_process, ("demo", "--video", "text.mp4"), "'text.mp4'"),
        (run_here, ("compare", "--video", "square.avi", "--model", "/no/such/model"), "'/no/such/model'"),
        (run_here, ("basic", "--video", "square.avi", "--model", "demo", "--device", "cuda:7"), "'cuda:7'"),
        (run_here, ("basic", "--video", "square.avi", "--model", "demo", "--sample-fps", "0.5"), "--sample-fps"),
    ],
)
def test_invalid_input_prints_an_error_without_traceback(run, arguments, named, video):
    # given
    (video.parent / "text.mp4").write_text("Plain text.\n" * 100)
    # when
    done = run(*arguments, cwd=video.parent)
    # then
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert named in done.stderr
    assert "Traceback" not in done.stderr


def test_command_line_starts_without_slow_packages():
    # given
    slow = "torch transformers matplotlib nicegui rclpy"
    code = f"import sys, delayed_vlm_ros.cli.main; print(*(name for name in {slow.split()} if name in sys.modules))"
    # when
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=150, check=True)
    # then
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("command", [[], ["bench", "ask"], ["demo"], ["doctor"], ["sweep"]], ids=" ".join)
def test_help_is_printed(command, tmp_path):
    done = run_here(*command, "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "--help" in done.stdout
