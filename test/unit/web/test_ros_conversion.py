"""Messages of a node become objects of the page; images are checked before a browser decodes them."""

import math
from unittest.mock import MagicMock

import cv2
import numpy as np
import pytest
from image_bombs import jpeg_claiming

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from delayed_vlm_ros.msg import Alert, KeyFrame, Moment, SceneAnswer, WatchSettings, WatchState
from delayed_vlm_ros.srv import FindMoments
from sensor_msgs.msg import CompressedImage

from delayed_vlm_ros.errors import ImageError
from delayed_vlm_ros.export.contents import JournalLine
from delayed_vlm_ros.ros.journal_client import to_journal_line
from delayed_vlm_ros.ros.time import time_message
from delayed_vlm_ros.watches import Level
from delayed_vlm_ros.web.backend import FoundMoment, KeptFrame, KeptFrameImages
from delayed_vlm_ros.web.backends import ros
from delayed_vlm_ros.web.backends.ros_conversion import (
    to_answered_question,
    to_kept_images,
    to_search_outcome,
    to_watch_alert,
    to_watched_question,
)

JPEG = cv2.imencode(".jpg", np.zeros((4, 6, 3), np.uint8))[1].tobytes()


@pytest.mark.parametrize("second", [b"", JPEG])
def test_images_of_a_kept_pair_are_returned_unchanged(second):
    images = to_kept_images(CompressedImage(format="jpeg", data=JPEG), CompressedImage(format="jpeg", data=second))
    assert images == KeptFrameImages(JPEG, second)


@pytest.mark.parametrize("files", [(jpeg_claiming(30_000, 20_000), b""), (JPEG, b"<svg/>")])
def test_image_that_is_too_large_or_of_another_kind_is_refused(files):
    first, second = (CompressedImage(format="jpeg", data=file) for file in files)
    with pytest.raises(ImageError):
        to_kept_images(first, second)


def test_state_of_a_message_is_shown_with_its_numbers_and_reason():
    settings = WatchSettings(name="door", question="Is it open?", camera="front", last_sec=0.1, period_sec=0.3)
    known = WatchState(settings=settings, level=WatchState.YES, since=time_message(7), p_yes=0.75)
    shown = to_watched_question(known)
    assert (shown.level, shown.since_ns, shown.p_yes) == (Level.YES, 7, 0.75)
    assert (shown.watch.last_sec, shown.watch.period_sec) == (0.1, 0.3)
    unknown = to_watched_question(
        WatchState(settings=settings, level=WatchState.UNKNOWN, p_yes=math.nan, reason="no image")
    )
    settings.last_sec = -1.0
    assert to_watched_question(known).watch.last_sec == 0.0  # all frames
    assert (unknown.level, unknown.p_yes, unknown.reason) == (Level.UNKNOWN, None, "no image")


@pytest.mark.parametrize("edge", [Alert.RISING, Alert.FALLING])
def test_alert_of_a_message_has_its_evidence(edge):
    message = Alert(id=3, watch="door", question="Is it open?", camera="front", edge=edge, evidence=[KeyFrame(id=41)])
    message.header.stamp = time_message(9)
    alert = to_watch_alert(message)
    assert alert.is_rising == (edge == Alert.RISING)
    assert (alert.key, alert.evidence[0].id) == ("3-9", 41)


def test_answer_of_any_client_has_its_evidence_and_the_time_of_its_arrival():
    message = SceneAnswer(
        request_id="r",
        camera="*",
        question="What?",
        success=True,
        answer="Tür 門",
        frame_ids=[4, 41],
        evidence=[KeyFrame(id=41, relevance=0.75)],
    )
    message.metrics.warnings = ["old"]
    message.header.stamp = time_message(5)
    answer = to_answered_question(message, 9)
    assert (answer.id, answer.stamp_ns, answer.camera, answer.question) == ("r", 9, "*", "What?")
    assert (answer.answer, answer.error, answer.frame_ids, answer.warnings) == ("Tür 門", "", (4, 41), ("old",))
    assert [(one.frame.id, one.relevance) for one in answer.evidence] == [(41, 0.75)]


def test_failed_answer_has_its_error():
    assert to_answered_question(SceneAnswer(error_msg="no frames: wait"), 9).error == "no frames: wait"


def test_line_of_the_journal_is_returned_unchanged():
    moment = Moment(journal_id=7, camera="front", caption="eine Tür", reason="new thing", label="door")
    moment.header.stamp, moment.end_stamp = time_message(3), time_message(4)
    assert to_journal_line(moment) == JournalLine(7, "front", 3, 4, "eine Tür", "new thing", "door")


def test_found_moments_have_their_frame_if_it_is_still_kept_or_their_line():
    kept = Moment(id=4, score=0.9, thumbnail=CompressedImage(data=JPEG))
    left = Moment(id=5, score=0.8)
    line = Moment(journal_id=7, camera="front", score=0.5, caption="eine Tür")
    for moment in (kept, left, line):
        moment.header.stamp, moment.end_stamp = time_message(3), time_message(4)
    response = FindMoments.Response(
        moments=[kept, left, line], pairs_searched=9, journal_lines_searched=2, warnings=["stopped early"]
    )
    frame = KeptFrame(4, "front", 2, 3, 0.5, "", in_star=True, in_stream=False)
    outcome = to_search_outcome(response, {4: frame})
    assert outcome.moments == (
        FoundMoment(pytest.approx(0.9), 3, 4, frame, None, JPEG),
        FoundMoment(pytest.approx(0.8), 3, 4, None, None, b""),
        FoundMoment(0.5, 3, 4, None, JournalLine(7, "front", 3, 4, "eine Tür"), b""),
    )
    assert [moment.fits for moment in outcome.moments] == [True, True, False]  # a line needs all words
    assert (outcome.pairs_searched, outcome.journal_lines_searched, outcome.warnings) == (9, 2, ("stopped early",))
    kept.thumbnail.data = b"GIF89a"
    with pytest.raises(ImageError):
        to_search_outcome(response, {})


@pytest.mark.parametrize(("now_sec", "stamp_sec"), [(30, 30), (19, 20)])
def test_answer_is_not_older_than_its_newest_frame_on_a_camera_whose_clock_is_ahead(monkeypatch, now_sec, stamp_sec):
    # given
    monkeypatch.setattr(ros, "SceneMemoryClient", MagicMock())
    monkeypatch.setattr(ros, "WatchClient", MagicMock())
    backend = ros.RosBackend(MagicMock())
    monkeypatch.setattr(backend, "_now_ns", lambda: now_sec * 10**9)
    message = SceneAnswer(success=True)
    message.header.stamp.sec = 20

    # when
    backend._on_answer(message)

    # then
    assert backend.state().answers[0].stamp_ns == stamp_sec * 10**9
