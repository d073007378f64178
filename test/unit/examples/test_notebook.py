"""The notebook of the examples. Its code cells run in a new interpreter: Jupyter is no dependency of the tests."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hidden_packages import hide

NOTEBOOK = Path(__file__).parents[3] / "examples" / "what_was_kept.ipynb"

RUN = """
import json, sys

names = {"__name__": "__main__"}
for cell in json.load(open(sys.argv[1], encoding="utf-8"))["cells"]:
    if cell["cell_type"] == "code":
        exec("".join(cell["source"]).replace('RECORDING = ""', f"RECORDING = {sys.argv[2]!r}"), names)
(axes,) = names["chart"].axes
shown = [tile for tile in names["sheet"].axes if tile.images]
print(json.dumps({
    "line": len(axes.lines[0].get_xdata()),
    "points": {group.get_gid(): len(group.get_offsets()) for group in axes.collections},
    "legend": [text.get_text() for text in axes.get_legend().get_texts()],
    "tiles": [tile.get_title() for tile in shown],
    "statistics": names["memory"].get_statistics(),
}))
"""


def run_cells(folder, recording=""):
    environment = hide(folder / "hidden", "rclpy", "torch", "transformers") | {"MPLBACKEND": "Agg"}
    command = [sys.executable, "-c", RUN, str(NOTEBOOK), str(recording)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.heavy
def test_notebook_without_a_recording_shows_every_kept_pair_of_a_synthetic_room(tmp_path):
    # when
    done = run_cells(tmp_path)
    # then
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout.splitlines()[-1])
    points, statistics = shown["points"], shown["statistics"]
    assert shown["line"] == statistics["total_frames_added"]
    assert 2 * (points["Star"] + points["Star and Stream"]) == statistics["star_memory_size"] > 0
    assert 2 * (points["Stream"] + points["Star and Stream"]) == statistics["stream_memory_size"] > 0
    assert 2 * points["Star and Stream"] == statistics["overlap"]
    assert 2 * len(shown["tiles"]) == statistics["unique_frames"]
    assert shown["legend"][2:] == [f"{name}: {count} pairs" for name, count in points.items()]
    for name, count in points.items():
        assert sum(f" s, {name}\n" in title for title in shown["tiles"]) == count
    assert any(title.endswith("\nbrief event") for title in shown["tiles"])


@pytest.mark.heavy
def test_notebook_with_a_folder_of_no_images_says_what_is_wrong(tmp_path):
    done = run_cells(tmp_path, tmp_path)
    assert done.returncode == 1
    assert "delayed_vlm_ros.errors." in done.stderr.splitlines()[-1]


def test_notebook_is_stored_without_outputs():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells if cell["cell_type"] == "code")
