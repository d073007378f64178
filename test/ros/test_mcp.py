"""``delayed-vlm mcp`` and the SDK's own client, over standard input and output and HTTP, with a fake engine."""

import asyncio
import base64
import io
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import asynccontextmanager

import httpx2
import pytest
from harness import showing
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from PIL import Image
from waiting import PATIENCE_SEC, end_process, wait_until

from delayed_vlm_ros.agents.tools import TOOLS

TOKEN = "a-token-of-the-tests-0123456789"
PARAMETERS = {"memory__sample_fps": 50.0, "watches__max_duty": 1.0, "diagnostics__stale_after_sec": 300.0}
COMMAND = [sys.executable, "-m", "delayed_vlm_ros.cli.main", "mcp"]


@pytest.fixture(scope="module")
def node(start_for_module):
    """A node whose camera shows images all the time."""
    _, observer = start_for_module(**PARAMETERS)
    observer.wait_until_ready()
    with showing(observer):
        yield observer


class HttpServer:
    """``delayed-vlm mcp --http`` in a process."""

    def __init__(self, namespace, folder, *, token=TOKEN):
        self.folder = folder
        self._files = [(folder / name).open("w") for name in ("out", "errors")]
        self.process = subprocess.Popen(
            [*COMMAND, "--http", "--port", "0", "--namespace", namespace],
            env={**os.environ, "DELAYED_VLM_MCP_TOKEN": token},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=self._files[0],
            stderr=self._files[1],
        )
        self.url = wait_until(self._url, lambda: f"the address of the server: {self.errors}")

    def _url(self):
        assert self.process.poll() is None, self.errors
        return next((line.split()[-1] for line in self.errors.splitlines() if line.startswith("The MCP server")), None)

    @property
    def out(self):
        return (self.folder / "out").read_text()

    @property
    def errors(self):
        return (self.folder / "errors").read_text()

    def close(self):
        self.process.kill()
        self.process.wait()
        for file in self._files:
            file.close()


@pytest.fixture(scope="module")
def http(node, tmp_path_factory):
    server = HttpServer(node.namespace, tmp_path_factory.mktemp("http"))
    yield server
    assert "Traceback" not in server.errors
    assert TOKEN not in server.errors + server.out
    assert server.out == ""
    server.close()


def headers(token=TOKEN):
    return {"authorization": f"Bearer {token}"}


@asynccontextmanager
async def over_http(server, mode="auto", **options):
    async with (
        httpx2.AsyncClient(headers=headers(), timeout=httpx2.Timeout(30, read=300)) as web,
        Client(streamable_http_client(server.url, http_client=web), mode=mode, **options) as client,
    ):
        yield client


@asynccontextmanager
async def over_stdio(namespace, folder, mode="auto", **options):
    command = StdioServerParameters(
        command=COMMAND[0], args=[*COMMAND[1:], "--namespace", namespace], env=dict(os.environ), cwd=folder
    )
    with (folder / "errors").open("w") as errors:
        async with Client(stdio_client(command, errors), mode=mode, **options) as client:
            yield client
    assert "Traceback" not in (folder / "errors").read_text()


async def use(client, name, arguments=None, *, called=None, **options):
    """Call a tool that succeeds; return its structured result. The client has checked it against the schema."""
    result = await client.call_tool(name, arguments or {}, **options)
    assert not result.is_error, result.content[0].text
    assert json.loads(result.content[0].text) == result.structured_content
    if called is not None:
        called.append(name)
    return result.structured_content


async def refusal(client, name, arguments):
    """Call a tool that fails; return its error."""
    result = await client.call_tool(name, arguments)
    assert result.is_error, result
    (content,) = result.content
    return content.text


# Tools ----------------------------------------------------------------------------------------------------------------


