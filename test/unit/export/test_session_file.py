"""The MCAP file of an export: two readers find what the export counts, at its stamps."""

from __future__ import annotations

import errno
import io
import json
import math

import pytest
from export_contents import ALL, MARKUP, NOON_NS, PAIRS, PNG, POSE, SECOND_NS, pair, records
from mcap.reader import make_reader
from rosbags.highlevel import AnyReader

from delayed_vlm_ros.errors import ExportError
from delayed_vlm_ros.export.contents import Evidence, ExportedAnswer, PairImages
from delayed_vlm_ros.export.session_file import METADATA, SessionFile, write_with_session_file
from delayed_vlm_ros.export.targets import FolderTarget
from delayed_vlm_ros.export.writer import SESSION_FILE

TEXT = MARKUP.replace("\ud800", "?")


def exported(folder, what, pairs):
    with FolderTarget(folder) as target:
        counts = write_with_session_file(what, iter(pairs), target)
    return counts, folder / SESSION_FILE


def read(file):
    """Return (time, message) of each topic, as rosbags reads them."""
    found = {}
    with AnyReader([file]) as reader:
        for connection, stamp_ns, data in reader.messages():
            message = reader.deserialize(data, connection.msgtype)
            found.setdefault(connection.topic, []).append((stamp_ns, message))
    return found


def metadata_of(file):
    with file.open("rb") as stream:
        (record,) = [one for one in make_reader(stream).iter_metadata() if one.name == METADATA]
        return record.metadata


def test_counts_are_those_that_two_readers_find(tmp_path):
    counts, file = exported(tmp_path / "out", ALL, PAIRS)
    by_topic = {topic: len(messages) for topic, messages in read(file).items()}
    assert by_topic == {
        "/scene_memory/front/kept_images": 2,
        "/scene_memory/front/pose": 1,
        "/scene_memory/_cam/kept_images": 1,
        "/scene_memory/pairs": counts.pairs,
        "/scene_memory/answers": counts.answers,
        "/scene_memory/alerts": counts.alerts,
        "/scene_memory/journal": counts.lines,
    }
    with file.open("rb") as stream:
        summary = make_reader(stream, validate_crcs=True).get_summary()
    found = {summary.channels[one].topic: n for one, n in summary.statistics.channel_message_counts.items()}
    assert found == by_topic


def test_images_and_pose_are_at_their_stamps(tmp_path):
    _, file = exported(tmp_path / "out", ALL, PAIRS)
    topics = read(file)
    images = topics["/scene_memory/front/kept_images"]
    assert [stamp for stamp, _ in images] == [NOON_NS + 2 * SECOND_NS, NOON_NS + 2 * SECOND_NS + 1]
    for stamp, image in images:
        assert image.header.stamp.sec * SECOND_NS + image.header.stamp.nanosec == stamp
        assert (image.format, image.data.tobytes(), image.header.frame_id) == ("png", PNG, "front")
    ((stamp, pose),) = topics["/scene_memory/front/pose"]
    assert (stamp, pose.header.frame_id) == (NOON_NS + 2 * SECOND_NS, POSE.frame_id)
    position, orientation = pose.pose.position, pose.pose.orientation
    assert (position.x, position.y, position.z) == POSE.position
    assert (orientation.x, orientation.y, orientation.z, orientation.w) == POSE.orientation


def test_texts_and_evidence_are_those_of_the_records(tmp_path):
    _, file = exported(tmp_path / "out", ALL, PAIRS)
    topics = read(file)
    stamp, answer = topics["/scene_memory/answers"][0]
    assert (stamp, answer.question, answer.answer, answer.warnings) == (NOON_NS, TEXT, TEXT, [TEXT])
    assert answer.pair_ids.tolist() == [1, 2]
    (best,) = answer.evidence
    assert (best.pair_id, best.stamp.sec, best.relevance) == (2, NOON_NS // SECOND_NS + 2, 0.7)
    assert topics["/scene_memory/answers"][1][1].error == "no frames"
    ((_, alert),) = topics["/scene_memory/alerts"]
    assert (alert.watch, alert.is_rising, alert.p_yes, alert.pair_ids.tolist()) == ("door", True, 0.9, [1])
    ((_, line),) = topics["/scene_memory/journal"]
    assert (line.id, line.caption, line.reason) == (5, TEXT, "new place")
    assert {(one.id, one.camera, one.label) for _, one in topics["/scene_memory/pairs"]} == {
        (2, "front", TEXT),
        (1, "../門 cam", ""),
    }


def test_unknown_relevance_is_not_a_number(tmp_path):
    answer = ExportedAnswer(NOON_NS, "", "q", "a", "", (), (Evidence(1, NOON_NS, None),), ())
    _, file = exported(tmp_path / "out", records(answers=(answer,)), [])
    assert math.isnan(read(file)["/scene_memory/answers"][0][1].evidence[0].relevance)


def test_pairs_that_left_and_warnings_are_in_the_metadata(tmp_path):
    _, file = exported(tmp_path / "out", ALL, PAIRS)
    metadata = metadata_of(file)
    assert (metadata["pairs"], metadata["images"], metadata["pairs_left"]) == ("2", "3", "1")
    assert json.loads(metadata["pairs_left_ids"]) == [9]
    assert metadata["source"] == "robot"


def test_empty_session_is_a_valid_file(tmp_path):
    _, file = exported(tmp_path / "out", records(), [])
    assert read(file) == {}
    assert metadata_of(file)["pairs"] == "0"


def test_stamps_that_do_not_count_from_1970_are_kept(tmp_path):
    _, file = exported(tmp_path / "out", records(), [PairImages(pair(1, stamp_ns=0, end_stamp_ns=5), PNG, PNG)])
    assert [stamp for stamp, _ in read(file)["/scene_memory/front/kept_images"]] == [0, 5]


class FullDisk(io.BytesIO):
    """A disk with space for some writes."""

    def __init__(self, writes):
        super().__init__()
        self.left = writes

    def write(self, data):
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)


@pytest.mark.parametrize("missing", ["all", "half", "one"])
def test_full_disk_is_reported_and_leaves_nothing(tmp_path, monkeypatch, missing):
    # given a disk that fills up at the first write, half-way, or at the last one
    needed = FullDisk(10**9)
    real = SessionFile.__init__
    monkeypatch.setattr(SessionFile, "__init__", lambda self, _stream: real(self, needed))
    exported(tmp_path / "counted", ALL, PAIRS)
    writes = 10**9 - needed.left
    disk = FullDisk({"all": 0, "half": writes // 2, "one": writes - 1}[missing])
    monkeypatch.setattr(SessionFile, "__init__", lambda self, _stream: real(self, disk))

    # then
    with pytest.raises(ExportError, match=r"No space left on device.*choose a new folder"):
        exported(tmp_path / "out", ALL, PAIRS)
    assert [one.name for one in tmp_path.iterdir()] == ["counted"]
