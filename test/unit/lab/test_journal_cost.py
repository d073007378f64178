"""What the journal costs: captions under the limit of device time, and the file."""

import pytest

pytest.importorskip("torch")

from lab.bench.journal_cost import cost_json, store_json


@pytest.mark.parametrize(
    ("evicted_an_hour", "caption_sec", "lines", "device_sec"),
    [(100.0, 0.25, 100.0, 25.0), (2000.0, 0.25, 1440.0, 360.0), (0.0, 0.25, 0.0, 0.0), (3600.0, 36.0, 10.0, 360.0)],
)
def test_captions_take_at_most_a_tenth_of_an_hour(evicted_an_hour, caption_sec, lines, device_sec):
    assert cost_json(evicted_an_hour, caption_sec) == {
        "evicted_an_hour": evicted_an_hour,
        "lines_an_hour": lines,
        "device_sec_an_hour": device_sec,
    }


def test_file_is_measured_with_all_its_lines(tmp_path):
    measured = store_json(tmp_path, 30)
    assert measured["rows"] == 30
    assert measured["rows_a_second"] > 0
    assert 4000 < measured["bytes_a_row"] < 12_000
    assert all(milliseconds > 0 for milliseconds in measured["search_ms"].values())