async def drive_every_tool(client, tmp_path):
    """Use each tool once at least, as an agent would; return the names of those that were called."""
    called = []
    status = await use(client, "status", called=called)
    (camera,) = status["cameras"]
    assert (camera["name"], status["model"]["state"]) == ("camera", "ready")
    assert {"lifecycle", "model"} <= {one["name"] for one in status["diagnostics"]}
    # key frames
    listed = await use(client, "list_key_frames", {"limit": 3})
    assert (len(listed["key_frames"]), listed["left_out"] > 0) == (3, True)
    frame = (await use(client, "list_key_frames", called=called))["key_frames"][0]  # in Star memory: it stays
    exactly = {"since": frame["time"], "until": frame["end_time"]}
    only = await use(client, "list_key_frames", exactly)
    assert [one["id"] for one in only["key_frames"]] == [frame["id"]]
    # a question about exactly this one
    answer = await use(client, "ask_scene", {"question": "What is it?", **exactly}, called=called)
    assert answer["answer"] == "about What is it?"
    assert [one["id"] for one in answer["key_frames"]] == [frame["id"]]
    assert answer["key_frames"][0]["time"] == frame["time"]
    assert (answer["exact"], "fake engine" in answer["warnings"]) == (True, True)
    # a search among these
    found = await use(client, "find_moments", {"description": "a light", "max_moments": 2, **exactly}, called=called)
    assert [one["key_frame_id"] for one in found["moments"]] == [frame["id"]]
    assert (found["key_frames_searched"], found["journal_lines_searched"]) == (1, 0)
    assert (found["moments"][0]["time"], found["moments"][0]["end_time"]) == (frame["time"], frame["end_time"])
    assert 0 <= found["moments"][0]["score"] <= 1
    assert '"a light"' in found["question"]
    # images
    shown = await client.call_tool("show_frame", {"id": frame["id"], "image": "both"})
    called.append("show_frame")
    assert [one.type for one in shown.content] == ["text", "image", "image"]
    for image in shown.content[1:]:
        decoded = Image.open(io.BytesIO(base64.b64decode(image.data)))
        assert (image.mime_type, decoded.format, decoded.size) == ("image/jpeg", "JPEG", (140, 112))
    # an image that an answer was based on, after it has left the memory
    newest = (await use(client, "ask_scene", {"question": "What is it?"}))["key_frames"][-1]["id"]
    while (shown := (await client.call_tool("show_frame", {"id": newest}))).structured_content["kept"]:
        await asyncio.sleep(0.2)
    assert [one.type for one in shown.content] == ["text", "image"]
    # marks
    marked = await use(client, "mark", {"id": frame["id"], "label": "my bag"}, called=called)
    assert (marked["key_frame"]["marked"], marked["key_frame"]["label"]) == (True, "my bag")
    (labelled,) = [one for one in (await use(client, "list_key_frames"))["key_frames"] if one["label"]]
    assert labelled["id"] == frame["id"]
    unmarked = await use(client, "unmark", {"id": frame["id"]}, called=called)
    assert not unmarked["key_frame"]["marked"]
    # watches
    file = tmp_path / "open"
    watch = {"name": "a door/ß", "question": f"file {file}", "period_sec": 0.1}
    added = await use(client, "watch", watch, called=called)
    assert (added["watch"]["question"], added["watch"]["period_sec"]) == (watch["question"], 0.1)
    (state,) = (await use(client, "list_watches", called=called))["watches"]
    assert state["alerts_uri"] == "scene://alerts/a%20door%2F%C3%9F"
    await use(client, "unwatch", {"name": "a door/ß"}, called=called)
    assert (await use(client, "list_watches"))["watches"] == []
    return called


@pytest.mark.parametrize(("transport", "mode"), [("stdio", "auto"), ("http", "auto"), ("http", "legacy")])
def test_every_tool_works(node, http, tmp_path, transport, mode):
    async def run():
        connect = over_http(http, mode) if transport == "http" else over_stdio(node.namespace, tmp_path, mode)
        async with connect as client:
            assert client.protocol_version == {"auto": "2026-07-28", "legacy": "2025-11-25"}[mode]
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}
            called = await drive_every_tool(client, tmp_path)
            assert set(called) == set(tools) == {tool.name for tool in TOOLS}

    asyncio.run(run())


