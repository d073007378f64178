"""Exports: what is promised is written, text is shown as text, and a failure leaves nothing."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import stat
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import pytest
from export_contents import ALL, MARKUP, NOON_NS, PAIRS, PNG, SECOND_NS, pair, records

from delayed_vlm_ros.errors import ExportError
from delayed_vlm_ros.export.contents import (
    Evidence,
    ExportCounts,
    ExportedAnswer,
    PairImages,
    Records,
)
from delayed_vlm_ros.export.targets import FolderTarget, ZipTarget
from delayed_vlm_ros.export.writer import write_export


def exported(folder: Path, what: Records, pairs) -> tuple[ExportCounts, dict]:
    with FolderTarget(folder) as target:
        counts = write_export(what, iter(pairs), target)
    return counts, json.loads((folder / "export.json").read_text(encoding="utf-8"))


class Page(HTMLParser):
    """Tags, addresses and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]

    def handle_data(self, data):
        self.text += data


def test_counts_are_those_of_the_files_and_of_the_page(tmp_path):
    # when
    counts, data = exported(tmp_path / "out", ALL, PAIRS)

    # then
    assert counts == ExportCounts(pairs=2, images=3, pairs_left=1, answers=2, alerts=1, lines=1)
    assert data["counts"] == vars(counts)
    files = sorted(str(file.relative_to(tmp_path / "out")) for file in (tmp_path / "out").rglob("*.png"))
    assert files == sorted(name for entry in data["pairs"] for name in entry["files"])
    assert len(files) == 3
    assert [entry["id"] for entry in data["pairs"]] == [1, 2]  # oldest first
    assert data["pairs_left"] == [9]
    assert [len(data[kind]) for kind in ("answers", "alerts", "journal")] == [2, 1, 1]
    page = Page((tmp_path / "out" / "index.html").read_text(encoding="utf-8"))
    assert page.tags.count("img") == 2
    assert page.tags.count("article") == 2
    assert "2 pairs of frames (3 images), 2 answers, 1 alerts, 1 lines of the journal" in page.text
    assert "1 pairs left the memory during the export" in page.text


def test_images_answers_and_poses_are_unchanged(tmp_path):
    _, data = exported(tmp_path / "out", ALL, PAIRS)
    newest = data["pairs"][1]
    assert (tmp_path / "out" / newest["files"][0]).read_bytes() == PNG
    assert newest["stamp_ns"] == NOON_NS + 2 * SECOND_NS
    assert newest["pose"] == {"frame_id": "map", "position": [1.0, 2.0, 0.5], "orientation": [0.0, 0.0, 0.0, 1.0]}
    assert data["answers"][0]["question"] == MARKUP.replace("\ud800", "?")
    assert data["answers"][0]["evidence"] == [{"pair_id": 2, "stamp_ns": NOON_NS + 2 * SECOND_NS, "relevance": 0.7}]
    assert data["answers"][1]["error"] == "no frames"


def test_page_shows_text_as_text_and_refers_to_nothing_outside(tmp_path):
    exported(tmp_path / "out", ALL, PAIRS)
    source = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    page = Page(source)
    assert "script" not in page.tags
    assert page.text.count('<script>alert(1)</script> & "Tür" 門 \'?') >= 6
    assert page.addresses
    assert all(address.startswith(("data:image/jpeg;base64,", "#pair-")) for address in page.addresses)
    assert "#pair-2" in page.addresses
    assert 'id="pair-2"' in source
    assert not re.search(r"url\(|@import|https?:", source)
    assert "default-src 'none'" in source


def test_evidence_of_another_pair_with_the_same_id_is_no_link(tmp_path):
    answer = ExportedAnswer(NOON_NS, "", "What?", "A box.", "", (1, 2), (Evidence(2, NOON_NS - SECOND_NS, 0.7),), ())
    exported(tmp_path / "out", records(answers=(answer,)), PAIRS)
    page = Page((tmp_path / "out" / "index.html").read_text(encoding="utf-8"))
    assert "#pair-2" not in page.addresses
    assert "(0.70), no longer kept" in page.text


