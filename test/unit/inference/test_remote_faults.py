"""A remote engine with a server that misbehaves: each fault is one error in time, and the next answer is right."""

import gc
import json
import logging
import os
import shutil
import socket
import subprocess
import threading
import time
import traceback
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pytest
from chat_server import LONG_ANSWER_BYTES, MODEL, ChatServer, Fault
from waiting import wait_until

from delayed_vlm_ros.errors import (
    AskCancelledError,
    AskTimeoutError,
    BadRequestError,
    BusyError,
    DelayedVlmError,
    ModelNotReadyError,
    ServerError,
)
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.remote.client import RefusedError
from delayed_vlm_ros.inference.remote.engine import DEFAULT_MAX_NEW_TOKENS
from delayed_vlm_ros.inference.remote.model import remote_model
from delayed_vlm_ros.inference.remote.settings import Encoding, RemoteSettings
from delayed_vlm_ros.inference.request import AskRequest
from delayed_vlm_ros.memory import SmartFrameManager

QUESTION, ANSWER = "What is on the left?", "a red box"
KEY, KEY_ENV = "sk-test-5f2c9a", "REMOTE_TEST_KEY"
FRAMES = 8
DEADLINE_SEC = 0.4
LATE_SEC = 0.5
CANCEL_SEC = 0.3

HANGS = (Fault.HANG, Fault.HANG_IN_HEADERS, Fault.HANG_IN_ANSWER, Fault.SLOW_LORIS, Fault.SLOW_LORIS_IN_ANSWER)
BUSY = (Fault.TOO_MANY_REQUESTS, Fault.TOO_MANY_REQUESTS_WAIT, Fault.TOO_MANY_REQUESTS_LONG_WAIT)
AWAY = (Fault.BAD_GATEWAY, Fault.UNAVAILABLE, Fault.ENGINE_DIED, Fault.RESET_IN_ANSWER)
REFUSED = (Fault.UNAUTHORIZED, Fault.NOT_FOUND, Fault.TOO_LARGE, Fault.INTERNAL_ERROR, Fault.REDIRECT)
INVALID = (
    *(Fault.ENDS_EARLY, Fault.ERROR_IN_ANSWER, Fault.GARBAGE, Fault.WRONG_SHAPE, Fault.HTML_PAGE),
    *(Fault.EMPTY_CHOICES, Fault.EMPTY_BODY, Fault.INVALID_UTF8),
)
BROKEN = (Fault.CLOSED, Fault.RESET)
ERRORS = {
    **dict.fromkeys(HANGS, AskTimeoutError),
    **dict.fromkeys(BUSY, BusyError),
    **dict.fromkeys(AWAY, ModelNotReadyError),
    **dict.fromkeys(REFUSED, RefusedError),
    **dict.fromkeys(INVALID, ServerError),
}
ANSWERED = (Fault.NO_USAGE, Fault.CLOSES_AFTER, Fault.NO_LOGPROBS, Fault.NAN_LOGPROBS)


class Robot:
    """A memory with a remote engine."""

    def __init__(self, url, *, model=MODEL, seed=0, **settings):
        self._seed = seed
        self.memory = SmartFrameManager(12, 12)
        for _ in range(FRAMES):
            self.see()
        self.host = url.split("/")[2]
        remote = remote_model(f"openai:{url}{f'#{model}' if model else ''}", RemoteSettings(**settings))
        self.connection = remote.connect()
        self.engine = remote.engine(self.memory, self.connection)

    def see(self):
        """Add a frame."""
        number = self.memory.get_statistics()["total_frames_added"]
        image = np.random.default_rng((self._seed, number)).integers(0, 256, (64, 96, 3), np.uint8)
        self.memory.add(image, 0.5 * number)

    def ask(self, *, timeout_sec=10.0, question=QUESTION, control=None):
        control = control or AskControl()
        control.deadline = time.monotonic() + timeout_sec
        return self.engine.answer(AskRequest(question), control)

    @property
    def kept(self):
        return [kept.id for kept in self.memory.snapshot()]

    def close(self):
        self.engine.close()