MISTAKES = [
    (
        "ask_scene",
        {"question": "x", "last_seconds": 3},
        "'last_seconds' is unknown: the arguments are question, camera,",
    ),
    ("ask_scene", {}, "'question' is missing"),
    ("ask_scene", {"question": " "}, "the question is empty"),
    ("ask_scene", {"question": "x" * 100_000}, "question too long (100000 characters"),
    ("ask_scene", {"question": "a\0b"}, "must not contain NUL"),
    ("ask_scene", {"question": "x", "camera": "attic"}, "unknown camera 'attic': the cameras are camera"),
    ("ask_scene", {"question": "x", "since": "2026-11-30T10:30:00"}, "'since' has no time zone"),
    ("ask_scene", {"question": "x", "since": 1_780_000_000_000}, "milliseconds must be divided by 1000"),
    ("ask_scene", {"question": "x", "since": 2e9, "until": 1e9}, "'since' (2000000000.0) is after 'until'"),
    ("ask_scene", {"question": "x", "until": 1e9}, "no frames within the limits"),
    ("ask_scene", {"question": "x", "last_sec": -1}, "'last_sec': Input should be greater than or equal to 0"),
    ("ask_scene", {"question": "x", "last_sec": 1e300}, "'last_sec': Input should be less than"),
    ("ask_scene", {"question": "out of memory"}, "ran out of memory"),
    ("find_moments", {}, "'description' is missing"),
    ("find_moments", {"description": "."}, "the description is empty"),
    ("find_moments", {"description": "x" * 100_000}, "description too long (100000 characters"),
    ("find_moments", {"description": "x", "max_moments": 101}, "'max_moments': Input should be less than"),
    ("find_moments", {"description": "x", "last_sec": 5}, "'last_sec' is unknown: the arguments are description,"),
    ("find_moments", {"description": "x", "camera": "attic"}, "unknown camera 'attic': the cameras are camera"),
    ("find_moments", {"description": "x", "since": 2e9, "until": 1e9}, "'since' (2000000000.0) is after 'until'"),
    ("find_moments", {"description": "x", "until": 1e9}, "no frames within the limits"),
    ("find_moments", {"description": "defect?"}, "ZeroDivisionError"),
    ("list_key_frames", {"camera": "attic"}, "unknown camera 'attic'"),
    ("show_frame", {"id": 123_456}, "key frame 123456 is not kept"),
    ("show_frame", {"id": -1}, "'id': Input should be greater than or equal to 1"),
    ("show_frame", {"id": 2**64}, "'id': Input should be less than"),
    ("mark", {"id": 123_456}, "123456"),
    ("mark", {"id": 1, "time": 1e9}, "'id' and 'time' exclude each other"),
    ("mark", {"time": 1e9}, "keeps no pair within 5 s"),
    ("unmark", {"id": 123_456}, "123456"),
    ("watch", {"name": "n", "question": "bright", "gate": "often"}, "'gate'"),
    ("watch", {"name": "n", "question": "bright", "camera": "attic"}, "attic"),
    ("unwatch", {"name": "nothing"}, "no watch 'nothing'"),
]


def test_mistake_is_an_error_with_its_remedy(http):
    async def run():
        async with over_http(http) as client:
            for name, arguments, message in MISTAKES:
                assert message in await refusal(client, name, arguments), (name, arguments)
            with pytest.raises(MCPError, match="unknown tool 'find': the tools are ask_scene"):
                await client.call_tool("find", {})
            for uri in ("scene://alerts/nothing", "scene://other"):
                with pytest.raises(MCPError, match=r"no watch 'nothing'|unknown resource"):
                    await client.read_resource(uri)

    asyncio.run(run())


def test_two_clients_are_served_at_once(http):
    async def run():
        async with over_http(http) as first, over_http(http, "legacy") as second:
            slow = asyncio.create_task(use(first, "ask_scene", {"question": "work 1"}))
            asked = asyncio.create_task(use(second, "ask_scene", {"question": "short"}))
            await asyncio.sleep(0.3)
            assert (await use(second, "status"))["model"]["questions_running"] == 1
            assert [one["answer"] for one in await asyncio.gather(slow, asked)] == ["about work 1", "about short"]

    asyncio.run(run())


# Progress and cancellation --------------------------------------------------------------------------------------------


def running_questions(node):
    return node.wait_for_node_stats().questions_running


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_question_reports_progress_and_is_cancelled_on_the_node(node, http, mode):
    seen = []

    async def on_progress(progress, _total, message):
        seen.append((progress, message))

    async def run():
        async with over_http(http, mode) as client:
            asking = asyncio.create_task(
                client.call_tool("ask_scene", {"question": "say"}, progress_callback=on_progress)
            )
            while len(seen) < 3:
                await asyncio.sleep(0.05)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            await asyncio.to_thread(wait_until, lambda: not running_questions(node), "the end of the question")

    asyncio.run(run())
    assert [progress for progress, _ in seen[:3]] == [1, 2, 3]
    assert seen[1][1].startswith("answering: word word")


def initialise_session(web, url):
    """Open a session of the handshake era by hand; return its headers."""
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    request = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}
    session = {"mcp-session-id": web.post(url, json=request).headers["mcp-session-id"]}
    web.post(url, json={"jsonrpc": "2.0", "method": "notifications/initialized"}, headers=session)
    return {**session, "mcp-protocol-version": "2025-11-25"}


def test_question_of_an_http_client_that_dies_is_cancelled(node, http):
    question = {"name": "ask_scene", "arguments": {"question": "work 100", "timeout_sec": 100}}
    accepts = {"accept": "application/json, text/event-stream"}
    with httpx2.Client(headers={**headers(), **accepts}, timeout=30) as web:
        session = initialise_session(web, http.url)
        request = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": question}
        with web.stream("POST", http.url, json=request, headers=session):
            wait_until(lambda: running_questions(node), "the question on the node")
    # the connection is closed, and nothing was sent that cancels
    wait_until(lambda: not running_questions(node), "the end of the question", 10.0)


