"""Progress bars of the command line."""

import io

import pytest
from rich.console import Console

from delayed_vlm_ros.cli import progress


@pytest.mark.parametrize("bar", [progress.elapsed_time, progress.remaining_time])
def test_bar_prints_nothing_without_a_terminal(bar):
    console = Console(file=io.StringIO(), force_terminal=False)
    with bar(console) as shown:
        shown.advance(shown.add_task("recording", total=2))
    assert console.file.getvalue() == ""