def test_names_of_cameras_lead_to_no_other_folder(tmp_path):
    exported(tmp_path / "out", ALL, PAIRS)
    assert {file.parent for file in tmp_path.rglob("*.png")} == {tmp_path / "out" / "frames"}
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_export_is_readable_for_its_owner_only(tmp_path):
    exported(tmp_path / "out", ALL, PAIRS)
    for file in (tmp_path / "out", *(tmp_path / "out").rglob("*")):
        assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0, file


def test_empty_memory_is_exported(tmp_path):
    counts, data = exported(tmp_path / "out", records(), [])
    assert counts == ExportCounts(0, 0, 0, 0, 0, 0)
    assert data["pairs"] == []
    assert "0 pairs of frames" in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")


def test_existing_empty_folder_is_used(tmp_path):
    (tmp_path / "out").mkdir()
    exported(tmp_path / "out", records(), [])
    assert (tmp_path / "out" / "index.html").is_file()


@pytest.mark.parametrize("kind", ["folder with a file", "file", "link"])
def test_existing_path_is_refused_and_unchanged(tmp_path, kind):
    path = tmp_path / "out"
    if kind == "folder with a file":
        path.mkdir()
        (path / "mine").write_text("text")
    elif kind == "file":
        path.write_text("text")
    else:
        path.symlink_to(tmp_path / "nowhere")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ExportError, match="exists: choose a new folder"):
        FolderTarget(path)
    assert sorted(tmp_path.rglob("*")) == before


def test_folder_in_a_missing_one_is_refused(tmp_path):
    with pytest.raises(ExportError, match="No such file"), FolderTarget(tmp_path / "a" / "b"):
        pass


@pytest.mark.parametrize("failing", ["1.png", "export.json", "index.html"])
def test_full_disk_leaves_nothing_and_is_reported(tmp_path, monkeypatch, failing):
    # given
    real = os.open

    def full(path, *arguments, **options):
        if str(path).endswith(failing):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", full)

    # then
    with pytest.raises(ExportError, match="No space left on device"):
        exported(tmp_path / "out", ALL, PAIRS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, ZeroDivisionError])
def test_interrupted_export_leaves_nothing(tmp_path, interruption):
    def pairs():
        yield PAIRS[0]
        raise interruption

    with pytest.raises(interruption):
        exported(tmp_path / "out", ALL, pairs())
    assert list(tmp_path.iterdir()) == []


def test_image_that_cannot_be_decoded_is_written_and_has_no_thumbnail(tmp_path):
    counts, _ = exported(tmp_path / "out", records(), [PairImages(pair(1), b"no image", b"")])
    assert counts.images == 1
    assert Page((tmp_path / "out" / "index.html").read_text(encoding="utf-8")).tags.count("img") == 0


class Stream(io.RawIOBase):
    """A stream that cannot seek."""

    def __init__(self) -> None:
        self.data = b""

    def writable(self):
        return True

    def write(self, data):
        self.data += bytes(data)
        return len(data)


def test_zip_file_of_a_stream_has_the_same_files(tmp_path):
    # when
    stream = Stream()
    target = ZipTarget(stream, "memory")
    counts = write_export(ALL, iter(PAIRS), target)
    target.close()
    exported(tmp_path / "memory", ALL, PAIRS)

    # then
    with zipfile.ZipFile(io.BytesIO(stream.data)) as archive:
        assert archive.testzip() is None
        found = {name: archive.read(name) for name in archive.namelist()}
    assert found == {
        str(file.relative_to(tmp_path)): file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()
    }
    assert sum(name.endswith(".png") for name in found) == counts.images


def test_recording_without_calendar_has_times_in_seconds(tmp_path):
    _, data = exported(tmp_path / "out", records(), [PairImages(pair(1, stamp_ns=12 * SECOND_NS), PNG, PNG)])
    assert data["pairs"][0]["time"] == "12.000 s"
