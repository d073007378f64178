"""The ZIP file of the page: complete, or visibly not."""

from __future__ import annotations

import asyncio
import io
import json
import threading
import zipfile

import pytest

pytest.importorskip("nicegui", reason="NiceGUI is not installed: make setup")

from fastapi import FastAPI

from delayed_vlm_ros.errors import NodeNotFoundError
from delayed_vlm_ros.export.contents import JournalLine
from delayed_vlm_ros.web import export
from delayed_vlm_ros.web.backend import (
    MAX_JOURNAL_LINES,
    AnsweredQuestion,
    CameraState,
    EvidenceFrame,
    KeptFrame,
    KeptFrameImages,
    SceneState,
    WatchAlert,
)
from delayed_vlm_ros.web.export import add_export_route

START_NS = 1_795_953_600 * 10**9
BIG = 3_000_000


def frame(number: int) -> KeptFrame:
    stamp_ns = START_NS + number * 10**9
    return KeptFrame(number, "front", stamp_ns, stamp_ns + 1, 0.5, "new thing", in_star=True, in_stream=False)


class Memory:
    """A backend with ten frames; the test says which have left, and when the images can be read."""

    def __init__(self) -> None:
        self.frames = tuple(map(frame, range(10)))
        self.left: set[int] = set()
        self.lines = [JournalLine(1, "front", START_NS, START_NS, "eine Tür")]
        self.size = 100
        self.fails_from = 10**6
        self.ready = threading.Event()
        self.ready.set()

    def state(self) -> SceneState:
        alert = WatchAlert(
            1, "door", "Open?", "front", is_rising=True, p_yes=0.9, stamp_ns=START_NS, evidence=(frame(1),)
        )
        answer = AnsweredQuestion(
            "q", START_NS + 10**10, "", "What?", "门", frame_ids=(1,), evidence=(EvidenceFrame(frame(1), 0.7),)
        )
        return SceneState(
            connected=True, cameras=(CameraState("front", frames=self.frames),), alerts=(alert,), answers=(answer,)
        )

    def images(self, ids, image_format):
        assert image_format == "png"
        assert self.ready.wait(20)
        if max(ids) >= self.fails_from:
            raise NodeNotFoundError("no node: start it")
        image = bytes(self.size)
        return {frame(number).key: KeptFrameImages(image, b"2") for number in ids if number not in self.left}

    def journal(self, after_id, *, since_ns, until_ns):
        """Return the newest lines within the limits."""
        assert after_id == 0
        lines = [line for line in self.lines if since_ns <= line.stamp_ns <= (until_ns or line.stamp_ns)]
        return tuple(lines[-MAX_JOURNAL_LINES:])


class Visitor:
    """Requests the file from an application, and may leave."""

    def __init__(self, app: FastAPI, query: str = "") -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self.is_complete = False
        self.leaves = asyncio.Event()
        self.pauses = False
        self._app, self._query = app, query

    async def run(self) -> None:
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/export.zip",
            "raw_path": b"/export.zip",
            "http_version": "1.1",
            "query_string": self._query.encode(),
            "headers": [],
            "scheme": "http",
            "root_path": "",
            "server": ("127.0.0.1", 80),
            "client": ("127.0.0.1", 1),
        }
        is_sent = False

        async def receive():
            nonlocal is_sent
            if is_sent:
                await self.leaves.wait()
                return {"type": "http.disconnect"}
            is_sent = True
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message):
            if message["type"] == "http.response.start":
                self.status, self.headers = message["status"], dict(message["headers"])
            else:
                if self.pauses:
                    await asyncio.Event().wait()
                self.body += message["body"]
                self.is_complete = not message.get("more_body", False)

        await self._app(scope, receive, send)


@pytest.fixture
def memory():
    return Memory()


@pytest.fixture
def app(memory):
    app = FastAPI()
    add_export_route(app, memory)
    return app


def requested(app, query: str = "") -> Visitor:
    visitor = Visitor(app, query)
    asyncio.run(asyncio.wait_for(visitor.run(), 20))
    return visitor


def join_exports() -> None:
    for thread in threading.enumerate():
        if thread.name == "export":
            thread.join(10)
            assert not thread.is_alive()


def data_of(visitor: Visitor) -> dict:
    assert (visitor.status, visitor.is_complete) == (200, True)
    with zipfile.ZipFile(io.BytesIO(visitor.body)) as archive:
        assert archive.testzip() is None
        (name,) = [name for name in archive.namelist() if name.endswith("export.json")]
        data = json.loads(archive.read(name))
        files = [name.partition("/")[2] for name in archive.namelist()]
        assert sorted(files) == sorted(
            ["export.json", "index.html", *(file for pair in data["pairs"] for file in pair["files"])]
        )
        return data


