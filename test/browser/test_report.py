"""The report of replayed recordings: its content, and its behaviour in a browser."""

from __future__ import annotations

import base64
import csv
import io
import itertools
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from delayed_vlm_ros.replay.report import numbers
from delayed_vlm_ros.replay.report.page import COLUMNS, write_report
from delayed_vlm_ros.replay.report.summary import make_table, methods_of, summarise
from delayed_vlm_ros.replay.report.timeline import lay_out, spread
from delayed_vlm_ros.scenes import Scene, render

EVIL = '<script>alert("1")</script> & <b>"bold"</b>'
METHODS = ("delayed", "delayed_uncached", "native_kept", "native_all", "newest_4", "an unknown method <i>")
MATCH = {"exact_match": True, "contains": True, "token_f1": 1.0, "chrf": 0.98, "length_ratio": 1.0}
MISMATCH = {"exact_match": False, "contains": False, "token_f1": 0.25, "chrf": 0.3, "length_ratio": 0.4}


def thumbnail(seed=3, at=1.0):
    written = io.BytesIO()
    Image.fromarray(render(Scene.from_seed(seed), at, 120, 160)).save(written, "JPEG", quality=75)
    return base64.b64encode(written.getvalue()).decode()


def make_answer(text="a red box", **fields):
    return {
        "answer": text,
        "error": "",
        "first_token_sec": 0.05,
        "total_sec": 0.3,
        "visual_tokens": 320,
        "kv_length": 350,
        "peak_memory_bytes": 12_000_000,
        "frames_encoded": 4,
        "frames_reused": 36,
        "cached_bytes": 1_000_000,
        "evidence": [1, 2],
        "scores": dict(MATCH),
        "agreement": dict(MATCH),
        "warnings": [],
    } | fields


def make_question(number=1, at=10.0, methods=("delayed",), **fields):
    return {
        "number": number,
        "at": at,
        "asked_at": at,
        "gap_sec": 0.0,
        "after_end": False,
        "ask": "What is on the table?",
        "expect": ["a red box"],
        "kind": "backward",
        "answers": {method: make_answer() for method in methods},
    } | fields