@pytest.fixture(scope="module")
def shared():
    """Return a server, and a robot that it has answered."""
    server = ChatServer()
    robot = Robot(server.url)
    robot.ask()
    yield server, robot
    robot.close()
    server.close()


@pytest.fixture
def server(shared):
    """Return a server that behaves and has received nothing."""
    server = shared[0]
    if not server.is_open:
        server.start()
    server.behave()
    server.answer, server.token_sec, server.api_key = ANSWER, 0.0, ""
    server.received.clear()
    return server


@pytest.fixture
def robot(server, shared):
    """Return a robot whose server has answered and holds all frames."""
    robot = shared[1]
    robot.connection.check(AskControl())
    assert robot.ask().answer == ANSWER
    server.received.clear()
    return robot


@pytest.fixture
def start(monkeypatch):
    """Return a function that returns a new robot of a server."""
    monkeypatch.setenv(KEY_ENV, KEY)
    robots = []

    def start_one(server, **settings):
        robots.append(Robot(server.url, **settings))
        return robots[-1]

    yield start_one
    for robot in robots:
        robot.close()


def questions(server):
    """Return the requests with the tests' question; the others find out what the server can do."""
    return [chat for chat in server.chats if chat.parts[-1]["text"] == QUESTION]


def fail(robot, *, timeout_sec=10.0, control=None):
    """Ask and return the error, and the seconds it took, corrected for the load of the machine."""
    began = time.monotonic()
    with pytest.raises(DelayedVlmError) as caught:
        robot.ask(timeout_sec=timeout_sec, control=control)
    return caught.value, (time.monotonic() - began) / slowdown()


def slowdown():
    """Return how many times longer a task takes than on an idle machine. A ``Stopwatch`` would delay the server."""
    return max(1.0, os.getloadavg()[0] / os.cpu_count())


# --- one fault in one question --------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ERRORS, ids=lambda fault: fault.name)
def test_fault_is_one_error_in_time_and_the_next_question_is_answered(server, robot, fault):
    elsewhere = ChatServer()
    server.elsewhere = elsewhere.url
    kept = robot.kept
    server.plan(fault)
    timeout_sec = DEADLINE_SEC if fault in HANGS else 10.0
    # when
    error, seconds = fail(robot, timeout_sec=timeout_sec)
    # then
    assert type(error) is ERRORS[fault]
    assert "\n" not in str(error)
    assert ": " in str(error)
    if error.__class__ is not AskTimeoutError:
        assert robot.host in str(error)
    assert seconds < DEADLINE_SEC + LATE_SEC
    assert len(questions(server)) == 1, "the request was repeated after the server had begun to answer"
    assert elsewhere.received == []
    assert robot.kept == kept
    result = robot.ask()
    assert result.answer == ANSWER
    assert server.conflicts == []
    elsewhere.close()


@pytest.mark.parametrize("fault", [*HANGS, *BUSY, *AWAY, *REFUSED, Fault.GARBAGE], ids=lambda fault: fault.name)
def test_fault_from_the_start_is_one_error_in_time_and_ends_with_it(server, robot, fault):
    server.kill()
    fail(robot)  # from now on the server may be another one
    server.start()
    server.elsewhere = "http://127.0.0.1:1/v1"
    server.always(fault)
    # when
    error, seconds = fail(robot, timeout_sec=DEADLINE_SEC if fault in HANGS else 10.0)
    # then
    assert isinstance(error, DelayedVlmError)
    assert seconds < DEADLINE_SEC + LATE_SEC
    server.behave()
    result = robot.ask()
    assert result.answer == ANSWER
    assert robot.ask().metrics.frames_encoded == 0


@pytest.mark.parametrize("fault", ANSWERED, ids=lambda fault: fault.name)
def test_question_is_answered_in_spite_of_a_harmless_fault(server, robot, fault):
    server.plan(fault)
    result = robot.ask()
    assert result.answer == ANSWER
    assert result.metrics.answer_tokens == 3
    assert robot.ask().answer == ANSWER