def test_file_has_all_frames_and_records_and_says_which_frames_left(app, memory):
    memory.left = {3, 4}
    visitor = requested(app)
    data = data_of(visitor)
    assert [pair["id"] for pair in data["pairs"]] == [0, 1, 2, 5, 6, 7, 8, 9]
    assert data["pairs_left"] == [3, 4]
    assert data["counts"] == {"pairs": 8, "images": 16, "pairs_left": 2, "answers": 1, "alerts": 1, "lines": 1}
    assert data["answers"][0]["evidence"] == [{"pair_id": 1, "stamp_ns": START_NS + 10**9, "relevance": 0.7}]
    assert visitor.headers[b"content-disposition"].startswith(b'attachment; filename="scene-memory-')
    assert b"content-length" not in visitor.headers


def test_limits_select_frames_and_records(app):
    milliseconds = START_NS // 10**6
    data = data_of(requested(app, f"since={milliseconds + 2000}&until={milliseconds + 5000}"))
    assert [pair["id"] for pair in data["pairs"]] == [2, 3, 4, 5]
    assert data["counts"]["alerts"] == data["counts"]["answers"] == data["counts"]["lines"] == 0


def test_journal_that_is_cut_is_reported_and_a_shorter_time_of_it_is_complete(app, memory):
    # given
    memory.lines = [
        JournalLine(number, "front", START_NS + number * 10**6, START_NS, "a door")
        for number in range(MAX_JOURNAL_LINES + 10)
    ]

    # when
    data = data_of(requested(app))
    oldest = data_of(requested(app, f"until={START_NS // 10**6 + 4}"))

    # then
    assert len(data["journal"]) == MAX_JOURNAL_LINES
    assert any("Lines of the journal may be missing" in warning for warning in data["warnings"])
    assert [line["id"] for line in oldest["journal"]] == [0, 1, 2, 3, 4]
    assert oldest["warnings"] == []


@pytest.mark.parametrize("query", ["since=-1", "since=x", "until=1e9", "until=" + "9" * 30, "since="])
def test_invalid_time_is_refused(app, query):
    visitor = requested(app, query)
    assert visitor.status == 400
    assert data_of(requested(app))


def test_empty_memory_is_exported(app, memory):
    memory.frames = ()
    assert data_of(requested(app))["pairs"] == []


def test_unreachable_memory_is_reported_with_its_reason(app, memory):
    memory.fails_from = 0
    visitor = requested(app)
    assert visitor.status == 503
    assert visitor.body == b"The export failed: No node: start it."
    memory.fails_from = 10**6
    assert data_of(requested(app))


def test_file_that_fails_on_the_way_is_never_complete(app, memory):
    memory.size, memory.fails_from = BIG, 8
    visitor = requested(app)
    assert visitor.status == 200
    assert len(visitor.body) > BIG
    assert not visitor.is_complete
    with pytest.raises(zipfile.BadZipFile):
        zipfile.ZipFile(io.BytesIO(visitor.body))


def test_second_export_is_refused_until_the_first_has_ended(app, memory):
    async def both() -> tuple[Visitor, Visitor]:
        memory.ready.clear()
        first, second = Visitor(app), Visitor(app)
        running = asyncio.create_task(first.run())
        await asyncio.sleep(0.2)
        await second.run()
        memory.ready.set()
        await running
        return first, second

    first, second = asyncio.run(asyncio.wait_for(both(), 20))
    assert second.status == 503
    assert b"Another export is running" in second.body
    assert data_of(first)
    assert data_of(requested(app))


def test_browser_that_leaves_ends_the_export(app, memory):
    async def leave() -> Visitor:
        memory.size = BIG
        memory.ready.clear()
        visitor = Visitor(app)
        running = asyncio.create_task(visitor.run())
        await asyncio.sleep(0.2)
        visitor.leaves.set()
        await running
        memory.ready.set()
        return visitor

    assert not asyncio.run(asyncio.wait_for(leave(), 20)).is_complete
    join_exports()
    memory.size = 100
    assert data_of(requested(app))


def test_paused_download_ends_after_a_while_and_the_next_export_can_begin(app, memory, monkeypatch, caplog):
    # given
    monkeypatch.setattr(export, "_SEND_SEC", 0.2)
    memory.size = BIG
    visitor = Visitor(app)
    visitor.pauses = True

    # when
    asyncio.run(asyncio.wait_for(visitor.run(), 20))

    # then
    assert not visitor.is_complete
    assert "the browser received nothing" in caplog.text
    join_exports()
    memory.size = 100
    assert data_of(requested(app))


def test_export_whose_thread_cannot_start_does_not_prevent_the_next(app, monkeypatch):
    def start(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(export.threading.Thread, "start", start)
        with pytest.raises(RuntimeError):
            requested(app)
    assert data_of(requested(app))
