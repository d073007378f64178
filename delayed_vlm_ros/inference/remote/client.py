"""HTTP client of a model server: one request at a time per call, with deadline and cancellation.

A call drives an event loop of its own in the caller's thread, so that a server that sends nothing, or sends slowly,
cannot delay a cancellation. Importing this module takes seconds, because it imports the ``openai`` package.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from socket import gaierror
from ssl import SSLError
from typing import Any, TypeVar

import httpx2
import openai

from delayed_vlm_ros.errors import (
    BusyError,
    DelayedVlmError,
    ModelNotReadyError,
    ServerError,
    shortened,
)
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.remote.address import ServerAddress

_Result = TypeVar("_Result")

_CONNECT_SEC = 3.0
_SILENCE_SEC = 60.0  # without a deadline: longest time between two parts of a response
_POLL_SEC = 0.02
_MAX_RESPONSE_BYTES = 8 * 2**20
_MAX_QUOTED_CHARACTERS = 300
_MAX_PARTS_PER_TOKEN = 4  # of servers that send characters
_FORBIDDEN = (401, 403)
_NOT_FOUND = 404
_TOO_LARGE = 413
_TOO_MANY_REQUESTS = 429
_SERVER_FAULT = 500  # and higher
_OVERLOADED = 503  # of vLLM with a limit of its queue; otherwise of a proxy whose server is away
_UNAVAILABLE = (502, _OVERLOADED, 504)
_BUSY = "busy"
_ENGINE_DIED = "EngineCore"  # of vLLM, which ends a few seconds later
_CACHE_MISS = "Cache miss for image"  # of vLLM: an item without data that it no longer holds


class RefusedError(ServerError):
    """The server refuses the request."""


class CacheMissError(RefusedError):
    """The server no longer holds an item that was sent without its data."""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A request for one answer.

    Attributes:
        content: Parts of the user's message, in the form of the API.
        max_tokens: Length limit of the answer in tokens.
        top_logprobs: Number of alternatives for each token; 0: none.
        extra: Further fields of the request, beyond the API.
    """

    content: Sequence[Mapping[str, Any]]
    max_tokens: int
    top_logprobs: int = 0
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ChatResult:
    """One answer.

    Attributes:
        text: The answer.
        finish_reason: Why it ended, as the server says: ``stop``, ``length`` or others.
        prompt_tokens: Tokens of the prompt; None: the server does not report them.
        cached_tokens: Tokens of the prompt that the server had computed before; None: the server does not report them.
        answer_tokens: Tokens of the answer.
        first_tokens: Text and log probability of the most likely first tokens.
        prompt_token_ids: The prompt as the model has it, where the request asks for it and the server reports it.
    """

    text: str
    finish_reason: str
    prompt_tokens: int | None
    cached_tokens: int | None
    answer_tokens: int
    first_tokens: tuple[tuple[str, float], ...]
    prompt_token_ids: tuple[int, ...] = ()


