"""A model server: whether it can be reached, what it and its model can do, and what to set for them."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from delayed_vlm_ros.dependencies import explained_imports
from delayed_vlm_ros.doctor.finding import Finding, Level, error, ok, warn
from delayed_vlm_ros.errors import AskTimeoutError, ConfigurationError, DelayedVlmError, ModelNotReadyError
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.metrics import AskMetrics
from delayed_vlm_ros.inference.remote.address import ServerAddress, parse_address
from delayed_vlm_ros.inference.remote.encodings import JpegCache, image_url
from delayed_vlm_ros.inference.remote.model import RemoteModel
from delayed_vlm_ros.inference.remote.settings import Encoding, RemoteSettings
from delayed_vlm_ros.inference.request import AskRequest
from delayed_vlm_ros.memory import SmartFrameManager
from delayed_vlm_ros.memory.frame import Frame
from delayed_vlm_ros.scenes.render import render
from delayed_vlm_ros.scenes.scene import Scene

if TYPE_CHECKING:
    from delayed_vlm_ros.inference.remote.capabilities import Capabilities
    from delayed_vlm_ros.inference.remote.client import ServerClient
    from delayed_vlm_ros.inference.remote.connection import ServerConnection

_REACH_SEC = 10.0
_ANSWER_SEC = 60.0  # a server may compile its model for the first questions
_HEIGHTS, _WIDTH = (224, 448), 448  # of test images; multiples of all of _MULTIPLES, larger than Qwen3-VL's minimum
_MULTIPLES = (14, 16, 28, 32)
_WRAPPERS = 2  # tokens before and after an image
_STAMPS = (0.0, 0.5, 1.0, 1.5)
_QUESTION = "What do you see?"
_MAX_NAMES = 10
_TRUST = "start vLLM with --trust-request-mm-kwargs"
_REPORT_TOKENS = "start vLLM with --enable-prompt-tokens-details"


@dataclass(frozen=True)
class QuestionCost:
    """Cost of a test question about four frames.

    Attributes:
        seconds: Time from the question to the complete answer.
        bytes_sent: Bytes sent to the server.
        tokens: Tokens of prompt and answer; of the answer only if the server does not report the prompt's.
        cached_tokens: Tokens of the prompt that the server had computed before.
        warnings: Limitations of the answer, one sentence each.
    """

    seconds: float
    bytes_sent: int
    tokens: int
    cached_tokens: int
    warnings: tuple[str, ...]


@dataclass
class ServerExamination:
    """What was found out about a model server.

    Attributes:
        findings: One line each, for people.
        models: Context length of each model that the server lists, in tokens, by name; None: not reported.
        capabilities: What server and model can do; None: unknown.
        reports_cached_tokens: Whether the server reports how much of a prompt it had computed before.
        frame_multiple: Height and width of a visual token in pixels; None: unknown.
        max_frame_tokens: Tokens to which the server makes the test image smaller; None: it does not, or is unknown.
        questions: A test question and the same one again.
        parameters: Parameters of the ``scene_memory`` node for this server; empty if it cannot be used.
    """

    findings: list[Finding] = field(default_factory=list)
    models: Mapping[str, int | None] = field(default_factory=dict)
    capabilities: Capabilities | None = None
    reports_cached_tokens: bool = False
    frame_multiple: int | None = None
    max_frame_tokens: int | None = None
    questions: tuple[QuestionCost, ...] = ()
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def is_usable(self) -> bool:
        """Whether a robot can ask the server."""
        return all(one.level is not Level.ERROR for one in self.findings)

    def as_json(self) -> dict[str, Any]:
        """Return the object that ``delayed-vlm server-check --json`` prints."""
        capabilities = self.capabilities
        found = {} if capabilities is None else {key: value for key, value in _fields(capabilities) if key != "extra"}
        return {
            "success": self.is_usable,
            "findings": [
                {"level": one.level.name, "subject": one.subject, "finding": one.text, "remedy": one.remedy}
                for one in self.findings
            ],
            "models": dict(self.models),
            **found,
            "reports_cached_tokens": self.reports_cached_tokens,
            "frame_multiple": self.frame_multiple,
            "max_frame_tokens": self.max_frame_tokens,
            "questions": [asdict(one) for one in self.questions],
            "parameters": self.parameters,
        }


def _fields(capabilities: Capabilities) -> list[tuple[str, Any]]:
    names = ("server", "model", "encoding", "holds_items", "writes_times", "accepts_video", "reports_scores")
    values = [(name, getattr(capabilities, name)) for name in names]
    return [(name, value.value if isinstance(value, Encoding) else value) for name, value in values]


def server_findings(name: str, settings: RemoteSettings) -> list[Finding]:
    """Check the connection of a node to its model server, by a request that costs the model nothing.

    Args:
        name: Address of the model.
        settings: Settings of the node, whose environment may have a key that this shell does not have.

    Raises:
        ConfigurationError: The address is invalid.
        DependencyError: The client library is not installed.
    """
    model = RemoteModel(parse_address(name), settings)
    key, missing = _key_here(settings)
    with explained_imports():
        from delayed_vlm_ros.inference.remote.client import ServerClient  # noqa: PLC0415  takes seconds

    client = ServerClient(model.address, key)
    try:
        return [_reached(client), _connection_finding(model), *missing]
    finally:
        client.close()


def _key_here(settings: RemoteSettings) -> tuple[str, list[Finding]]:
    """Return the server's key, and a finding if this shell does not have it."""
    try:
        return settings.api_key(), []
    except ConfigurationError:
        text = f"the environment variable {settings.api_key_env} (remote.api_key_env) is not set in this shell"
        return "", [warn("key", text, "run this command in the shell that starts the node, which needs the variable")]