# Alerts ---------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:resources/")  # older clients subscribe so
def test_alerts_arrive_as_notices(http, tmp_path):
    file, updated = tmp_path / "open", []
    watch = {"name": "door", "question": f"file {file}", "period_sec": 0.1}

    async def on_message(message):
        if getattr(message, "method", "") == "notifications/resources/updated":
            updated.append(message.params.uri)

    async def run():
        async with over_http(http) as new, over_http(http, "legacy", message_handler=on_message) as old:
            uri = (await use(new, "watch", watch))["watch"]["alerts_uri"]
            assert json.loads((await new.read_resource(uri)).contents[0].text) == {"alerts": []}
            await old.subscribe_resource(uri)
            async with new.listen(resource_subscriptions=[uri, "scene://alerts"]) as changes:
                await asyncio.to_thread(wait_for_level, http, "no")
                file.touch()
                events = [await asyncio.wait_for(anext(changes), PATIENCE_SEC) for _ in range(2)]
            assert {event.uri for event in events} == {uri, "scene://alerts"}
            await asyncio.to_thread(wait_until, lambda: uri in updated, "the notice of the older protocol")
            (alert,) = json.loads((await new.read_resource(uri)).contents[0].text)["alerts"]
            assert (alert["watch"], alert["answer"]) == ("door", "yes")
            shown = await use_show(new, alert["key_frames"][0]["id"])
            assert [one.type for one in shown.content] == ["text", "image"]
            assert (await use(new, "list_watches"))["alerts"][-1] == alert
            assert json.loads((await new.read_resource("scene://watches")).contents[0].text)["watches"]
            await old.unsubscribe_resource(uri)
            await use(new, "unwatch", {"name": "door"})

    asyncio.run(run())


async def use_show(client, frame_id):
    result = await client.call_tool("show_frame", {"id": frame_id})
    assert not result.is_error, result.content[0].text
    return result


def wait_for_level(server, level):
    async def levels():
        async with over_http(server) as client:
            return [one["level"] for one in (await use(client, "list_watches"))["watches"]]

    wait_until(lambda: level in asyncio.run(levels()), f"a watch at {level}")


# Access ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer wrong-token-0123456789"}, 401),
        ({"authorization": f"Basic {TOKEN}"}, 401),
        ({**headers(), "origin": "http://example.com"}, 403),
        ({**headers(), "host": "example.com"}, 421),
    ],
)
def test_request_without_access_is_refused(http, sent, status):
    request = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    response = httpx2.post(http.url, json=request, headers={"accept": "application/json, text/event-stream", **sent})
    assert response.status_code == status
    assert response.headers.get("www-authenticate") == ("Bearer" if status == 401 else None)


def test_too_large_request_is_refused(http):
    assert httpx2.post(http.url, content=b"{" + b" " * 300_000, headers=headers()).status_code == 413


# Faults ---------------------------------------------------------------------------------------------------------------


def show_to_cameras(observer, *names):
    """Publish images until all cameras have a complete key frame."""

    def is_shown(name):
        for topic in names:
            observer.publish(observer.image(), f"{topic}/image")
        return observer.find_stats(lambda stats: stats.camera == name and stats.unique_frames >= 2, 0)

    for name in names:
        wait_until(lambda name=name: is_shown(name), f"frames of camera {name}")


async def check_cameras(client):
    assert [one["name"] for one in (await use(client, "status"))["cameras"]] == ["front", "rear"]
    for given, camera in (("", "front"), ("front", "front"), ("rear", "rear")):
        listed = await use(client, "list_key_frames", {"camera": given})
        assert listed["camera"] == camera
        assert {one["camera"] for one in listed["key_frames"]} == {camera}
    answer = await use(client, "ask_scene", {"question": "x", "camera": "*"})
    assert [(one["camera"], one["error"]) for one in answer["camera_answers"]] == [("front", ""), ("rear", "")]
    assert {one["camera"] for one in answer["key_frames"]} == {"front", "rear"}
    assert "the cameras are front, rear" in await refusal(client, "list_key_frames", {"camera": "attic"})


