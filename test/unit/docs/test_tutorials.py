"""The tutorials: what they show is what a newcomer sees."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tutorial import commands, missing_lines

ROOT = Path(__file__).parents[3]
SCORE = re.compile(r"(\w+) +(\d+% exact of \d+)")  # does not depend on the machine, unlike the times


@pytest.mark.heavy
@pytest.mark.timeout(900)
def test_tutorial_of_a_bag_runs_in_an_empty_folder(tmp_path):
    # given
    pytest.importorskip("sacrebleu", reason="the extra evaluation is not installed")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "REPO": str(ROOT), "PATH": path, "COLUMNS": "200"}
    for block in commands("tutorial_bag.md"):
        if not block.is_run:
            continue
        # when
        done = subprocess.run(
            ["bash", "-euc", block.text], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        # then
        assert done.returncode == 0, f"{block.text}\n{done.stderr}"
        assert missing_lines(block.shown, done.stdout) == [], done.stdout
        assert SCORE.findall("\n".join(block.shown)) in ([], SCORE.findall(done.stdout))
    assert (tmp_path / "mine" / "report.html").is_file()


def test_blocks_that_are_not_run_are_few_and_the_others_many():
    blocks = list(commands("tutorial_bag.md"))
    assert [block.text.split()[0] for block in blocks if not block.is_run] == ["export", "hf"]
    assert len(blocks) == 8