def examine(model: RemoteModel) -> ServerExamination:
    """Find out what a model server and its model can do, by a few small requests.

    Raises:
        DependencyError: The client library is not installed.
    """
    found = ServerExamination()
    with explained_imports():
        from delayed_vlm_ros.inference.remote.client import ServerClient  # noqa: PLC0415  takes seconds

    client = ServerClient(model.address, model.settings.api_key())
    connection = model.connect()
    try:
        found.findings += [_reached(client), _connection_finding(model)]
        if found.is_usable:
            _examine_model(found, model, client, connection)
    finally:
        client.close()
        connection.close()
    return found


def _reached(client: ServerClient) -> Finding:
    started = time.monotonic()
    try:
        client.check(AskControl(started + _REACH_SEC))
    except AskTimeoutError:
        text = f"the model server {client.address.host} does not answer within {_REACH_SEC:g} s"
        return error("server", text, "check that it is running and not overloaded, and the network")
    except DelayedVlmError as failure:
        return error("server", str(failure))
    return ok("server", f"{client.address.host} answers in {1000 * (time.monotonic() - started):.0f} ms")


def _connection_finding(model: RemoteModel) -> Finding:
    key = model.settings.api_key_env
    with_key = f"with the key in the environment variable {key}" if key else "without a key"
    if model.address.is_encrypted:
        return ok("connection", f"encrypted (https), {with_key}")
    if key:
        return warn("connection", f"not encrypted (http), {with_key}: anybody on the way can read it", "use https")
    return ok("connection", f"not encrypted (http), {with_key}: fine in a network that nobody else uses")


def _examine_model(
    found: ServerExamination, model: RemoteModel, client: ServerClient, connection: ServerConnection
) -> None:
    found.models = _listed(client)
    try:
        capabilities = connection.capabilities(_control())
    except DelayedVlmError as failure:
        found.findings.append(_unusable(failure, model.address, found.models))
        return
    found.capabilities = capabilities
    found.findings += [
        _model_finding(capabilities, found.models),
        _encoding_finding(capabilities, model.settings),
        _times_finding(capabilities),
        _names_finding(capabilities),
        _scores_finding(capabilities),
    ]
    client.address = connection.address
    try:
        _measure(found, model, client, connection)
    except DelayedVlmError as failure:
        found.findings.append(error("test question", str(failure)))
        return
    found.parameters = _parameters(found, connection.address, model.settings)


def _control() -> AskControl:
    return AskControl(time.monotonic() + _ANSWER_SEC)


def _listed(client: ServerClient) -> Mapping[str, int | None]:
    """Return the models that the server lists; none if it lists none, as some servers of one model do."""
    try:
        return client.models(_control())
    except ModelNotReadyError:
        raise
    except DelayedVlmError:
        return {}


def _unusable(failure: DelayedVlmError, address: ServerAddress, models: Mapping[str, int | None]) -> Finding:
    if not address.base_url.endswith("/v1"):
        return error("model", str(failure), f"end the address in /v1, as in {address.base_url}/v1")
    if address.model and models and address.model not in models:
        return error("model", str(failure), f"use one that the server lists: {_names(models)}")
    return error("model", str(failure))


def _names(models: Mapping[str, int | None]) -> str:
    names = [*models][:_MAX_NAMES]
    return ", ".join([*names, *([f"{len(models) - len(names)} more"] if len(models) > len(names) else [])])


