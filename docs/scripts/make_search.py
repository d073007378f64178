"""Write the table of docs/search.md from the output of ``python -m lab bench find --json``.

Run it after ``lab/bench/results/find.json`` has changed; a test compares page and file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "search.md"
RESULT = Path(__file__).parents[2] / "lab" / "bench" / "results" / "find.json"

_BEGIN, _END = "<!-- made by docs/scripts/make_search.py -->\n", "<!-- end of results -->\n"


def page() -> str:
    """Return the page with its table generated."""
    before, rest = PAGE.read_text(encoding="utf-8").split(_BEGIN)
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    return before + _BEGIN + "".join(f"{line}\n" for line in _lines(result)) + _END + rest.split(_END)[1]


def _lines(result: Mapping[str, Any]) -> Iterator[str]:
    shape, whole = result["shape"], result["all"]
    yield (
        f"Embedded model, held-out seeds, streams of {shape['minutes']:g} minutes, {shape['star_frames']} frames in "
        f"Star memory and {shape['stream_frames']} in Stream memory. An event is a visit of an object. It is kept if a "
        "kept pair shows the object clearly; it is found if one of the first ten moments has a pair of it. Of more "
        "than ten events, ten count."
    )
    yield ""
    yield "| rooms | streams | descriptions | kept events | found by search | newest pairs | most important | random |"
    yield "| --- |" + " ---: |" * 7
    for name, one in {**result["rooms"], "all": whole}.items():
        recall = (one["recall_first_10"][method]["mean"] for method in ("search", "newest", "most important", "random"))
        counts = f"{one['streams']} | {one['descriptions']} | {one['kept_events']}"
        yield f"| {name} | {counts} | {' | '.join(f'{share:.3f}' for share in recall)} |"
    kinds = ", ".join(f"{kind} {share:.3f}" for kind, share in whole["recall_by_kind"].items() if share is not None)
    yield ""
    yield (
        f"By what the description names: {kinds}. Of the moments with a score of 0.5 or more, "
        f"{100 * whole['right_of_fitting']:.0f} % show it. A search takes {whole['search_sec']:.1f} s of one processor "
        f"core for {whole['kept_pairs']:.0f} pairs."
    )
    journal = whole["journal"]
    if journal["events"]:
        yield ""
        yield (
            f"With a journal ({journal['lines_per_hour']:.0f} lines and {journal['device_sec_per_hour']:.0f} s of one "
            f"processor core an hour), {journal['recall_first_10']:.3f} of {journal['events']} events that were "
            "captioned and are no longer kept are among its first ten moments."
        )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