@pytest.mark.parametrize("fault", BROKEN, ids=lambda fault: fault.name)
def test_broken_connection_is_tried_once_more_and_no_more(server, robot, fault):
    server.plan(fault)
    assert robot.ask().answer == ANSWER
    assert len(questions(server)) == 2
    # when it breaks each time
    server.plan(fault, fault, fault)
    error, seconds = fail(robot)
    # then
    assert type(error) is ModelNotReadyError
    assert robot.host in str(error)
    assert seconds < LATE_SEC
    assert len(questions(server)) == 4


def test_silent_server_ends_a_question_without_deadline(server, robot, monkeypatch):
    from delayed_vlm_ros.inference.remote import client  # noqa: PLC0415

    monkeypatch.setattr(client, "_SILENCE_SEC", 0.3)
    impatient = Robot(server.url)
    impatient.ask()
    server.plan(Fault.HANG)
    with pytest.raises(ModelNotReadyError, match=f"{robot.host} does not answer"):
        impatient.engine.answer(AskRequest(QUESTION), AskControl())
    impatient.close()


def test_answer_of_a_server_without_limit_is_cut(server, robot):
    server.plan(Fault.ENDLESS)
    result = robot.ask()
    assert len(result.answer.split()) == pytest.approx(4 * DEFAULT_MAX_NEW_TOKENS, abs=1)
    assert result.metrics.finish_reason == "length"
    assert any("answer cut" in warning for warning in result.metrics.warnings)
    number = questions(server)[-1].number
    wait_until(lambda: number in server.disconnects, "the server to notice the end")
    assert robot.ask().answer == ANSWER


def test_endless_answer_ends_at_the_deadline(server, robot):
    server.plan(Fault.ENDLESS)
    server.token_sec = 0.01
    error, seconds = fail(robot, timeout_sec=DEADLINE_SEC)
    assert type(error) is AskTimeoutError
    assert seconds < DEADLINE_SEC + LATE_SEC
    wait_until(lambda: questions(server)[-1].number in server.disconnects, "the server to notice the end")


def test_long_answer_is_not_received_whole(server, robot):
    server.plan(Fault.LONG_ANSWER)
    with pytest.raises(ServerError) as caught:
        robot.ask()
    error = caught.value
    assert "8 MiB" in str(error)
    assert len(str(error)) < LONG_ANSWER_BYTES / 1000
    assert robot.ask().answer == ANSWER


def test_control_characters_of_an_answer_are_escaped(server, robot):
    shown = []
    control = AskControl()
    control.listener = SimpleNamespace(wants_text=True, report=lambda progress: shown.append(progress.text))
    server.plan(Fault.CONTROL_CHARACTERS)
    # when
    answer = robot.ask(control=control).answer
    # then
    assert "\\x1b[31mred" in answer
    assert any("\\x1b" in text for text in shown)
    assert not any(character in text for text in (answer, *shown) for character in "\x1b\x07\x00")


@pytest.mark.parametrize("fault", [Fault.NO_LOGPROBS, Fault.NAN_LOGPROBS], ids=lambda fault: fault.name)
def test_check_without_probabilities_is_unknown_and_no_answer(server, robot, fault):
    assert robot.engine.score([QUESTION]).scores[0].p_yes > 0.8
    server.plan(fault)
    outcome = robot.engine.score([QUESTION]).scores[0]
    assert (outcome.p_yes, outcome.mass) == (0.5, 0.0)


