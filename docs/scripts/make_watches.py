"""Write the tables of docs/watches.md from the output of ``python -m lab bench watches --json`` and ``watch-cost``.

Run it after ``lab/bench/results/watches.json``, ``watches_compared.json`` or ``watch_cost.json`` has changed; a test
compares page and files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "watches.md"
RESULTS = Path(__file__).parents[2] / "lab" / "bench" / "results"

_BEGIN, _END = "<!-- made by docs/scripts/make_watches.py -->\n", "<!-- end of results -->\n"


def page() -> str:
    """Return the page with its tables generated."""
    before, rest = PAGE.read_text(encoding="utf-8").split(_BEGIN)
    lines = [*_alerts(_read("watches")), *_compared(_read("watches_compared")), *_cost(_read("watch_cost"))]
    return before + _BEGIN + "".join(f"{line}\n" for line in lines) + _END + rest.split(_END)[1]


def _read(name: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return result


def _alerts(result: Mapping[str, Any]) -> Iterator[str]:
    shape = result["shape"]
    yield (
        f"Embedded model, held-out seeds, streams of {shape['minutes']:g} minutes, period {shape['period_sec']:g} s, "
        f"{shape['yes_checks']} of {shape['of_checks']} checks:"
    )
    yield ""
    yield "| rooms | streams | watches | events | precision | recall | F1 (95 % interval) | median delay, p90 |"
    yield "| --- |" + " ---: |" * 7
    for name, one in {**result["rooms"], "all": result["all"]}.items():
        f1, delay = one["f1"], one["delay_sec"]
        yield (
            f"| {name} | {one['streams']} | {one['watches']} | {one['events']} | {one['precision']:.3f} | "
            f"{one['recall']:.3f} | {f1['mean']:.3f} ({f1['low']:.3f} to {f1['high']:.3f}) | "
            f"{delay['median']:.1f} s, {delay['p90']:.1f} s |"
        )
    whole, words = result["all"], result["unknown_words"]
    yield ""
    yield (
        f"Watches of objects that never came had {whole['absent_false_alarms']} alerts in {whole['absent_hours']:.1f} "
        f"hours. Questions with unknown words were unknown in {100 * words['unknown_share']:.1f} % of "
        f"{words['outcomes']} checks."
    )
    yield ""
    yield "| probability of yes | checks | mean | yes was true | steady views | yes was true |"
    yield "| --- |" + " ---: |" * 5
    for row in whole["reliability"]:
        steady = row["steady_true_yes"]
        yield (
            f"| {row['from']:g} to {row['to']:g} | {row['checks']} | {row['p_yes']:.3f} | {row['true_yes']:.3f} | "
            f"{row['steady_checks']} | {'' if steady is None else f'{steady:.3f}'} |"
        )
    yield ""


def _compared(result: Mapping[str, Any]) -> Iterator[str]:
    methods = result["compared"]
    events = methods["watches"]["events"]
    yield f"The same questions at the same times by other methods, {events} events:"
    yield ""
    yield "| method | F1 | median delay | device seconds an hour | ms a question |"
    yield "| --- |" + " ---: |" * 4
    for name, one in methods.items():
        yield (
            f"| {name} | {one['f1']['mean']:.2f} | {one['delay_sec']['median']:.1f} s | "
            f"{one['device_sec_per_hour']:.0f} | {one['device_ms_per_check']:.1f} |"
        )
    yield ""


def _cost(result: Mapping[str, Any]) -> Iterator[str]:
    shape, ratios = result["shape"], result["ratios"]
    yield (
        f"Twenty watches, {shape['parameters'] / 1e6:.1f} million parameters, {shape['pairs']} pairs of "
        f"{shape['tokens_per_pair']} tokens, {shape['question_tokens']} tokens a question, on a {shape['device']} "
        f"(load {shape['load'][0]:g}):"
    )
    yield ""
    yield "| cost | ratio |"
    yield "| --- | ---: |"
    for text, name in _RATIOS.items():
        yield f"| {text} | {ratios[name]:.3f} |"
    yield ""


_RATIOS = {
    "twenty watches, prefix ready ÷ twenty warm questions with answers of up to 16 tokens": "watches_over_answers_16",
    "the same ÷ twenty warm questions with answers of one token": "watches_over_answers_1",
    "one more watch ÷ native inference": "one_more_over_native",
    "moving scene, first check of twenty watches ÷ native inference about one question": "moving_first_over_native",
    "moving scene, check while the start of the window rests": "moving_steady_over_native",
    "moving scene, check where it moves": "moving_step_over_native",
    "moving scene, mean": "moving_mean_over_native",
}


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
