"""A small server with the chat interface of vLLM, which can misbehave in each request.

It serves ``/v1/models``, ``/version`` and ``/v1/chat/completions``, streamed or not. As vLLM does, it keeps items by
their ``uuid``, refuses an unknown one without data, and reports how many tokens of the prompt it has seen before.

Run as a program, it is a process that tests can kill: ``chat_server.py --port 8000``.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import itertools
import json
import select
import socket
import ssl
import struct
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np

MODEL = "tiny/scene-model"
BLOCK_TOKENS = 16
CELL = 32  # height and width of a visual token, in pixels
LONG_ANSWER_BYTES = 10_000_000
CACHE_MISS = "Cache miss for"
TIME_TEXT = "<1.2 seconds>"  # mean time of the two frames of a test video
BAD_TEXT = "a \x1b[31mred\x1b[0m\x07 box\x00"

_CHAT = "/v1/chat/completions"
_LONGEST_HANG_SEC = 60.0
_POLL_SEC = 0.01


class Fault(Enum):
    """Misbehaviour in one request."""

    HANG = "accepts the request and sends nothing"
    HANG_IN_HEADERS = "stops in the middle of the headers"
    HANG_IN_ANSWER = "stops in the middle of the answer"
    SLOW_LORIS = "sends a byte a second"
    SLOW_LORIS_IN_ANSWER = "sends a byte a second after the first word"
    TOO_MANY_REQUESTS = "429"
    TOO_MANY_REQUESTS_WAIT = "429 with Retry-After of one second"
    TOO_MANY_REQUESTS_LONG_WAIT = "429 with Retry-After of an hour"
    UNAUTHORIZED = "401"
    NOT_FOUND = "404 of a wrong model"
    TOO_LARGE = "413"
    CACHE_MISS = "holds no item, and says so whatever is sent"
    INTERNAL_ERROR = "500"
    ENGINE_DIED = "500 of a vLLM whose engine has died"
    BAD_GATEWAY = "502 with a page of a proxy"
    UNAVAILABLE = "503"
    CLOSED = "closes the connection without a response"
    RESET = "resets the connection without a response"
    RESET_IN_ANSWER = "resets the connection in the middle of the answer"
    ENDS_EARLY = "ends the stream in order, without a finish reason"
    ERROR_IN_ANSWER = "sends an error in the middle of the answer"
    GARBAGE = "sends events that are no JSON"
    WRONG_SHAPE = "sends events of another shape"
    HTML_PAGE = "sends a page of a proxy with status 200"
    EMPTY_CHOICES = "sends no choices"
    EMPTY_BODY = "sends status 200 and nothing"
    NO_USAGE = "sends no usage"
    NO_LOGPROBS = "sends no log probabilities"
    NAN_LOGPROBS = "sends NaN as log probabilities"
    LONG_ANSWER = "sends 10 MB in one token"
    ENDLESS = "ignores max_tokens and never stops"
    INVALID_UTF8 = "sends bytes that are no UTF-8"
    CONTROL_CHARACTERS = "sends escape sequences"
    REDIRECT = "redirects to another server"
    CLOSES_AFTER = "closes the connection after the response without saying so"


@dataclass(frozen=True)
class Received:
    """A request that the server received.

    Attributes:
        number: Number of the request of this server, from 0.
        path: Path of the URL.
        headers: Headers by their names in lower case.
        body: Body as sent.
        connection: Port of the client, which identifies the connection.
        at: Time when the body was complete, in seconds on the clock of ``time.monotonic``.
    """

    number: int
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int
    at: float

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.body)

    @property
    def parts(self) -> list[dict[str, Any]]:
        """Content parts of all messages, in order."""
        contents = (message["content"] for message in self.json["messages"])
        return [
            part
            for content in contents
            for part in ([{"type": "text", "text": content}] if isinstance(content, str) else content)
        ]

    @property
    def items(self) -> list[dict[str, Any]]:
        """Parts that are images or videos, in order."""
        return [part for part in self.parts if part["type"] != "text"]

    @property
    def items_with_data(self) -> int:
        return sum(_data_of(part) is not None for part in self.items)


class ChatServer:
    """Serves on 127.0.0.1 until ``close``.

    Args:
        port: Port to listen on; 0 for any.
        tls: Certificate chain and key, as files; None: no TLS.
        model: Name of the model that it serves.
        api_key: Key that clients must send; empty: none.
        trusts_kwargs: Whether requests may have ``media_io_kwargs`` and ``mm_processor_kwargs``.
        writes_times: Whether the model has times as text in its prompt.
        token_sec: Time per token of an answer, in seconds.
        elsewhere: URL that redirects lead to.

    Attributes:
        answer: Text of the next answers.
        yes: Probability of "yes" as the first token, for questions that ask for log probabilities.
        received: Requests so far, oldest first.
        disconnects: Times at which clients left before the end of their response, by the request's number.
        conflicts: Identifiers that arrived with other data than before.
        shown: Words of answers sent so far, by the request's number.
    """

    def __init__(
        self,
        port: int = 0,
        *,
        tls: tuple[Path, Path] | None = None,
        model: str = MODEL,
        api_key: str = "",
        trusts_kwargs: bool = True,
        writes_times: bool = True,
        token_sec: float = 0.0,
        elsewhere: str = "",
    ) -> None:
        self.model = model
        self.api_key = api_key
        self.trusts_kwargs = trusts_kwargs
        self.writes_times = writes_times
        self.token_sec = token_sec
        self.elsewhere = elsewhere
        self.answer = "a red box"
        self.yes = 0.9
        self.received: list[Received] = []
        self.disconnects: dict[int, float] = {}
        self.conflicts: list[str] = []
        self.shown: dict[int, int] = {}
        self._tls = tls
        self._planned: deque[Fault | None] = deque()
        self._plans_all = False
        self._always: Fault | None = None
        self._items: dict[str | None, tuple[str, int]] = {}  # content and tokens by identifier
        self._prompts: list[list[str]] = []
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._open: _HttpServer | None = None
        self.port = port
        self.start()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}/v1"

    @property
    def chats(self) -> list[Received]:
        """Questions so far, oldest first; without those of connections that ended before the body."""
        return [request for request in self.received if request.path == _CHAT and request.body]

    def plan(self, *faults: Fault | None, everywhere: bool = False) -> None:
        """Misbehave in the next questions, or in all next requests, in this order; None: behave in this one."""
        self._planned.extend(faults)
        self._plans_all = everywhere

    def always(self, fault: Fault | None) -> None:
        """Misbehave in every question from now on that has no plan; None: behave again."""
        self._always = fault

    def behave(self) -> None:
        """Drop all plans."""
        self._planned.clear()
        self._plans_all = False
        self._always = None

    def drop_items(self) -> None:
        """Drop all images and videos, as a full cache does."""
        with self._lock:
            self._items.clear()

    def start(self) -> None:
        """Listen, after ``kill`` on the same port and with empty caches."""
        self._items.clear()
        self._prompts.clear()
        self._open = _HttpServer(self, self.port)
        self.port = self._open.server_port
        threading.Thread(target=self._open.serve_forever, args=(_POLL_SEC,), daemon=True).start()

    def kill(self) -> None:
        """Stop listening and reset all connections."""
        if self._open is not None:
            self._open.shutdown()
            self._open.server_close()
            self._open.reset_connections()
            self._open = None

    close = kill

    @property
    def is_open(self) -> bool:
        return self._open is not None

    def accept(self, path: str, headers: dict[str, str], body: bytes, connection: int) -> tuple[Received, Fault | None]:
        """Record a request and return it with its fault."""
        request = Received(next(self._numbers), path, headers, body, connection, time.monotonic())
        with self._lock:
            self.received.append(request)
            if self._planned and (path == _CHAT or self._plans_all):
                return request, self._planned.popleft()
        return request, self._always if path == _CHAT else None

    def missing_item(self, request: Received) -> int | None:
        """Keep the request's items. Return the index of the first one without data that is unknown; None: all known."""
        with self._lock:
            for index, part in enumerate(request.items):
                data, identifier = _data_of(part), part.get("uuid")
                if data is None and identifier not in self._items:
                    return index
                if data is not None and identifier is not None:
                    content = (_digest(data), _tokens_of(data))
                    if self._items.setdefault(identifier, content) != content:
                        self.conflicts.append(identifier)
        return None

    def count_tokens(self, request: Received) -> tuple[int, int]:
        """Return the tokens of a request's prompt and how many of these are cached: full blocks only."""
        tokens: list[str] = []
        with self._lock:
            for part in request.parts:
                if part["type"] == "text":
                    tokens += part["text"].split()
                else:
                    key, size = self._key_and_tokens(part)
                    tokens += [key] * size
            same = max((_common_length(tokens[:-1], earlier) for earlier in self._prompts), default=0)
            self._prompts.append(tokens)
        return len(tokens), same // BLOCK_TOKENS * BLOCK_TOKENS

    def _key_and_tokens(self, part: dict[str, Any]) -> tuple[str, int]:
        data, identifier = _data_of(part), part.get("uuid")
        if data is None:
            return self._items[identifier]
        return identifier or _digest(data), _tokens_of(data)


