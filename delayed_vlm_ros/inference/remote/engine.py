"""The engine that asks a model server: the memory stays on the robot, frames travel when a question needs them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from delayed_vlm_ros.errors import BadRequestError, ServerError, UnsupportedModelError
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.engine import CachedBytes
from delayed_vlm_ros.inference.finish import LENGTH, STOP, FinishReason, finish_warnings
from delayed_vlm_ros.inference.metrics import AskMetrics
from delayed_vlm_ros.inference.progress import Progress, Stage
from delayed_vlm_ros.inference.remote.capabilities import TOP_LOGPROBS, Capabilities
from delayed_vlm_ros.inference.remote.client import CacheMissError, ChatRequest, ChatResult
from delayed_vlm_ros.inference.remote.connection import ServerConnection
from delayed_vlm_ros.inference.remote.encodings import Content, JpegCache, encode, has_even_times
from delayed_vlm_ros.inference.remote.settings import RemoteSettings
from delayed_vlm_ros.inference.request import AskRequest, AskResult, check_request, select_frames, window_start
from delayed_vlm_ros.inference.yes_no import ScoreResult, yes_no_of_tokens
from delayed_vlm_ros.memory import SmartFrameManager, Snapshot
from delayed_vlm_ros.text import escaped_lines

_Result = TypeVar("_Result")

DEFAULT_MAX_NEW_TOKENS = 128
_SCORES_AT_ONCE = 4
_MAX_HELD = 5000  # names; a server that has dropped an item says so
_CONTROL_TOKEN = re.compile(r"<\|[^<>|\s]{1,40}\|>|</?think>")
_THINKING = "</think>"
_NO_EVIDENCE = "no evidence: a model server does not report the attention that pairs are ranked by"
_ONE_INTERVAL = (
    "uneven times: the model has one interval for all frames of a video, but the kept frames follow one another at "
    "different intervals: answers about durations are wrong"
)


class RemoteEngine:
    """Answers questions about one camera's memory by a model server. Only one thread may ask at a time.

    Args:
        memory: The camera's memory.
        connection: Connection to the server, which several engines may share.
        settings: Settings of the engine.
    """

    def __init__(self, memory: SmartFrameManager, connection: ServerConnection, settings: RemoteSettings) -> None:
        self._memory = memory
        self._connection = connection
        self._settings = settings
        self._jpegs = JpegCache(settings.jpeg_quality)
        self._held: dict[str, None] = {}  # names of the items that the server should hold, the newest last

    def answer(
        self, request: AskRequest, control: AskControl | None = None, *, frames: Snapshot | None = None
    ) -> AskResult:
        """Answer a request.

        Args:
            request: The question with its limits.
            control: Control of the work.
            frames: Pairs to use instead of the kept ones, oldest first.

        Raises:
            BadRequestError: The question or a limit is invalid.
            NoFramesError: No frame is kept, or none lies within the limits.
            ModelNotReadyError: The server cannot be reached.
            BusyError: The server has too many requests.
            ServerError: The server refuses the request, or its response is invalid.
            UnsupportedModelError: The answer is a chain of thought.
            AskCancelledError: The question was cancelled.
            AskTimeoutError: The deadline has passed.
        """
        _check_question(request)
        control = control or AskControl()
        call = _Call(time.monotonic(), self._connection.bytes_sent)
        kept = self._memory.snapshot()
        snapshot = select_frames(kept if frames is None else frames, request)
        control.report(Progress(Stage.ENCODING))
        max_tokens = request.max_new_tokens or DEFAULT_MAX_NEW_TOKENS

        def on_text(parts: Sequence[str]) -> None:
            if not call.first_token:
                call.first_token = time.monotonic()
                control.report(Progress(Stage.GENERATING))
            if control.wants_text:
                text = escaped_lines("".join(parts).strip())
                control.report(Progress(Stage.GENERATING, text, len(parts)))

        def ask(content: Content, capabilities: Capabilities) -> ChatResult:
            chat = _chat_request(content, capabilities, request.question, max_tokens)
            return self._connection.chat(chat, control, on_text)

        content, capabilities, result = self._send(kept, snapshot, control, ask)
        if _THINKING in result.text:
            raise UnsupportedModelError(
                f"the model of the server {self._connection.address.host} answers with a chain of thought: serve an "
                "Instruct model"
            )
        warnings = (*_warnings(content, capabilities, snapshot), *self._count_warnings(content, result))
        finish_reason: FinishReason = LENGTH if result.finish_reason == "length" else STOP
        if result.finish_reason not in ("stop", "length"):
            warnings = (*warnings, f"the model server ended the answer: {result.finish_reason}")
        if request.ranks_evidence:
            warnings = (*warnings, _NO_EVIDENCE)
        metrics = self._metrics(call, content, [result])
        metrics = replace(
            metrics,
            warnings=(*warnings, *finish_warnings(finish_reason, result.answer_tokens)),
            finish_reason=finish_reason,
            answer_tokens=result.answer_tokens,
        )
        return AskResult(escaped_lines(result.text.strip()), metrics, snapshot)

    def score(
        self,
        questions: Sequence[str],
        *,
        window_sec: float | None = None,
        frames: Snapshot | None = None,
        control: AskControl | None = None,
    ) -> ScoreResult:
        """Return what the model would answer to yes/no questions about the newest frames.

        Each question is a request for one token. Probabilities of rare first tokens are not reported, so that scores
        near 0 and 1 are bounds.

        Args:
            questions: Plain texts.
            window_sec: Shortest span of the newest frames to use, in seconds; None: all kept frames.
            frames: Pairs to use instead of the kept ones, oldest first.
            control: Control of the work.

        Raises:
            UnsupportedModelError: The server does not report probabilities.
            DelayedVlmError: As for ``answer``.
        """
        control = control or AskControl()
        call = _Call(time.monotonic(), self._connection.bytes_sent)
        kept = self._memory.snapshot()
        asked = kept if frames is None else frames
        since = None if window_sec is None else window_start(asked, window_sec)
        requests = [AskRequest(question, since=since) for question in questions]
        for request in requests:
            _check_question(request)
        if not requests:
            raise BadRequestError("no question: give at least one")
        snapshot = select_frames(asked, requests[0])

        def ask(content: Content, capabilities: Capabilities, some: Sequence[AskRequest]) -> list[ChatResult]:
            if not capabilities.reports_scores:
                raise UnsupportedModelError(
                    f"the model server {self._connection.address.host} does not report probabilities (logprobs), which "
                    "standing questions need: use a server that does, such as vLLM"
                )
            chats = [_chat_request(content, capabilities, one.question, 1, TOP_LOGPROBS) for one in some]
            return self._connection.chat_all(chats, control, at_once=_SCORES_AT_ONCE)

        # The others follow when the server holds the images: these travel once.
        content, capabilities, results = self._send(kept, snapshot, control, partial(ask, some=requests[:1]))
        if len(requests) > 1:
            results += self._send(kept, snapshot, control, partial(ask, some=requests[1:]))[-1]
        metrics = self._metrics(call, content, results)
        warnings = (*_warnings(content, capabilities, snapshot), *self._count_warnings(content, results[0]))
        return ScoreResult(
            tuple(yes_no_of_tokens(result.first_tokens) for result in results),
            snapshot,
            replace(metrics, warnings=warnings, answer_tokens=0),
        )

    def precompute(self, control: AskControl | None = None, *, prefill: bool) -> bool:  # noqa: ARG002
        """Do nothing: the server computes for questions only."""
        return False

    def keep_windows(self, lengths: Collection[float]) -> None:
        """Do nothing: the server decides what it keeps."""

    def cached_bytes(self) -> CachedBytes:
        """Return the bytes of compressed frames kept between questions."""
        return CachedBytes(self._jpegs.size_bytes, 0)

    def reset_cache(self) -> None:
        """Drop the compressed frames."""
        self._jpegs.clear()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _send(
        self,
        kept: Snapshot,
        snapshot: Snapshot,
        control: AskControl,
        ask: Callable[[Content, Capabilities], _Result],
    ) -> tuple[Content, Capabilities, _Result]:
        """Send frames, those that the server holds by name only, and return what was sent and the result."""
        capabilities = self._connection.capabilities(control)
        self._jpegs.keep(kept)

        def encoded() -> Content:
            held = self._held if capabilities.holds_items else None
            return encode(
                snapshot, capabilities.encoding, self._jpegs, frame_multiple=self._settings.frame_multiple, held=held
            )

        content = encoded()
        try:
            result = ask(content, capabilities)
        except CacheMissError:  # the server was restarted, needed the memory, or is another one of several
            self._held = {}
            content = encoded()
            result = ask(content, capabilities)
        self._note_held(content.names)
        return content, capabilities, result

    def _note_held(self, names: Sequence[str]) -> None:
        for name in names:
            self._held.pop(name, None)
            self._held[name] = None
        for name in [*self._held][:-_MAX_HELD]:
            del self._held[name]

    def _count_warnings(self, content: Content, result: ChatResult) -> tuple[str, ...]:
        """Compare the tokens of the prompt with those of the frames.

        Raises:
            ServerError: The server left out frames of the video.
        """
        if result.prompt_tokens is None or result.prompt_tokens >= content.visual_tokens:
            return ()
        counts = (
            f"{result.prompt_tokens} tokens in the prompt, at least {content.visual_tokens} expected for "
            f"{content.items} frames"
        )
        remedy = (
            "check remote.frame_multiple (28 for Qwen2.5-VL, 32 for Qwen3-VL and Qwen3.5), and lower memory.max_pixels "
            "to what the model accepts"
        )
        if content.is_video:
            raise ServerError(
                f"the model server {self._connection.address.host} left out frames of the video ({counts}): {remedy}, "
                "or set remote.encoding to images"
            )
        return (f"smaller frames: the model server made the frames smaller ({counts}): {remedy}",)

    def _metrics(self, call: _Call, content: Content, results: Sequence[ChatResult]) -> AskMetrics:
        """Return the cost of a call, without warnings."""
        ended = time.monotonic()
        return AskMetrics(
            total_latency=ended - call.started,
            encoding_latency=None,  # the server does not report it
            generation_latency=ended - call.started,
            time_to_first_token=(call.first_token or ended) - call.started,
            frames_encoded=content.items_sent,
            frames_reused=content.items - content.items_sent,
            visual_tokens=content.visual_tokens,
            kv_cache_length=sum((result.prompt_tokens or 0) + result.answer_tokens for result in results),
            kv_tokens_reused=sum(result.cached_tokens or 0 for result in results),
            answer_tokens=sum(result.answer_tokens for result in results),
            video_grid_thw=(),
            exact=False,
            warnings=(),
            bytes_sent=self._connection.bytes_sent - call.bytes_before,
        )


@dataclass(slots=True)
class _Call:
    """Start of a call: time on the clock of ``time.monotonic``, and bytes that the connection had sent before."""

    started: float
    bytes_before: int
    first_token: float = 0.0


def _check_question(request: AskRequest) -> None:
    """Check a question and its limits.

    Raises:
        BadRequestError: The question or a limit is invalid, or it contains a control token.
    """
    check_request(request)
    token = _CONTROL_TOKEN.search(request.question)
    if token is not None:
        raise BadRequestError(f"the question contains '{token[0]}', a control token of the model: leave it out")


def _chat_request(
    content: Content, capabilities: Capabilities, question: str, max_tokens: int, top_logprobs: int = 0
) -> ChatRequest:
    parts = (*content.parts, {"type": "text", "text": question})
    return ChatRequest(parts, max_tokens, top_logprobs, {**capabilities.extra, **content.extra})


def _warnings(content: Content, capabilities: Capabilities, snapshot: Snapshot) -> tuple[str, ...]:
    if content.is_video and not capabilities.writes_times and not has_even_times(snapshot):
        return (content.warning, _ONE_INTERVAL)
    return (content.warning,)