def _model_finding(capabilities: Capabilities, models: Mapping[str, int | None]) -> Finding:
    server = capabilities.server or "a server of an unknown kind"
    length = models.get(capabilities.model)
    context = f"a context of {length} tokens" if length else "a context of unknown length"
    others = [name for name in models if name != capabilities.model]
    text = f"{capabilities.model} on {server}, {context}"
    if capabilities.model in models and others:
        text = f"{text}; the server also lists {_names(dict.fromkeys(others))}"
    return ok("model", text)


def _encoding_finding(capabilities: Capabilities, settings: RemoteSettings) -> Finding:
    encoding = capabilities.encoding
    if settings.encoding is not Encoding.AUTO:
        return ok("encoding", f"{encoding.value}, as set")
    if encoding is Encoding.TIMED_IMAGES:
        return ok("encoding", "timed_images: the model reads times as text, so one image of each pair follows its time")
    if encoding is Encoding.VIDEO:
        return ok("encoding", "video: the server accepts all frames as one video with their times")
    text = "images: the server does not accept a video with the times of its frames; images follow their times in words"
    return warn("encoding", text, _TRUST if capabilities.server else "use vLLM for videos with times")


def _times_finding(capabilities: Capabilities) -> Finding:
    if capabilities.encoding is Encoding.TIMED_IMAGES:
        return ok("times", "true, to a tenth of a second")
    if capabilities.encoding is Encoding.IMAGES:
        return warn(
            "times", "true, but in words that the model was not trained with: answers about durations may be wrong"
        )
    if capabilities.writes_times:
        return ok("times", "true, to a tenth of a second: the model reads them as text in the video")
    text = "one interval for all frames of the video: answers about durations are wrong where the intervals differ"
    return warn("times", text, "for true times, serve a model that reads times as text (Qwen3-VL, Qwen3.5)")


def _names_finding(capabilities: Capabilities) -> Finding:
    if capabilities.holds_items:
        return ok("frames by name", "the server holds frames by name, so that each travels once")
    text = "the server does not hold frames by name: each question sends all of its frames again"
    return warn("frames by name", text, "use vLLM on a slow network")


def _scores_finding(capabilities: Capabilities) -> Finding:
    if capabilities.reports_scores:
        return ok("watches", "possible: the server reports probabilities of the first token")
    text = "not possible: the server does not report probabilities of the first token (logprobs)"
    return warn("watches", text, "use vLLM for watches")


def _measure(found: ServerExamination, model: RemoteModel, client: ServerClient, connection: ServerConnection) -> None:
    """Measure the size of a visual token and the cost of a question.

    Raises:
        DelayedVlmError: The server does not answer.
    """
    capabilities = connection.capabilities(_control())
    counts = _count_tokens(client, capabilities)
    found.reports_cached_tokens = counts.reports_cached
    found.frame_multiple = counts.multiple
    found.max_frame_tokens = None if counts.multiple else counts.image
    found.findings += [_cached_finding(found, capabilities), _multiple_finding(found, model.settings.frame_multiple)]
    fitting = replace(model.settings, frame_multiple=found.frame_multiple or model.settings.frame_multiple)
    size = _frame_size(found, fitting.frame_multiple)
    found.questions = _ask_twice(replace(model, settings=fitting), connection, size)
    found.findings.append(_cost_finding(found, size))