def make_result(name="kitchen", frames=240, questions=(), pairs=20, **fields):
    rows = [
        {
            "at": number / 2,
            "pair": 1 + number // 2,
            "importance": 0.5 + 0.5 * np.sin(number / 9),
            "reason": "local change",
            "in_star": number % 7 == 0,
            "star_frames": min(20, number // 6),
            "stream_frames": min(20, number + 1),
            "kept_bytes": min(number, 40) * 230_400,
        }
        for number in range(frames)
    ]
    image = thumbnail()
    return {
        "version": 3,
        "error": "",
        "complete": True,
        "warnings": [],
        "recording": {
            "name": name,
            "path": f"recordings/{name}",
            "kind": "bag",
            "topic": "/camera/image_raw",
            "images": 3600,
            "sampled": frames,
            "dropped": 2,
            "drop_reasons": {"out of order": 2},
            "first_stamp": 1_700_000_000.0,
            "duration_sec": frames / 2,
            "sizes": {"640x480": 3600},
            "warnings": [],
        },
        "settings": {"model": "tiny_scene", "star_memory_size": 20, "sample_fps": 2.0},
        "environment": {"package": "0.1.0", "machine": "x86_64, 2 processors"},
        "timeline": rows,
        "pairs": {
            str(number): {
                "at": [frames / 2 * number / (pairs + 1), frames / 2 * number / (pairs + 1) + 0.5],
                "importance": 0.7,
                "reason": "novel view",
                "thumbnail": image,
            }
            for number in range(1, pairs + 1)
        },
        "kept": [
            {"pair": number, "in_star": number <= pairs // 2, "in_stream": number >= pairs // 2}
            for number in range(1, pairs + 1)
        ],
        "questions": list(questions),
        "summary": {},
        "seconds": 34.5,
    } | fields


def make_failed_result(name="yard"):
    return {
        "version": 3,
        "error": "yard.mcap is not a recording: its magic is missing",
        "traceback": "Traceback of the error",
        "complete": False,
        "warnings": [],
        "recording": {"name": name, "path": "recordings/yard.mcap"},
    }


def several():
    first = make_result(
        questions=[
            make_question(1, 10.0, METHODS),
            make_question(2, 10.0, METHODS, ask=EVIL, kind="live", expect=[EVIL]),
            make_question(3, 60.0, METHODS, kind="", expect=[], ask="Опиши комнату 描述房间 🤖"),
        ]
    )
    first["questions"][0]["answers"]["native_all"] |= {"answer": "", "error": "out of memory", "scores": None}
    first["questions"][0]["answers"]["newest_4"] |= {"answer": "a dog", "scores": MISMATCH, "agreement": MISMATCH}
    first["questions"][1]["answers"]["delayed"] |= {"answer": EVIL, "warnings": [f"shorter than half {EVIL}"]}
    for answer in first["questions"][2]["answers"].values():
        answer |= {"answer": "word " * 400, "scores": None, "agreement": None}
    names = ("first_token_sec", "total_sec", "visual_tokens", "kv_length", "peak_memory_bytes", "cached_bytes")
    first["questions"][2]["answers"]["newest_4"] |= dict.fromkeys((*names, "frames_encoded", "frames_reused"))
    second = make_result("corridor", frames=12, pairs=3, complete=False, warnings=[f"damaged {EVIL}"])
    second["questions"] = [make_question(number, number / 2, METHODS[:3]) for number in range(1, 12)]
    return [first, second, make_failed_result()]


class Page(HTMLParser):
    """Elements of a page with their attributes, and its text."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def page_of(results, folder):
    return write_report(results, folder).read_text(encoding="utf-8")


def rows_of(folder):
    with (folder / "answers.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# --- content


def test_files_have_no_control_characters(tmp_path):
    hostile = "bag\x1b[2J\x9b31m\udcff"
    result = make_result(hostile, questions=[make_question(answers={"delayed": make_answer(hostile)})])
    page = page_of([result], tmp_path)
    table = (tmp_path / "answers.csv").read_text(encoding="utf-8")
    for written in (page, table):
        assert "bag\\x1b[2J\\x9b31m\\udcff" in written
        assert not re.search("[\0-\x09\x0b-\x1f\x7f-\x9f]", written)


def test_page_shows_recordings_methods_answers_and_setup(tmp_path):
    # when
    file = write_report(several(), tmp_path / "new" / "folder")

    # then
    text = Page(file.read_text(encoding="utf-8")).text
    assert file == tmp_path / "new" / "folder" / "report.html"
    assert sorted(path.name for path in file.parent.iterdir()) == ["answers.csv", "report.html"]
    for words in (
        "kitchen · corridor · yard",
        "14 questions, 13 with an expected answer (12 backward, 1 live)",
        "Incomplete: corridor , yard",
        "delayed, with caches (this package)",
        "delayed, caches dropped before each question",
        "native video inference on the kept frames",
        "native video inference on all sampled frames",
        "newest 4 frames only",
        "an unknown method <i>",
        "What is on the table?",
        "Опиши комнату 描述房间 🤖",
        "out of memory",
        "2 (2 × out of order)",
        "2023-11-14 22:13:20 UTC",
        "yard.mcap is not a recording: its magic is missing",
        "Traceback of the error",
        "star_memory_size 20",
        "x86_64, 2 processors",
    ):
        assert words in text, words


def test_markup_in_results_is_escaped(tmp_path):
    page = Page(page_of(several(), tmp_path))
    assert "script" not in {tag for tag, _ in page.elements}
    assert page.text.count(EVIL) >= 5  # question, expected answer, answer, warnings


def test_page_has_no_external_reference(tmp_path):
    # given
    text = page_of(several(), tmp_path)
    # then
    assert not re.findall(r"https?://|//[a-z]|@import|url\((?!#)", text)
    for tag, attributes in Page(text).elements:
        for name in ("src", "href", "xlink:href", "action", "srcset"):
            assert attributes.get(name, "#").startswith(("#", "data:")), (tag, attributes)
        assert not [name for name in attributes if name.startswith("on")]


def test_identifiers_are_unique_and_references_resolve(tmp_path):
    elements = Page(page_of(several(), tmp_path)).elements
    identifiers = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    for _, attributes in elements:
        references = [attributes.get("popovertarget"), *attributes.get("aria-labelledby", "").split()]
        references.append(attributes.get("href", "")[1:] if attributes.get("href", "").startswith("#") else None)
        assert {reference for reference in references if reference} <= set(identifiers)


def test_image_shown_several_times_is_embedded_once(tmp_path):
    # given distinct images
    result = make_result(questions=[make_question(number, 10.0, METHODS, kind="") for number in range(1, 6)])
    for number, pair in result["pairs"].items():
        pair["thumbnail"] = thumbnail(at=int(number))
    # when
    text = page_of([result], tmp_path)
    # then
    assert [text.count(pair["thumbnail"]) for pair in result["pairs"].values()] == [1] * 20


def test_question_without_a_time_is_shown_at_the_end(tmp_path):
    # given
    result = make_result(questions=[make_question(1, None, asked_at=119.5), make_question(2, 10.0, asked_at=9.5)])
    # when
    text = Page(page_of([result], tmp_path)).text
    # then
    assert "at the end, asked at 1:59.5" in text
    assert "at 0:10, asked at 0:09.5" in text
    assert lay_out(result).pins[-1].number == 1


def test_pair_without_second_frame_counts_one_frame(tmp_path):
    # given a pair without a second frame
    result = make_result(pairs=2)
    result["pairs"]["2"]["at"] = [119.5, 119.5]
    # when
    text = Page(page_of([result], tmp_path)).text
    # then
    assert "frames kept at the end" not in text  # only shown next to the figures of methods
    assert "1:59.5 Stream" in text


def test_model_of_the_environment_is_shown(tmp_path):
    # given a setting that does not name the model
    result = make_result(questions=[make_question()], settings={"model": "auto"}, environment={"model": "a 3B one"})
    # then
    assert "model a 3B one." in Page(page_of([result, result], tmp_path)).text


def test_page_size_is_limited_for_a_long_recording(tmp_path):
    # given six hours
    result = make_result(frames=43_200, questions=[make_question()])
    # when
    text = page_of([result], tmp_path)
    # then
    images = sum(len(pair["thumbnail"]) for pair in result["pairs"].values())
    assert len(text) < images + 300_000
    assert "108 frames" in text


def test_same_results_produce_the_same_page(tmp_path):
    assert page_of(several(), tmp_path / "one") == page_of(several(), tmp_path / "two")


@pytest.mark.parametrize(
    "result",
    [
        make_failed_result(),
        make_result(questions=[]),
        make_result(frames=1, pairs=1),
        make_result(pairs=0),
        make_result(questions=[make_question(answers={})]),
        make_result(questions=[make_question(answers={"delayed": make_answer("", evidence=[77])})]),
    ],
    ids=["failed", "no questions", "one frame", "no kept pair", "no answers", "empty answer"],
)
def test_sparse_result_is_shown(tmp_path, result):
    assert result["recording"]["name"] in Page(page_of([result], tmp_path)).text


def test_page_without_results_says_so(tmp_path):
    assert "No question was answered." in Page(page_of([], tmp_path)).text
    assert rows_of(tmp_path) == []


def test_unreadable_thumbnail_is_shown_as_missing(tmp_path):
    # given
    result = make_result()
    result["pairs"]["1"]["thumbnail"] = "no base64"
    result["pairs"]["2"]["thumbnail"] = ""
    # then
    assert Page(page_of([result], tmp_path)).texts.count("no image") == 4  # in its lane and enlarged


def test_earlier_page_remains_when_writing_fails(tmp_path):
    # given
    earlier = page_of([make_failed_result()], tmp_path)
    # when
    with pytest.raises(KeyError):
        write_report([make_failed_result() | {"recording": {}}], tmp_path)
    # then
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == earlier


# --- the CSV table


def test_table_has_a_row_for_each_recording_question_and_method(tmp_path):
    # when
    write_report(several(), tmp_path)
    # then
    rows = rows_of(tmp_path)
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == 3 * 6 + 11 * 3
    first = rows[0]
    assert (first["recording"], first["number"], first["method"]) == ("kitchen", "1", "delayed")
    assert (first["complete"], first["exact_match"], first["agreement_chrf"]) == ("True", "True", "0.98")
    assert (first["first_token_sec"], first["evidence"], first["kv_length"]) == ("0.05", "1 2", "350")
    assert rows[6]["ask"] == rows[6]["expect"] == rows[6]["answer"] == EVIL
    assert rows[12]["ask"] == "Опиши комнату 描述房间 🤖"
    assert (rows[16]["method"], rows[16]["total_sec"], rows[16]["token_f1"]) == ("newest_4", "", "")


# --- figures


def test_summary_counts_scored_questions_and_uses_medians():
    # given
    answers = [make_answer(first_token_sec=0.1), make_answer(first_token_sec=0.5, scores=MISMATCH)]
    answers += [make_answer(first_token_sec=None, scores=None, agreement=None, error="busy", peak_memory_bytes=9e9)]
    questions = [
        make_question(answers={"delayed": answer}, kind=kind)
        for answer, kind in zip(answers, ("live", "order", "order"), strict=True)
    ]
    # when
    found = summarise(questions, "delayed")
    # then
    assert (found["asked"], found["answered"], found["scored"]) == (3, 2, 2)
    assert (found["exact_match"], found["agreement_exact"]) == (0.5, 1.0)
    assert (found["first_token_sec"], found["peak_memory_bytes"]) == (pytest.approx(0.3), 9e9)
    assert found["kinds"] == {"live": {"scored": 1, "exact_match": 1}, "order": {"scored": 1, "exact_match": 0}}


def test_best_figure_of_a_column_is_marked_if_figures_differ():
    # given two methods with equal scores, one of them slower
    questions = [make_question(answers={"delayed": make_answer(), "native_all": make_answer(total_sec=2.0)})]
    methods = methods_of([{"questions": questions}])
    # when
    table = make_table({method.key: summarise(questions, method.key) for method in methods}, methods)
    # then
    best = {
        heading: [cells[number].is_best for _, cells in table.rows] for number, heading in enumerate(table.headings)
    }
    assert best["total time"] == [True, False]
    assert best["all"] == best["time to first token"] == best["asked"] == [False, False]
    assert sum(columns for _, columns in table.groups) == len(table.headings) == len(table.labels)


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (numbers.seconds(0.0042), "4.2 ms"),
        (numbers.seconds(0.083), "83 ms"),
        (numbers.seconds(0.9999), "1.00 s"),
        (numbers.seconds(12.34), "12.3 s"),
        (numbers.seconds(125), "2 min 05 s"),
        (numbers.seconds(7500), "2 h 05 min"),
        (numbers.seconds(float("nan")), "–"),
        (numbers.size(512), "512 B"),
        (numbers.size(999_700), "1.0 MB"),
        (numbers.size(3.4e9), "3.4 GB"),
        (numbers.share(0.925), "92.5 %"),
        (numbers.share(None), "–"),
        (numbers.count(12_345), "12 345"),
        (numbers.count(2.5), "2.5"),
        (numbers.ratio(True), "–"),
        (numbers.clock(59.97), "1:00"),
        (numbers.clock(3723.5), "1:02:03.5"),
        (numbers.clock(-0.5), "−0:00.5"),
        (numbers.stamp(12.5), "12.500 s"),
    ],
)
def test_numbers_are_formatted_with_a_suitable_unit(shown, text):
    assert shown.replace("\u202f", " ") == text


# --- the timeline


@pytest.mark.parametrize("wanted", [[0, 0, 0, 0], [5, 50, 51, 99], [99, 99, 100], [10, 40, 70], []])
def test_spread_keeps_positions_apart_and_inside(wanted):
    # when
    positions = spread(wanted, 10, 5, 95)
    # then
    assert all(later - earlier >= 10 - 1e-9 for earlier, later in itertools.pairwise(positions))
    assert all(5 <= position <= 95 for position in positions)


def test_spread_moves_only_colliding_positions():
    assert spread([10, 40, 70], 10, 5, 95) == [10, 40, 70]
    assert spread([49, 51], 10, 5, 95) == [45, 55]


@pytest.mark.parametrize("pairs", [1, 10, 40, 300])
def test_crowded_thumbnails_do_not_overlap_in_the_layout(pairs):
    # when
    line = lay_out(make_result(pairs=pairs, questions=[make_question(number, 30.0) for number in range(9)]))
    # then
    for lane in (line.star, line.stream):
        positions = [column.position for column in lane.columns]
        assert all(later - earlier > 9 for earlier, later in itertools.pairwise(positions))
        assert max((len(column.pairs) for column in lane.columns), default=0) <= lane.rows <= 4
    assert line.pin_rows == 9  # all at the same time


# --- in a browser


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return write_report(several(), tmp_path_factory.mktemp("report")).as_uri()


@pytest.fixture(params=[(1920, "light"), (1920, "dark"), (390, "light"), (390, "dark")], ids=lambda p: f"{p[0]}-{p[1]}")
def page(request, browser, report):
    width, scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    opened = context.new_page()
    opened.set_default_timeout(60_000)
    opened.messages, opened.requests = [], []
    opened.on("console", lambda message: opened.messages.append(message.text))
    opened.on("pageerror", lambda error: opened.messages.append(str(error)))
    opened.on("request", lambda sent: opened.requests.append(sent.url))
    opened.goto(report)
    yield opened
    context.close()


def test_page_opens_without_messages_requests_or_horizontal_scrolling(page, report):
    # when all details are open
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    # then
    assert page.messages == []
    assert [url for url in page.requests if not url.startswith("data:")] == [report]
    for width in (page.viewport_size["width"], 1000, 700):
        page.set_viewport_size({"width": width, "height": 900})
        wide, window = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert wide <= window


def test_text_contrast_meets_wcag(page):
    # given
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    # when
    faint = page.evaluate(CONTRASTS)
    # then
    assert faint == []


def test_questions_and_thumbnails_open_by_keyboard(page):
    # given
    question = page.locator("#r2-q1")
    assert question.get_attribute("open") is None
    # when
    question.locator("> summary").focus()
    page.keyboard.press("Enter")
    # then
    assert question.get_attribute("open") is not None
    # when
    page.locator("#r1 .timeline .thumbnail").first.focus()
    page.keyboard.press("Enter")
    # then
    assert page.locator("#r1-p1-more").is_visible()
    # when
    page.keyboard.press("Escape")
    # then
    assert page.locator("#r1-p1-more").is_hidden()


def test_questions_are_filtered_by_keyboard(page):
    # when
    page.locator("#show-all").focus()
    page.keyboard.press("ArrowRight")
    # then
    assert [page.locator(f"#r1-q{number}").is_visible() for number in (1, 2, 3)] == [True, False, False]
    assert page.locator("#r2 .none-inexact").is_visible()


def test_thumbnails_on_the_timeline_do_not_overlap(page):
    boxes = page.evaluate(
        "[...document.querySelectorAll('#r1 .timeline .thumbnail')].map(one => one.getBoundingClientRect().toJSON())"
    )
    assert len(boxes) == 21
    for one, other in itertools.combinations(boxes, 2):
        apart_across = one["right"] <= other["left"] or other["right"] <= one["left"]
        assert apart_across or one["bottom"] <= other["top"] or other["bottom"] <= one["top"]


# Visible texts with a contrast below 4.5:1 to the nearest opaque background (WCAG 2.1).
CONTRASTS = """() => {
  const channels = text => {
    const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
    canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const cache = new Map();
  const parse = text => cache.get(text) ?? (cache.set(text, channels(text)), cache.get(text));
  const luminance = color => color.slice(0, 3).map(part => part / 255)
    .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
  const background = element => {
    for (let one = element; one; one = one.parentElement) {
      const color = parse(getComputedStyle(one).backgroundColor);
      if (color[3] === 255) return color;
    }
    return [255, 255, 255, 255];
  };
  const faint = new Set(), walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let words = 0;
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, text = walker.currentNode.textContent.trim();
    if (!text || !element.checkVisibility() || element.closest('title, desc')) continue;
    const style = getComputedStyle(element);
    const color = parse(element instanceof SVGElement ? style.fill : style.color);
    const [darker, lighter] = [luminance(color), luminance(background(element))].sort((a, b) => a - b);
    const contrast = (lighter + 0.05) / (darker + 0.05);
    words += 1;
    if (contrast < 4.5) faint.add(`${text.slice(0, 40)}: ${contrast.toFixed(2)}`);
  }
  return words > 500 ? [...faint] : [`only ${words} texts`];
}"""
