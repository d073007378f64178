"""What a server and its model can do, found by a few small requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from uuid import uuid4

import numpy as np

from delayed_vlm_ros.errors import ServerError
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.remote.client import ChatRequest, ChatResult, RefusedError, ServerClient
from delayed_vlm_ros.inference.remote.encodings import JpegCache, encode, image_url
from delayed_vlm_ros.inference.remote.settings import Encoding, RemoteSettings
from delayed_vlm_ros.memory import KeptPair, Snapshot
from delayed_vlm_ros.memory.frame import Frame, FramePair

TOP_LOGPROBS = 20
"""Number of alternatives of the first token that are requested for scores; the most that most servers return."""

_CELLS = 2  # on each side of a test image
_TIMES = (0.0, 2.4)  # of the frames of the test video, in seconds; the model may write their mean
_MEAN_TIME = "<1.2seconds>"  # without spaces
_NOTHING: Mapping[str, Any] = MappingProxyType({})
_QUESTION = {"type": "text", "text": "Is there an image?"}


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a server and its model can do.

    Attributes:
        server: Name and version of the server; empty: unknown.
        model: Name of the model on the server.
        encoding: How frames are sent.
        holds_items: Whether the server keeps images by name, so that they travel once.
        writes_times: Whether the model writes the times of a video's frames as text into the prompt.
        accepts_video: Whether the server accepts a video with the times of its frames.
        reports_scores: Whether the server reports probabilities of the first token.
        extra: Further fields for each request.
    """

    server: str
    model: str
    encoding: Encoding
    holds_items: bool
    writes_times: bool
    accepts_video: bool
    reports_scores: bool
    extra: Mapping[str, Any]


def probe(client: ServerClient, settings: RemoteSettings, control: AskControl) -> Capabilities:
    """Find out what the server and the model can do.

    Args:
        client: Client whose address names the model.
        settings: Settings of the engine.
        control: Deadline and cancellation.

    Raises:
        DelayedVlmError: The server cannot be reached, does not serve the model, or cannot do what the settings demand.
    """
    version = client.version(control)
    extra = {"chat_template_kwargs": {"enable_thinking": False}} if version else {}  # others may refuse it
    probing = _Probe(client, settings, extra, control)
    reports_scores = probing.reports_scores()
    holds_items = probing.holds_items()
    video = probing.video()
    prompt = "" if video is None else client.detokenize(video.prompt_token_ids, control)
    writes_times = _MEAN_TIME in "".join(prompt.split())  # some tokenizers write spaces between tokens
    return Capabilities(
        server=f"vLLM {version}" if version else "",
        model=client.address.model,
        encoding=_choose(settings.encoding, client, accepts_video=video is not None, writes_times=writes_times),
        holds_items=holds_items,
        writes_times=writes_times,
        accepts_video=video is not None,
        reports_scores=reports_scores,
        extra=extra,
    )


def _choose(wanted: Encoding, client: ServerClient, *, accepts_video: bool, writes_times: bool) -> Encoding:
    if wanted is Encoding.VIDEO and not accepts_video:
        raise ServerError(
            f"the model server {client.address.host} does not accept a video with the times of its frames: start vLLM "
            "with --trust-request-mm-kwargs, or set remote.encoding to images"
        )
    if wanted is not Encoding.AUTO:
        return wanted
    if writes_times:
        return Encoding.TIMED_IMAGES
    return Encoding.VIDEO if accepts_video else Encoding.IMAGES


@dataclass(frozen=True, slots=True)
class _Probe:
    client: ServerClient
    settings: RemoteSettings
    extra: Mapping[str, Any]
    control: AskControl

    def reports_scores(self) -> bool:
        """Return whether the server reports probabilities of the first token.

        Raises:
            DelayedVlmError: The server does not answer about an image.
        """
        result = self._try([_image_part(self.settings)], top_logprobs=TOP_LOGPROBS)
        if result is None:
            self._send([_image_part(self.settings)])
        return result is not None and bool(result.first_tokens)

    def holds_items(self) -> bool:
        """Return whether an image that was sent once can be sent by name, and an unknown name is refused."""
        name = uuid4().hex
        image = _image_part(self.settings)
        by_name = {"type": "image_url", "image_url": None, "uuid": name}
        sent = self._try([{**image, "uuid": name}])
        named = None if sent is None else self._try([by_name])
        if sent is None or named is None or sent.prompt_tokens is None or sent.prompt_tokens != named.prompt_tokens:
            return False
        return self._try([{**by_name, "uuid": uuid4().hex}]) is None

    def video(self) -> ChatResult | None:
        """Return the result of a video with the times of its frames; None if the server does not accept it."""
        content = encode(_test_pair(self.settings), Encoding.VIDEO, self._jpegs(), frame_multiple=1, held=None)
        return self._try(content.parts, extra={**content.extra, "return_token_ids": True})

    def _jpegs(self) -> JpegCache:
        return JpegCache(self.settings.jpeg_quality)

    def _try(
        self, parts: Sequence[Mapping[str, Any]], *, top_logprobs: int = 0, extra: Mapping[str, Any] = _NOTHING
    ) -> ChatResult | None:
        """Return the result; None if the server refuses the request twice, as one refusal may be a passing fault."""
        for _ in range(2):
            with suppress(RefusedError):
                return self._send(parts, top_logprobs=top_logprobs, extra=extra)
        return None

    def _send(
        self, parts: Sequence[Mapping[str, Any]], *, top_logprobs: int = 0, extra: Mapping[str, Any] = _NOTHING
    ) -> ChatResult:
        request = ChatRequest([*parts, _QUESTION], 1, top_logprobs, {**self.extra, **extra})
        return self.client.chat(request, self.control)


def _image_part(settings: RemoteSettings) -> Mapping[str, Any]:
    frame = _test_pair(settings)[0].pair.first
    return {"type": "image_url", "image_url": {"url": image_url(JpegCache(settings.jpeg_quality), frame)}}


def _test_pair(settings: RemoteSettings) -> Snapshot:
    side = _CELLS * settings.frame_multiple
    image = np.full((side, side, 3), 128, np.uint8)
    first, second = (Frame(image, stamp, number, 0.0, "") for number, stamp in enumerate(_TIMES, 1))
    return (KeptPair(FramePair(1, first, second), in_star=False, in_stream=True),)