@dataclass(frozen=True)
class _TokenCounts:
    """Tokens of test images.

    Attributes:
        image: Tokens of the larger image; None: the server does not report tokens.
        difference: Tokens that the larger image has more than the smaller one.
        reports_cached: Whether the server reports cached tokens.
    """

    image: int | None
    difference: int | None
    reports_cached: bool

    @property
    def multiple(self) -> int | None:
        """Height and width of a visual token in pixels; None: unknown, because the server resizes images."""
        rows = _HEIGHTS[1] - _HEIGHTS[0]
        return next((side for side in _MULTIPLES if rows // side * (_WIDTH // side) == self.difference), None)


def _count_tokens(client: ServerClient, capabilities: Capabilities) -> _TokenCounts:
    from delayed_vlm_ros.inference.remote.client import ChatRequest  # noqa: PLC0415  takes seconds

    question = {"type": "text", "text": _QUESTION}
    contents = [[question], *([_test_image(height), question] for height in _HEIGHTS)]
    contents.append(contents[-1])  # vLLM reports no cached tokens if there are none
    results = [client.chat(ChatRequest(parts, 1, extra=capabilities.extra), _control()) for parts in contents]
    reports_cached = any(one.cached_tokens is not None for one in results)
    text, low, high, _ = (one.prompt_tokens for one in results)
    if text is None or low is None or high is None:
        return _TokenCounts(None, None, reports_cached)
    return _TokenCounts(high - text - _WRAPPERS, high - low, reports_cached)


def _test_image(height: int) -> dict[str, Any]:
    frame = Frame(np.full((height, _WIDTH, 3), 128, np.uint8), 0.0, 1, 0.0, "")
    return {"type": "image_url", "image_url": {"url": image_url(JpegCache(RemoteSettings.jpeg_quality), frame)}}


def _multiple_finding(found: ServerExamination, wanted: int) -> Finding:
    subject, multiple = "remote.frame_multiple", found.frame_multiple
    if multiple == wanted:
        return ok(subject, f"{wanted} fits: a visual token of the model is {wanted} × {wanted} pixels")
    if multiple is not None:
        text = f"{wanted} does not fit: a visual token of the model is {multiple} × {multiple} pixels"
        return warn(subject, text, f"set it to {multiple} (here: --frame-multiple {multiple})")
    remedy = "set it to patch size × merge size of the model"
    if found.max_frame_tokens is None:
        return warn(subject, f"unknown whether {wanted} fits, because the server does not report tokens", remedy)
    text = (
        f"unknown whether {wanted} fits, because the server makes images of {_WIDTH} × {_HEIGHTS[-1]} pixels smaller, "
        f"to {found.max_frame_tokens} tokens"
    )
    return warn(subject, text, f"{remedy}, and memory.max_pixels to {found.max_frame_tokens} × its square")


def _frame_size(found: ServerExamination, multiple: int) -> tuple[int, int]:
    """Return height and width of a frame that the server does not make smaller, in pixels."""
    if found.max_frame_tokens is None:
        return _HEIGHTS[-1], _WIDTH
    rows = math.isqrt(max(1, found.max_frame_tokens))
    return rows * multiple, max(1, found.max_frame_tokens) // rows * multiple


def _cached_finding(found: ServerExamination, capabilities: Capabilities) -> Finding:
    if found.reports_cached_tokens:
        return ok("cached tokens", "reported")
    return warn("cached tokens", "not reported", _REPORT_TOKENS if capabilities.server else "")


def _ask_twice(model: RemoteModel, connection: ServerConnection, size: tuple[int, int]) -> tuple[QuestionCost, ...]:
    memory = SmartFrameManager(0, len(_STAMPS))
    scene = Scene.from_seed(time.time_ns() % 2**32)  # frames that the server does not hold yet
    for stamp in _STAMPS:
        memory.add(render(scene, stamp, *size), stamp)
    engine = model.engine(memory, connection)
    request = AskRequest(_QUESTION, max_new_tokens=16)
    return tuple(_cost(engine.answer(request, _control()).metrics) for _ in range(2))


def _cost(metrics: AskMetrics) -> QuestionCost:
    return QuestionCost(
        metrics.total_latency, metrics.bytes_sent, metrics.kv_cache_length, metrics.kv_tokens_reused, metrics.warnings
    )


def _cost_finding(found: ServerExamination, size: tuple[int, int]) -> Finding:
    first, again = found.questions
    cached = f", {again.cached_tokens} of {again.tokens} tokens cached" if found.reports_cached_tokens else ""
    text = (
        f"{len(_STAMPS)} frames of {size[1]} × {size[0]} pixels: {first.seconds:.2f} s, {first.bytes_sent} bytes sent; "
        f"the same again: {again.seconds:.2f} s, {again.bytes_sent} bytes{cached}"
    )
    resized = [one for one in first.warnings if one.startswith("smaller frames")]
    return warn("test question", f"{text}; {resized[0]}") if resized else ok("test question", text)


def _parameters(
    found: ServerExamination, address: ServerAddress, settings: RemoteSettings
) -> Mapping[str, Mapping[str, Any]]:
    """Return the parameters that differ from the defaults, and those that depend on the model."""
    remote: dict[str, Any] = {"frame_multiple": found.frame_multiple or settings.frame_multiple}
    if settings.api_key_env:
        remote["api_key_env"] = settings.api_key_env
    parameters = {"model": {"name": str(address)}, "remote": remote}
    if found.max_frame_tokens is not None:
        parameters["memory"] = {"max_pixels": found.max_frame_tokens * remote["frame_multiple"] ** 2}
    return parameters
