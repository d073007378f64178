"""Network streams as video sources, from a server in this process."""

import time
from itertools import pairwise

import pytest
from mjpeg_server import MjpegServer

from delayed_vlm_ros.errors import RecordingError, VideoSourceError, without_credentials
from delayed_vlm_ros.images import video_player
from delayed_vlm_ros.images.video import open_video
from delayed_vlm_ros.images.video_player import VideoPlayer
from delayed_vlm_ros.replay.recordings import open_recording


@pytest.fixture
def server():
    server = MjpegServer()
    yield server
    server.close()


def wait_for(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_stream_yields_live_images_with_increasing_stamps_and_hides_its_password(server):
    with open_video(server.address) as video:
        frames = [frame for _, frame in zip(range(8), video.frames(), strict=False)]
    assert (video.is_device, video.frame_count, video.kind) == (True, None, "network stream")
    assert all(later.stamp > earlier.stamp for earlier, later in pairwise(frames))
    assert frames[0].image.shape == (48, 64, 3)
    assert "secret" not in video.name
    assert video.name.startswith("http://***@127.0.0.1")


def test_player_reports_a_stream_that_stops_and_plays_it_again(server, monkeypatch):
    # given
    monkeypatch.setattr(video_player, "RETRY_SEC", 0.05)
    shown, opened, errors = [], [], []
    player = VideoPlayer(server.address, shown.append, loop=False, on_open=opened.append, on_retry=errors.append)
    player.start()
    wait_for(lambda: len(shown) >= 3)

    # when the server stops
    server.close()
    wait_for(lambda: player.status.is_retrying)
    before = len(shown)

    # and returns
    again = MjpegServer(server.port)
    wait_for(lambda: len(shown) > before + 2)
    player.close()
    again.close()

    # then both are reported
    assert len(opened) == 2
    assert len(errors) == 1
    assert "stopped delivering images" in str(errors[0])
    assert "secret" not in str(errors[0])


def test_missing_server_is_reported_without_the_password(server):
    server.close()
    with pytest.raises(VideoSourceError) as caught:
        open_video(server.address)
    assert "127.0.0.1" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "named"),
    [
        ("rtsp://me:pw@host/stream", "rtsp://***@host/stream"),
        ("rtsp://me:p/w@host/stream", "rtsp://***@host/stream"),
        ("rtsp:/me:pw@host/stream", "rtsp:/***@host/stream"),
        ("rtsp://me:p@w@host/stream", "rtsp://***@host/stream"),
        ("rtsp://host/a?user=me&password=pw&channel=1", "rtsp://host/a?user=me&password=***&channel=1"),
        ("rtsp://me:p w@host/stream", "rtsp://***@host/stream"),
        ("rtsp://me:p'w@host/stream", "rtsp://***@host/stream"),
        ("rtsp://me@host/stream", "rtsp://***@host/stream"),
        ("rtsp://host/a?user=me&password=p w", "rtsp://host/a?user=me&password=***"),
        ("rtsp://host/user=me_password=pw_channel=1.sdp", "rtsp://host/user=me_password=***_channel=1.sdp"),
        ("rtsp://host:554/a?channel=1", "rtsp://host:554/a?channel=1"),
        ("rtsp://host/cam@1", "rtsp://host/cam@1"),
        ("/data/a@b.mp4", "/data/a@b.mp4"),
    ],
)
def test_credentials_are_hidden(address, named):
    assert without_credentials(address) == named


def test_unknown_scheme_is_named():
    with pytest.raises(VideoSourceError) as caught:
        open_video("gopher://host/video")
    assert "'gopher'" in str(caught.value)


def test_replay_of_a_stream_is_refused_with_the_remedy():
    with pytest.raises(RecordingError) as caught:
        open_recording("rtsp://me:secret@host/stream")
    assert "network stream" in str(caught.value)
    assert "secret" not in str(caught.value)
