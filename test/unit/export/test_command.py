"""``delayed-vlm export`` refuses what it can before it looks for a node."""

from __future__ import annotations

import subprocess
import sys

import pytest
from command_line import run_here


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--since", "11:00", "--until", "10:00"], "is after --until"),
        (["--since", "yesterday"], "--since must be a time"),
        (["-q", " "], "empty"),
    ],
)
def test_invalid_arguments_are_refused_and_nothing_is_made(tmp_path, arguments, message):
    done = run_here("export", "out", *arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_existing_folder_is_refused_and_unchanged(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("text")
    done = run_here("export", "out", cwd=tmp_path)
    assert done.returncode == 1
    assert "cannot export to 'out': it exists: choose a new folder" in done.stderr
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["mine"]


def test_missing_package_of_the_session_file_is_named_with_its_remedy(tmp_path):
    hidden = "import sys; sys.modules['mcap'] = None; from delayed_vlm_ros.__main__ import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", hidden, "export", "out", "--mcap"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "mcap" in done.stderr
    assert "[evaluation]" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