def _tokens_of(data: str) -> int:
    """Return the tokens of an image, or of a video of pairs of images."""
    images = data.partition(",")[2].split(",")
    image = cv2.imdecode(np.frombuffer(base64.b64decode(images[0]), np.uint8), cv2.IMREAD_COLOR)
    return (image.shape[0] // CELL) * (image.shape[1] // CELL) * ((len(images) + 1) // 2)


def _digest(data: str) -> str:
    return hashlib.sha256(data.encode()).hexdigest()


def _common_length(first: list[str], second: list[str]) -> int:
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))


def _data_of(part: dict[str, Any]) -> str | None:
    holder = part[part["type"]]
    return holder["url"] if isinstance(holder, dict) else holder


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, server: ChatServer, port: int) -> None:
        self.chat = server
        self.is_closing = False
        self._connections: set[socket.socket] = set()
        self._tls = None
        if server._tls is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(*server._tls)
        super().__init__(("127.0.0.1", port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self._tls is not None:
            try:
                request = self._tls.wrap_socket(request, server_side=True)
            except OSError:  # the client does not trust the certificate
                return
        super().finish_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # clients leave; connections are reset

    def reset_connections(self) -> None:
        """Reset all connections; return when the thread of each has closed it, or after 5 s."""
        self.is_closing = True
        for connection in self._connections.copy():
            _reset(connection)
        end = time.monotonic() + 5
        while self._connections and time.monotonic() < end:  # a file object of a thread keeps its socket open
            time.sleep(0.001)


def _reset(connection: socket.socket) -> None:
    """Close a connection so that the peer receives a reset."""
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RD)  # wakes the thread that reads
        connection.close()
    except OSError:
        pass


class _Left(Exception):  # noqa: N818  no error
    """The client has left."""


class _Ended(Exception):  # noqa: N818  no error
    """This server has ended the connection."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _HttpServer

    def log_message(self, *_: object) -> None:
        pass

    @property
    def _chat(self) -> ChatServer:
        return self.server.chat

    def do_GET(self) -> None:
        request, fault = self._accept(b"")
        if fault in _INSTEAD:
            _INSTEAD[fault](self)
        elif not self._is_allowed(request):
            self._send_error(401, "Unauthorized", "AuthenticationError")
        elif self.path == "/v1/models":
            model = {"id": self._chat.model, "object": "model", "created": 0, "owned_by": "vllm", "max_model_len": 4096}
            self._send_json(200, {"object": "list", "data": [model]})
        elif self.path == "/version":
            self._send_json(200, {"version": "0.33.0"})
        elif self.path == "/health":
            self._send(200, b"")
        else:
            self._send_json(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        request, fault = self._accept(self.rfile.read(int(self.headers["Content-Length"])))
        try:
            if fault is not None and fault in _INSTEAD:
                _INSTEAD[fault](self)
            else:
                self._answer(request, fault)
        except (OSError, _Left):
            self.close_connection = True
            if not self.server.is_closing:
                self._chat.disconnects[request.number] = time.monotonic()
        except _Ended:
            self.close_connection = True

    def _accept(self, body: bytes) -> tuple[Received, Fault | None]:
        headers = {name.lower(): value for name, value in self.headers.items()}
        return self._chat.accept(self.path, headers, body, self.client_address[1])

    def _is_allowed(self, request: Received) -> bool:
        key = self._chat.api_key
        return not key or request.headers.get("authorization") == f"Bearer {key}"

    # Answers

    def _answer(self, request: Received, fault: Fault | None) -> None:
        if not self._is_allowed(request):
            self._send_error(401, "Unauthorized", "AuthenticationError")
        elif request.path == "/detokenize":
            self._send_json(200, {"prompt": TIME_TEXT if self._chat.writes_times else ""})
        elif request.path != _CHAT:
            self._send_json(404, {"detail": "Not Found"})
        elif request.json["model"] != self._chat.model:
            self._send_error(404, f"The model `{request.json['model']}` does not exist.", "NotFoundError")
        elif reason := self._reason_to_refuse(request):
            self._send_error(400, reason, "BadRequestError")
        elif request.json.get("stream"):
            self._stream(request, fault)
        else:
            self._send_whole(request, fault)

    def _reason_to_refuse(self, request: Received) -> str:
        if not self._chat.trusts_kwargs and {"media_io_kwargs", "mm_processor_kwargs"} & set(request.json):
            return "per-request kwargs need --trust-request-mm-kwargs"
        index = self._chat.missing_item(request)
        if index is None:
            return ""
        modality = request.items[index]["type"].removesuffix("_url")
        return f"{CACHE_MISS} {modality} at index {index} but data is not provided."

    def _tokens(self, request: Received, fault: Fault | None) -> Iterator[str]:
        if fault is Fault.LONG_ANSWER:
            return iter(["x" * LONG_ANSWER_BYTES])
        if fault is Fault.ENDLESS:
            return itertools.chain(["word"], itertools.repeat(" word"))
        text = BAD_TEXT if fault is Fault.CONTROL_CHARACTERS else self._chat.answer
        if request.json.get("logprobs"):
            text = "yes" if self._chat.yes >= 0.5 else "no"
        words = text.split(" ")
        limit = request.json.get("max_completion_tokens") or request.json.get("max_tokens") or len(words)
        return itertools.islice((word if number == 0 else f" {word}" for number, word in enumerate(words)), limit)

    def _usage(self, request: Received, answer_tokens: int) -> dict[str, Any]:
        prompt, cached = self._chat.count_tokens(request)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": answer_tokens,
            "total_tokens": prompt + answer_tokens,
            "prompt_tokens_details": {"cached_tokens": cached},
        }

    def _logprobs(self, request: Received, token: str, fault: Fault | None) -> dict[str, Any] | None:
        if not request.json.get("logprobs") or fault is Fault.NO_LOGPROBS:
            return None
        from math import log, nan  # noqa: PLC0415

        def entry(text: str, probability: float) -> dict[str, Any]:
            value = nan if fault is Fault.NAN_LOGPROBS else log(max(probability, 1e-9))
            return {"token": text, "logprob": value, "bytes": list(text.encode())}

        yes = self._chat.yes * 0.98
        top = sorted(
            [entry("yes", yes), entry("no", 0.98 - yes), entry("a", 0.01)],
            key=lambda one: -one["logprob"] if one["logprob"] == one["logprob"] else 0.0,
        )
        chosen = next((one for one in top if one["token"] == token.strip()), top[0])
        return {"content": [{**chosen, "top_logprobs": top[: request.json.get("top_logprobs", 0)]}]}

    def _finish_reason(self, request: Received, count: int) -> str:
        limit = request.json.get("max_completion_tokens") or request.json.get("max_tokens")
        return "length" if limit is not None and count >= limit else "stop"

    def _send_whole(self, request: Received, fault: Fault | None) -> None:
        tokens = list(itertools.islice(self._tokens(request, fault), 100_000))
        self._wait(self._chat.token_sec * len(tokens))
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": "".join(tokens)},
            "logprobs": self._logprobs(request, tokens[0], fault),
            "finish_reason": self._finish_reason(request, len(tokens)),
        }
        body = {
            "id": f"chatcmpl-{request.number}",
            "object": "chat.completion",
            "created": 0,
            "model": self._chat.model,
            "choices": [] if fault is Fault.EMPTY_CHOICES else [choice],
            "usage": None if fault is Fault.NO_USAGE else self._usage(request, len(tokens)),
        }
        if fault is Fault.WRONG_SHAPE:
            body = {"result": ["a red box"]}
        if fault is Fault.GARBAGE:
            return self._send(200, b'{"id": "chatcmpl-0", "choi', "application/json")
        self._send_json(200, body)
        self.close_connection = fault is Fault.CLOSES_AFTER
        return None

    def _stream(self, request: Received, fault: Fault | None) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if request.json.get("return_token_ids"):
            self._send_data({**self._head(request), "choices": [], "prompt_token_ids": [1, 2, 3]})
        self._send_event(request, {"role": "assistant", "content": ""}, [], fault)
        count = 0
        for token in self._tokens(request, fault):
            self._wait(self._chat.token_sec)
            if count == 1:
                self._break(request, fault)
            self._send_event(request, {"content": token}, [self._logprobs(request, token, fault)], fault)
            count += 1
            self._chat.shown[request.number] = count
        if count < 2:
            self._break(request, fault)
        if fault is Fault.ENDS_EARLY:
            return self._send_chunk(b"")
        self._send_event(request, {"content": ""}, [], fault, finish_reason=self._finish_reason(request, count))
        options = request.json.get("stream_options") or {}
        if options.get("include_usage") and fault is not Fault.NO_USAGE:
            self._send_data({**self._head(request), "choices": [], "usage": self._usage(request, count)})
        self._send_chunk(b"data: [DONE]\n\n")
        self._send_chunk(b"")
        self.close_connection = fault is Fault.CLOSES_AFTER
        return None

    def _break(self, request: Received, fault: Fault | None) -> None:
        """Misbehave after the first token."""
        if fault is Fault.HANG_IN_ANSWER:
            self._hang()
        elif fault is Fault.RESET_IN_ANSWER:
            self._reset()
        elif fault is Fault.SLOW_LORIS_IN_ANSWER:
            self._drip(b"40\r\n: " + b" " * 60 + b"\n")
        elif fault is Fault.ERROR_IN_ANSWER:
            self._send_data({"error": {"message": "EngineCore died", "type": "InternalServerError", "code": 500}})
        elif fault is Fault.INVALID_UTF8:
            head = json.dumps(self._chunk(request, {"content": "@"}, None, None)).encode()
            self._send_chunk(b"data: " + head.replace(b"@", b" \xff\xfe\xc3") + b"\n\n")

    def _head(self, request: Received) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{request.number}",
            "object": "chat.completion.chunk",
            "created": 0,
            "model": self._chat.model,
        }

    def _chunk(
        self, request: Received, delta: dict[str, Any], logprobs: dict[str, Any] | None, finish_reason: str | None
    ) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        return {**self._head(request), "choices": [choice]}

    def _send_event(
        self,
        request: Received,
        delta: dict[str, Any],
        logprobs: list[dict[str, Any] | None],
        fault: Fault | None,
        *,
        finish_reason: str | None = None,
    ) -> None:
        if fault is Fault.GARBAGE:
            return self._send_chunk(b'data: {"id": "chatcmpl-0", "choi\n\n')
        if fault is Fault.WRONG_SHAPE:
            return self._send_data({"result": ["a red box"], "choices": "none"})
        chunk = self._chunk(request, delta, logprobs[0] if logprobs else None, finish_reason)
        return self._send_data({**chunk, "choices": []} if fault is Fault.EMPTY_CHOICES else chunk)

    def _send_data(self, content: dict[str, Any]) -> None:
        self._send_chunk(f"data: {json.dumps(content)}\n\n".encode())

    def _send_chunk(self, content: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))

    def _send(self, status: int, content: bytes, kind: str = "text/plain", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def _send_json(self, status: int, content: dict[str, Any]) -> None:
        self._send(status, json.dumps(content).encode(), "application/json")

    def _send_error(self, status: int, message: str, kind: str, **headers: str) -> None:
        content = {"error": {"message": message, "type": kind, "param": None, "code": status}}
        self._send(status, json.dumps(content).encode(), "application/json", **headers)

    # Faults in place of an answer

    def _wait(self, seconds: float) -> None:
        """Wait, and raise when the client leaves or the server is killed."""
        deadline = time.monotonic() + seconds
        while True:
            if self.server.is_closing:
                raise _Ended
            readable, _, _ = select.select([self.connection], [], [], 0.0 if seconds <= 0 else _POLL_SEC)
            if readable and not isinstance(self.connection, ssl.SSLSocket):
                if not self.connection.recv(1, socket.MSG_PEEK):
                    raise _Left
                time.sleep(min(seconds, _POLL_SEC))  # a request that waits in the connection
            if time.monotonic() >= deadline:
                return

    def _hang(self) -> None:
        self._wait(_LONGEST_HANG_SEC)
        raise _Ended

    def _hang_in_headers(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Ty")
        self._hang()

    def _drip(self, content: bytes) -> None:
        for byte in content:
            self.wfile.write(bytes([byte]))
            self._wait(1.0)
        self._hang()

    def _slow_loris(self) -> None:
        self._drip(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")

    def _close_connection(self) -> None:
        self.close_connection = True

    def _reset(self) -> None:
        _reset(self.connection)
        raise _Ended

    def _send_page(self, status: int) -> None:
        self._send(status, b"<html><body><h1>Welcome to the proxy</h1></body></html>", "text/html")

    def _redirect(self) -> None:
        self._send(307, b"", Location=f"{self._chat.elsewhere}/chat/completions")

    def _busy(self, **headers: str) -> None:
        self._send_error(429, "too many requests", "RateLimitError", **headers)


_INSTEAD = {
    Fault.HANG: _Handler._hang,
    Fault.HANG_IN_HEADERS: _Handler._hang_in_headers,
    Fault.SLOW_LORIS: _Handler._slow_loris,
    Fault.TOO_MANY_REQUESTS: _Handler._busy,
    Fault.TOO_MANY_REQUESTS_WAIT: lambda handler: handler._busy(Retry_After="1"),
    Fault.TOO_MANY_REQUESTS_LONG_WAIT: lambda handler: handler._busy(Retry_After="3600"),
    Fault.UNAUTHORIZED: lambda handler: handler._send_error(401, "Unauthorized", "AuthenticationError"),
    Fault.NOT_FOUND: lambda handler: handler._send_error(404, "The model `x` does not exist.", "NotFoundError"),
    Fault.CACHE_MISS: lambda handler: handler._send_error(400, f"{CACHE_MISS} image at index 0", "BadRequestError"),
    Fault.TOO_LARGE: lambda handler: handler._send_page(413),
    Fault.INTERNAL_ERROR: lambda handler: handler._send_error(500, "internal error", "InternalServerError"),
    Fault.ENGINE_DIED: lambda handler: handler._send_error(500, "EngineCore died", "InternalServerError"),
    Fault.BAD_GATEWAY: lambda handler: handler._send_page(502),
    Fault.UNAVAILABLE: lambda handler: handler._send_error(503, "the server is loading", "ServiceUnavailable"),
    Fault.CLOSED: _Handler._close_connection,
    Fault.RESET: _Handler._reset,
    Fault.HTML_PAGE: lambda handler: handler._send_page(200),
    Fault.EMPTY_BODY: lambda handler: handler._send(200, b"", "application/json"),
    Fault.REDIRECT: _Handler._redirect,
}


def main() -> None:
    """Serve until killed, and print the port when ready."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--token-sec", type=float, default=0.02)
    options = parser.parse_args()
    server = ChatServer(options.port, token_sec=options.token_sec)
    print(server.port, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
