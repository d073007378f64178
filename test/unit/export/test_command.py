"""``delayed-vlm export`` refuses what it can before it looks for a node."""

from __future__ import annotations

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