async def check_reset(client, observer):
    """Reset the memory: cached images must go as well. Fill it again."""
    frame = (await use(client, "list_key_frames"))["key_frames"][0]["id"]
    assert (await use_show(client, frame)).structured_content["kept"]
    await asyncio.to_thread(observer.reset)
    while not (shown := await client.call_tool("show_frame", {"id": frame})).is_error:
        await asyncio.sleep(0.1)
    assert f"key frame {frame} is not kept" in shown.content[0].text
    while not (await use(client, "status"))["cameras"][0]["kept_frames"]:
        observer.publish(observer.image(), "front/image")


def test_server_outlives_its_node(start, tmp_path):
    namespace = "/mcp_late"

    async def run():
        async with over_stdio(namespace, tmp_path) as client:
            missing = await refusal(client, "status", {})
            assert missing.startswith("no scene_memory node at mcp_late/scene_memory in ROS domain")
            # when the node comes
            process, observer = await asyncio.to_thread(
                start, namespace=namespace, cameras="[front, rear]", **PARAMETERS
            )
            await asyncio.to_thread(observer.wait_until_ready)
            while (await client.call_tool("status", {})).is_error:
                await asyncio.sleep(0.1)
            assert "camera front is empty" in await refusal(client, "ask_scene", {"question": "x"})
            await asyncio.to_thread(show_to_cameras, observer, "front", "rear")
            await check_cameras(client)
            await asyncio.wait_for(check_reset(client, observer), PATIENCE_SEC)
            # when it dies while it answers
            asking = asyncio.create_task(client.call_tool("ask_scene", {"question": "work 100", "timeout_sec": 100}))
            await asyncio.to_thread(wait_until, lambda: running_questions(observer), "the question on the node")
            process.process.send_signal(signal.SIGKILL)
            ended = await asyncio.wait_for(asking, 30.0)
            # then
            assert ended.is_error
            assert "no scene_memory node" in ended.content[0].text
            assert "no scene_memory node" in await refusal(client, "list_key_frames", {})
            with pytest.raises(MCPError, match="no scene_memory node"):
                await client.read_resource("scene://watches")

    asyncio.run(run())


def start_stdio(node, folder):
    process = subprocess.Popen(
        [*COMMAND, "--namespace", node.namespace],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=(folder / "errors").open("w"),
        text=True,
    )
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    send(process, {"id": 1, "method": "initialize", "params": hello})
    assert json.loads(process.stdout.readline())["id"] == 1
    process.stdin.write("no message\n" + "[" * 100_000 + "\n")
    send(process, {"method": "notifications/initialized"})
    return process


def send(process, message):
    process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    process.stdin.flush()


def ask_without_end(node, process):
    question = {
        "name": "ask_scene",
        "arguments": {"question": "say", "timeout_sec": 100},
        "_meta": {"progressToken": 1},
    }
    send(process, {"id": 2, "method": "tools/call", "params": question})
    wait_until(lambda: running_questions(node), "the question on the node")


@pytest.mark.parametrize("end", ["end of input", signal.SIGTERM])
def test_process_of_a_client_that_dies_ends_and_cancels_its_question(node, tmp_path, end):
    process = start_stdio(node, tmp_path)
    ask_without_end(node, process)
    # when
    if end == "end of input":
        process.stdout.close()  # progress cannot be written
        time.sleep(0.5)
        process.stdin.close()
        code = process.wait(PATIENCE_SEC)
    else:
        code, seconds = end_process(process, end)
        assert seconds < 2.0
    # then
    assert code == 0
    wait_until(lambda: not running_questions(node), "the end of the question", 10.0)
    if end != "end of input":
        assert {json.loads(line)["jsonrpc"] for line in process.stdout} <= {"2.0"}
    assert "Traceback" not in (tmp_path / "errors").read_text()


def test_http_server_ends_with_a_signal_while_clients_wait(node, tmp_path):
    server = HttpServer(node.namespace, tmp_path)

    async def run():
        async with (
            over_http(server) as client,
            client.listen(resource_subscriptions=["scene://alerts/none"]) as changes,
        ):
            question = {"question": "work 100", "timeout_sec": 100}
            asking = asyncio.create_task(client.call_tool("ask_scene", question))
            await asyncio.to_thread(wait_until, lambda: running_questions(node), "the question on the node")
            code, seconds = await asyncio.to_thread(end_process, server.process, signal.SIGINT)
            assert (code, seconds < 2.0) == (0, True), seconds
            ended = await asyncio.gather(asking, anext(changes), return_exceptions=True)
            assert all(isinstance(one, Exception) or getattr(one, "is_error", False) for one in ended), ended

    asyncio.run(run())
    wait_until(lambda: not running_questions(node), "the end of the question", 10.0)
    assert "Traceback" not in server.errors
    assert server.out == ""
    server.close()