class ServerClient:
    """Client of one model server. Only one thread may use it at a time.

    Args:
        address: The server and its model.
        api_key: Key of the server; empty: none.

    Attributes:
        address: The server and its model.
        bytes_sent: Size of the bodies of all requests so far.
    """

    def __init__(self, address: ServerAddress, api_key: str = "") -> None:
        self.address = address
        self.bytes_sent = 0
        self._loop = asyncio.new_event_loop()
        self._has_key = bool(api_key)
        # The client follows no redirect: the key is for this server only.
        self._openai = openai.AsyncOpenAI(
            base_url=address.base_url,
            api_key=api_key or "none",
            organization="",
            project="",
            max_retries=0,
            http_client=openai.DefaultAsyncHttpxClient(
                follow_redirects=False, event_hooks={"request": [self._on_request], "response": [_on_response]}
            ),
            timeout=openai.Timeout(_SILENCE_SEC, connect=_CONNECT_SEC),
        )

    async def _on_request(self, request: httpx2.Request) -> None:
        self.bytes_sent += int(request.headers.get("content-length", 0))
        for header in ("OpenAI-Organization", "OpenAI-Project", *(() if self._has_key else ("Authorization",))):
            request.headers.pop(header, None)

    def models(self, control: AskControl) -> dict[str, int | None]:
        """Return the models that the server offers: the context length of each by its name; None: not reported.

        Raises:
            DelayedVlmError: As for ``chat``.
        """

        async def lengths() -> dict[str, int | None]:
            page = await self._openai.models.list()
            reported = {str(model.id): getattr(model, "max_model_len", None) for model in page.data}  # of vLLM
            return {name: length if isinstance(length, int) else None for name, length in reported.items()}

        return self._run(lengths, control)

    def version(self, control: AskControl) -> str:
        """Return the version of a vLLM server; empty for other servers.

        Raises:
            DelayedVlmError: As for ``chat``.
        """

        async def version() -> str:
            try:
                content: Any = await self._openai.get(f"{self._root}/version", cast_to=object)
            except openai.APIStatusError as error:
                if _is_passing(error):
                    raise
                return ""
            return str(content.get("version", "")) if isinstance(content, Mapping) else ""

        return self._run(version, control)

    def check(self, control: AskControl) -> None:
        """Check that the server is there, by a request that costs its model nothing.

        Raises:
            DelayedVlmError: As for ``chat``.
        """

        async def check() -> None:
            try:
                await self._openai.get(f"{self._root}/health", cast_to=httpx2.Response)
            except openai.NotFoundError:  # not all servers have it
                await self._openai.models.list()

        self._run(check, control)

    def detokenize(self, token_ids: Sequence[int], control: AskControl) -> str:
        """Return the text of tokens; empty if the server does not offer it.

        Raises:
            DelayedVlmError: As for ``chat``.
        """

        async def text() -> str:
            body = {"model": self.address.model, "tokens": list(token_ids)}
            try:
                content: Any = await self._openai.post(f"{self._root}/detokenize", body=body, cast_to=object)
            except openai.APIStatusError as error:
                if _is_passing(error):
                    raise
                return ""
            return str(content["prompt"])

        return self._run(text, control)

    def chat(
        self, request: ChatRequest, control: AskControl, on_text: Callable[[Sequence[str]], None] | None = None
    ) -> ChatResult:
        """Return the model's answer.

        A request whose connection breaks before the response is sent once more: the server had closed it meanwhile.

        Args:
            request: The request.
            control: Deadline and cancellation.
            on_text: Called with the parts of the text so far, for each part.

        Raises:
            AskCancelledError: The request was cancelled; its connection is closed.
            AskTimeoutError: The deadline has passed.
            ModelNotReadyError: The server cannot be reached, or the connection broke.
            BusyError: The server has too many requests.
            CacheMissError: An item without data is unknown to the server.
            RefusedError: The server refuses the request.
            ServerError: Its response is invalid.
        """
        return self._run(lambda: self._chat(request, on_text), control)

    def chat_all(self, requests: Sequence[ChatRequest], control: AskControl, *, at_once: int) -> list[ChatResult]:
        """Return the answers to several requests.

        Args:
            requests: The requests.
            control: Deadline and cancellation of all together.
            at_once: Largest number of requests that the server has at the same time.

        Raises:
            DelayedVlmError: As for ``chat``, for the first one that fails; the others are cancelled.
        """

        async def answers() -> list[ChatResult]:
            free = asyncio.Semaphore(at_once)

            async def answer(request: ChatRequest) -> ChatResult:
                async with free:
                    return await self._chat(request, None)

            tasks = [asyncio.ensure_future(answer(request)) for request in requests]
            try:
                return list(await asyncio.gather(*tasks))
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

        return self._run(answers, control)

    def close(self) -> None:
        """Close all connections."""
        if not self._loop.is_closed():
            self._loop.run_until_complete(self._openai.close())
            self._loop.close()

    @property
    def _root(self) -> str:
        """Address of the server outside the API."""
        return self.address.base_url.removesuffix("/v1")

    def _run(self, work: Callable[[], Awaitable[_Result]], control: AskControl) -> _Result:
        with self._explained():
            return self._loop.run_until_complete(_supervised(work, control))

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Convert errors of the library, and of responses that it cannot parse.

        Raises:
            DelayedVlmError: As for ``chat``.
        """
        try:
            yield
        except DelayedVlmError:
            raise
        except (ValueError, TypeError, AttributeError, LookupError) as error:
            raise self._invalid(f"{type(error).__name__}: {error}") from error
        except Exception as error:
            explained = self._explain(error)
            if explained is None:
                raise
            raise explained from error

    def _explain(self, error: Exception) -> DelayedVlmError | None:
        host = self.address.host
        if isinstance(error, openai.APITimeoutError):
            return ModelNotReadyError(
                f"the model server {host} does not answer: check that it is running and not overloaded, and the network"
            )
        if isinstance(error, openai.APIConnectionError):
            return _connection_error(host, error)
        if isinstance(error, openai.APIStatusError):
            return _status_error(host, error)
        if isinstance(error, openai.APIError):  # an error event in the middle of an answer
            return ServerError(
                f"the model server {host} ended the answer with an error ({_quoted(error)}): see its log"
            )
        return None

    def _invalid(self, reason: str) -> ServerError:
        return ServerError(
            f"invalid response from the model server {self.address.host}: {shortened(reason, _MAX_QUOTED_CHARACTERS)}: "
            "check that its address is that of an OpenAI-compatible API"
        )

    async def _chat(self, request: ChatRequest, on_text: Callable[[Sequence[str]], None] | None) -> ChatResult:
        answer = _Answer()
        stream = await self._open(request)
        async with stream:
            async for chunk in stream:
                if answer.add(chunk) and on_text is not None:
                    on_text(answer.parts)
                if len(answer.parts) > _MAX_PARTS_PER_TOKEN * request.max_tokens:  # the server knows no limit
                    answer.finish_reason = "length"
                    break
        if not answer.finish_reason:
            raise self._invalid("the answer ended without a finish reason")
        return answer.result()

    async def _open(self, request: ChatRequest) -> Any:
        arguments: dict[str, Any] = {
            "model": self.address.model,
            "messages": [{"role": "user", "content": list(request.content)}],
            "max_tokens": request.max_tokens,
            "temperature": 0.0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if request.top_logprobs:
            arguments |= {"logprobs": True, "top_logprobs": request.top_logprobs}
        if request.extra:
            arguments["extra_body"] = dict(request.extra)
        create = self._openai.chat.completions.create
        try:
            return await create(**arguments)
        except openai.APITimeoutError:
            raise
        except openai.APIConnectionError:
            return await create(**arguments)


@dataclass(slots=True)
class _Answer:
    """An answer that is being received."""

    parts: list[str] = field(default_factory=list)
    finish_reason: str = ""
    usage: Any = None
    first_tokens: tuple[tuple[str, float], ...] = ()
    prompt_token_ids: tuple[int, ...] = ()

    @property
    def text(self) -> str:
        return "".join(self.parts)

    def add(self, chunk: Any) -> bool:
        """Add an event of the stream. Return whether it has text."""
        self.usage = chunk.usage or self.usage
        self.prompt_token_ids = tuple(getattr(chunk, "prompt_token_ids", None) or self.prompt_token_ids)
        if not chunk.choices:
            return False
        choice = chunk.choices[0]
        self.finish_reason = str(choice.finish_reason or self.finish_reason)
        if choice.logprobs is not None and choice.logprobs.content and not self.first_tokens:
            alternatives = choice.logprobs.content[0].top_logprobs
            self.first_tokens = tuple((str(one.token), float(one.logprob)) for one in alternatives)
        text = choice.delta.content
        if not text:
            return False
        if not isinstance(text, str):
            raise TypeError(f"text of an answer expected, got {type(text).__name__}")
        self.parts.append(text)
        return True

    def result(self) -> ChatResult:
        usage = self.usage
        details = None if usage is None else usage.prompt_tokens_details
        return ChatResult(
            self.text,
            self.finish_reason,
            None if usage is None else int(usage.prompt_tokens),
            None if details is None or details.cached_tokens is None else int(details.cached_tokens),
            len(self.parts) if usage is None else int(usage.completion_tokens),
            self.first_tokens,
            self.prompt_token_ids,
        )


async def _supervised(work: Callable[[], Awaitable[_Result]], control: AskControl) -> _Result:
    """Return the result of work; cancel it when the control says so.

    Raises:
        AskCancelledError: The request was cancelled.
        AskTimeoutError: The deadline has passed.
    """
    control.check()
    task = asyncio.ensure_future(work())
    try:
        while not task.done():
            await asyncio.wait([task], timeout=_POLL_SEC)
            control.check()
    except BaseException:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)  # closes the connection
        raise
    return task.result()


class _BoundedStream(httpx2.AsyncByteStream):
    """The body of a response, up to a limit."""

    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        received = 0
        async for part in self._stream:
            received += len(part)
            if received > _MAX_RESPONSE_BYTES:
                raise ValueError(f"more than {_MAX_RESPONSE_BYTES >> 20} MiB")
            yield part

    async def aclose(self) -> None:
        await self._stream.aclose()


async def _on_response(response: httpx2.Response) -> None:
    if isinstance(response.stream, httpx2.AsyncByteStream):
        response.stream = _BoundedStream(response.stream)


def _connection_error(host: str, error: openai.APIConnectionError) -> ModelNotReadyError:
    return ModelNotReadyError(
        f"cannot reach the model server {host} ({_reason(error)}): check that it is running, its address, and the "
        "network"
    )


def _reason(error: BaseException) -> str:
    """Return what the operating system says about a failed connection."""
    cause = error
    while (earlier := cause.__cause__ or cause.__context__) is not None:
        cause = earlier
    if isinstance(cause, OSError) and not isinstance(cause, (SSLError, gaierror)) and cause.errno:
        return os.strerror(cause.errno)
    return shortened(str(cause) or type(cause).__name__, _MAX_QUOTED_CHARACTERS)


def _is_passing(error: openai.APIStatusError) -> bool:
    """Return whether the same request may succeed later."""
    return error.status_code == _TOO_MANY_REQUESTS or error.status_code >= _SERVER_FAULT


def _status_error(host: str, error: openai.APIStatusError) -> DelayedVlmError:
    status, quoted = error.status_code, _quoted(error)
    if status == _TOO_MANY_REQUESTS:
        wait = error.response.headers.get("retry-after", "")
        return BusyError(f"the model server {host} is busy: retry {f'in {wait} s' if wait.isdecimal() else 'later'}")
    if status == _OVERLOADED and _BUSY in quoted.lower():
        return BusyError(f"the model server {host} is busy: retry later")
    if status in _UNAVAILABLE or _ENGINE_DIED in quoted:
        return ModelNotReadyError(
            f"the model server {host} is not available (HTTP {status}: {quoted}): wait until it has started, and see "
            "its log"
        )
    if _CACHE_MISS in quoted:
        return CacheMissError(f"the model server {host} no longer holds a frame: {quoted}")
    if status in _FORBIDDEN:
        reason = (
            f"refuses access (HTTP {status}): set remote.api_key_env to the environment variable that has a valid key"
        )
    elif error.response.is_redirect:
        reason = f"redirects to another address (HTTP {status}): use that address, ending in /v1"
    elif status == _NOT_FOUND:
        reason = f"has no such model or API (HTTP {status}): {quoted}"
    elif status == _TOO_LARGE:
        reason = (
            f"refuses the size of the request (HTTP {status}): raise the limit of the server or its proxy, or lower "
            "remote.jpeg_quality or the memory sizes"
        )
    elif status >= _SERVER_FAULT:
        reason = f"failed (HTTP {status}: {quoted}): see its log"
    else:
        reason = f"refuses the request (HTTP {status}): {quoted}"
    return RefusedError(f"the model server {host} {reason}")


def _quoted(error: openai.APIError) -> str:
    """Return the server's own words."""
    body = error.body
    message = body.get("message") or body.get("detail") if isinstance(body, Mapping) else None  # detail: of FastAPI
    return shortened(str(message or error.message), _MAX_QUOTED_CHARACTERS)