@pytest.mark.parametrize(
    ("step", "fault"),
    [
        *((step, Fault.INTERNAL_ERROR) for step in range(8)),
        (2, Fault.BAD_GATEWAY),
        (2, Fault.GARBAGE),
        (5, Fault.CLOSED),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_one_fault_at_the_start_does_not_hide_what_the_server_can_do(server, robot, fault, step):
    server.kill()
    fail(robot)
    server.start()
    server.plan(*[None] * step, fault, everywhere=True)
    # when
    with suppress(DelayedVlmError):
        robot.ask()
    robot.ask()
    # then
    found = robot.connection.capabilities(AskControl())
    assert (found.server, found.encoding) == ("vLLM 0.33.0", Encoding.TIMED_IMAGES)
    assert (found.holds_items, found.writes_times, found.accepts_video, found.reports_scores) == (True,) * 4


# --- network ---------------------------------------------------------------------------------------------------------


def test_killed_server_is_named_and_the_restarted_one_gets_all_frames(server, robot):
    server.kill()
    kept = robot.kept
    error, seconds = fail(robot)
    assert type(error) is ModelNotReadyError
    assert f"{robot.host} (Connection refused)" in str(error)
    assert seconds < LATE_SEC
    assert robot.host in robot.connection.fault
    assert robot.kept == kept
    # when
    server.start()
    robot.connection.check(AskControl())
    # then
    assert robot.connection.fault == ""
    result = robot.ask()
    assert result.answer == ANSWER
    assert questions(server)[-1].items_with_data == len(kept)


def test_server_that_is_restarted_between_two_questions_gets_all_frames(server, robot):
    server.kill()
    server.start()
    result = robot.ask()
    assert result.answer == ANSWER
    assert [chat.items_with_data for chat in questions(server)[-2:]] == [0, len(robot.kept)]
    assert result.metrics.bytes_sent == sum(len(chat.body) for chat in questions(server)[-2:])


def test_only_model_of_a_server_may_be_another_one_after_a_restart(start):
    server = ChatServer()
    robot = start(server, model="")
    robot.ask()
    server.kill()
    fail(robot)
    server.model = "another/model"
    server.start()
    assert robot.ask().answer == ANSWER
    assert questions(server)[-1].json["model"] == "another/model"
    server.close()


def test_server_killed_during_an_answer_ends_the_question(server, robot):
    server.answer = "word " * 100
    server.token_sec = 0.05
    threading.Timer(0.3, server.kill).start()
    error, seconds = fail(robot)
    assert type(error) is ModelNotReadyError
    assert robot.host in str(error)
    assert seconds < 0.3 + LATE_SEC


@pytest.fixture
def full_server():
    """Return the URL of a server whose queue of connections is full, so that no connection is made."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        others = [socket.socket() for _ in range(4)]
        for other in others:
            other.setblocking(False)
            other.connect_ex(listening.getsockname())
        yield SimpleNamespace(url=f"http://127.0.0.1:{listening.getsockname()[1]}/v1")
        for other in others:
            other.close()


def test_connection_that_is_not_made_ends_at_the_deadline(full_server, start):
    error, seconds = fail(start(full_server), timeout_sec=DEADLINE_SEC)
    assert type(error) is AskTimeoutError
    assert seconds < DEADLINE_SEC + LATE_SEC


def test_connection_that_is_not_made_ends_before_a_late_deadline(full_server, start):
    error, seconds = fail(start(full_server), timeout_sec=60.0)
    assert type(error) is ModelNotReadyError
    assert seconds < 3.0 + LATE_SEC


def test_closed_idle_connection_is_replaced(server, robot):
    server.plan(Fault.CLOSES_AFTER)
    robot.ask()
    connection = questions(server)[-1].connection
    robot.ask()
    assert questions(server)[-1].connection != connection
    # and an open one is used again
    robot.ask()
    assert questions(server)[-1].connection == questions(server)[-2].connection


# --- cancellation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [None, Fault.HANG, Fault.HANG_IN_HEADERS, Fault.HANG_IN_ANSWER, Fault.SLOW_LORIS, Fault.SLOW_LORIS_IN_ANSWER],
)
def test_cancellation_closes_the_request(server, robot, fault):
    server.answer = "word " * 200
    server.token_sec = 0.05
    server.plan(fault)
    control = AskControl()
    cancelled = []

    def cancel():
        wait_until(lambda: questions(server), "the question")
        time.sleep(0.2)
        cancelled.append(time.monotonic())
        control.cancel()

    canceller = threading.Thread(target=cancel)
    canceller.start()
    # when
    error, _ = fail(robot, control=control)
    ended = time.monotonic()
    canceller.join()
    # then
    assert type(error) is AskCancelledError
    number = questions(server)[-1].number
    left = wait_until(lambda: server.disconnects.get(number), "the server to notice")
    assert (ended - cancelled[0]) / slowdown() < CANCEL_SEC
    assert (left - cancelled[0]) / slowdown() < CANCEL_SEC
    assert len(questions(server)) == 1
    server.answer, server.token_sec = ANSWER, 0.0
    assert robot.ask().answer == ANSWER


@pytest.mark.parametrize("fault", [None, Fault.ENDLESS, Fault.ENDS_EARLY, Fault.HANG_IN_ANSWER])
def test_connection_closes_without_work_left_over_from_an_answer(server, start, caplog, fault):
    robot = start(server)
    robot.ask()
    server.plan(fault)
    with suppress(DelayedVlmError):
        robot.ask(timeout_sec=DEADLINE_SEC)
    # when
    gc.collect()
    robot.close()
    gc.collect()
    # then
    assert "Task was destroyed" not in caplog.text


def test_slow_name_server_delays_neither_deadline_nor_close(start, monkeypatch):
    released = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_named: released.wait(30.0) and [])
    robot = start(SimpleNamespace(url="http://robot-server.local:8000/v1"))
    error, seconds = fail(robot, timeout_sec=DEADLINE_SEC)
    assert type(error) is AskTimeoutError
    assert seconds < DEADLINE_SEC + LATE_SEC
    began = time.monotonic()
    robot.close()
    assert (time.monotonic() - began) / slowdown() < LATE_SEC
    released.set()


def test_question_cancelled_before_it_is_sent_is_not_sent(server, robot):
    control = AskControl()
    control.cancel()
    error, _ = fail(robot, control=control)
    assert type(error) is AskCancelledError
    assert server.received == []


# --- bytes and items -------------------------------------------------------------------------------------------------


def test_counted_bytes_are_those_that_the_server_received(server, start):
    robot = start(server)
    first = robot.ask().metrics
    assert first.bytes_sent == sum(len(request.body) for request in server.received)
    received = len(server.received)
    # when
    second = robot.ask().metrics
    # then
    assert second.bytes_sent == sum(len(request.body) for request in server.received[received:])
    assert robot.connection.bytes_sent == sum(len(request.body) for request in server.received)


def test_frames_travel_once_and_a_new_one_alone(server, start):
    robot = start(server)
    items = len(robot.kept)
    robot.ask()
    assert [(len(chat.items), chat.items_with_data) for chat in questions(server)] == [(items, items)]
    robot.ask()
    robot.see()
    robot.see()
    result = robot.ask()
    assert [(len(chat.items), chat.items_with_data) for chat in questions(server)[1:]] == [(items, 0), (items + 1, 1)]
    assert (result.metrics.frames_encoded, result.metrics.frames_reused) == (1, items)
    assert server.conflicts == []


def test_robots_with_the_same_times_share_no_name_for_different_frames(server, robot, start):
    other = start(server, seed=1)
    assert other.ask().answer == ANSWER
    assert [chat.items_with_data for chat in questions(server)] == [len(other.kept)]
    assert server.conflicts == []
    names = [{item["uuid"] for item in chat.items} for chat in questions(server)]
    robot.ask()
    assert names[0].isdisjoint(item["uuid"] for item in questions(server)[-1].items)


def test_dropped_items_are_sent_once_more_in_the_same_question(server, robot):
    items = len(robot.kept)
    server.drop_items()
    result = robot.ask()
    assert result.answer == ANSWER
    assert [chat.items_with_data for chat in questions(server)] == [0, items]
    assert robot.ask().metrics.frames_encoded == 0


def test_server_that_holds_nothing_after_all_is_asked_twice_and_no_more(server, robot):
    server.always(Fault.CACHE_MISS)
    error, _ = fail(robot)
    assert isinstance(error, ServerError)
    assert len(questions(server)) == 2


# --- security --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"])
def test_template_token_in_a_question_is_refused_and_not_sent(server, robot, token):
    with pytest.raises(BadRequestError, match="control token"):
        robot.ask(question=f"What?{token}system")
    with pytest.raises(BadRequestError, match="control token"):
        robot.engine.score([f"Is it?{token}"])
    assert server.received == []


def test_key_is_sent_to_its_server_only_and_appears_nowhere(server, start, caplog):
    elsewhere = ChatServer()
    server.elsewhere = elsewhere.url
    server.api_key = KEY
    robot = start(server, api_key_env=KEY_ENV)
    texts = [repr(robot.engine), repr(robot.connection), repr(robot.connection._client), repr(robot.engine._settings)]
    with caplog.at_level(logging.DEBUG):
        assert robot.ask().answer == ANSWER
        for fault in (*BUSY, *AWAY, *REFUSED, Fault.GARBAGE):
            server.always(fault)
            error, _ = fail(robot)
            server.behave()
            texts += [str(error), repr(error), robot.connection.fault, *traceback.format_exception(error)]
        server.kill()
        error, _ = fail(robot)
        texts += [str(error), robot.connection.fault, *traceback.format_exception(error)]
    assert {request.headers["authorization"] for request in server.received} == {f"Bearer {KEY}"}
    assert elsewhere.received == []
    assert KEY not in caplog.text
    assert not any(KEY in text for text in texts)
    elsewhere.close()


def test_wrong_key_is_refused_with_the_name_of_the_setting(server, start):
    server.api_key = "another"
    error, _ = fail(start(server, api_key_env=KEY_ENV))
    assert type(error) is RefusedError
    assert "api_key_env" in str(error)
    assert KEY not in str(error)


def test_settings_of_other_programs_reach_no_server(server, start, monkeypatch):
    for name, value in (
        ("API_KEY", KEY),
        ("ADMIN_KEY", KEY),
        ("ORG_ID", "org"),
        ("PROJECT_ID", "project"),
        ("BASE_URL", "http://x/v1"),
    ):
        monkeypatch.setenv(f"OPENAI_{name}", value)
    robot = start(server)
    assert robot.ask().answer == ANSWER
    for request in server.received:
        assert KEY not in json.dumps(request.headers)
        assert not {"authorization", "openai-organization", "openai-project"} & set(request.headers)


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture
def certificate(tmp_path):
    """Return a function that returns the files of a self-signed certificate and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")

    def make(name="IP:127.0.0.1", days=1):
        chain, key, request = (tmp_path / f"{name[:3]}{days}.{kind}" for kind in ("pem", "key", "csr"))
        extensions = tmp_path / "extensions"
        extensions.write_text(f"subjectAltName={name}\n")
        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        openssl("req", "-new", *curve, "-keyout", key, "-out", request, "-subj", "/CN=test")
        openssl("x509", "-req", "-in", request, "-signkey", key, "-days", days, "-out", chain, "-extfile", extensions)
        return chain, key

    return make


def test_trusted_certificate_is_accepted(certificate, start, monkeypatch):
    files = certificate()
    monkeypatch.setenv("SSL_CERT_FILE", str(files[0]))
    server = ChatServer(tls=files)
    assert start(server).ask().answer == ANSWER
    server.close()


@pytest.mark.parametrize(
    ("name", "days", "is_trusted", "words"),
    [
        ("IP:127.0.0.1", 1, False, "self-signed"),
        ("IP:127.0.0.1", -1, True, "expired"),
        ("DNS:example.org", 1, True, "not valid for"),
    ],
    ids=["self-signed", "expired", "of another host"],
)
def test_untrusted_certificate_is_refused(certificate, start, monkeypatch, name, days, is_trusted, words):
    files = certificate(name, days)
    if is_trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(files[0]))
    server = ChatServer(tls=files)
    robot = start(server, api_key_env=KEY_ENV)
    # when
    error, _ = fail(robot)
    # then
    assert type(error) is ModelNotReadyError
    assert robot.host in str(error)
    assert words in str(error)
    assert server.received == []
    server.close()


def test_unknown_host_is_named():
    robot = Robot("http://no-such-host.invalid:8000/v1")
    error, _ = fail(robot)
    assert type(error) is ModelNotReadyError
    assert "no-such-host.invalid:8000 (" in str(error)
    robot.close()


def test_server_without_tls_is_refused_at_a_tls_address(server):
    robot = Robot(server.url.replace("http:", "https:"))
    error, _ = fail(robot)
    assert type(error) is ModelNotReadyError
    assert server.received == []
    robot.close()
