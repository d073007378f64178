"""The engine: remember frames as they come, run the model only when somebody asks."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import Cache

from delayed_vlm_ros.errors import DeviceMemoryError, NonFiniteError
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.local.budget import plan_budget, token_bytes
from delayed_vlm_ros.inference.local.cache.encoding import CachedBytes, EncodingCache
from delayed_vlm_ros.inference.local.cache.prefix import round_up_capacity
from delayed_vlm_ros.inference.local.generation import generate_answer
from delayed_vlm_ros.inference.local.models.checkpoint import frame_geometry, only_size, resolve_checkpoint
from delayed_vlm_ros.inference.local.models.loading import load_model
from delayed_vlm_ros.inference.local.oom import CACHES_DROPPED, frames_dropped, half_of
from delayed_vlm_ros.inference.local.prompt import build_prompt
from delayed_vlm_ros.inference.local.video_input import VideoLayout, lay_out
from delayed_vlm_ros.inference.metrics import AskMetrics
from delayed_vlm_ros.inference.progress import Progress, Stage
from delayed_vlm_ros.inference.request import AskRequest, AskResult, check_request, select_frames
from delayed_vlm_ros.ingest.geometry import FrameGeometry
from delayed_vlm_ros.ingest.ingestor import FrameIngestor
from delayed_vlm_ros.memory import MemoryConfig, SmartFrameManager, Snapshot

DEFAULT_MAX_PIXELS = MemoryConfig.max_pixels
DEFAULT_MAX_NEW_TOKENS = 128
_QUESTION_ROOM = 128  # tokens reserved where the question is not known yet
_MOST_ROOM_FOR_AN_ANSWER = 512  # tokens reserved behind a prefix; a longer answer makes its own room
# qwen-vl-utils takes a list of frames for 2 frames a second; so does add_frame where no stamp is given.
_DEFAULT_FRAME_PERIOD_SEC = 0.5


class DelayedBatchInferenceEngine:
    """Scene memory of one camera with the model that answers about it.

    Adding frames runs no model code. An ask encodes the kept frames as one video; a further ask encodes only pairs that
    are new, and prefills only what stands behind the first change. One thread at a time may ask; frames may be added
    from another meanwhile.

    Args:
        model: A Qwen2-VL or Qwen2.5-VL model of the library.
        processor: Its processor.
        device: Where to run; None: where the model is.
        max_pixels: Upper bound of a kept frame's height × width; the checkpoint's own limit holds too.
        star_memory_size: Key frames over the whole past, in frames.
        stream_window_size: Newest frames, in frames.
        frame_manager: A memory to use in place of a new one; its sizes and its chunk are then its own.
        eviction_chunk: Frames that leave the memory at once when it is full; 0: a pair when one comes. More: what is
            encoded stays valid for longer, and the memory holds a chunk less at times.
        memory_budget_mb: Upper bound of the bytes kept between asks, in MB of 10**6 bytes: pixels, vision features and
            KV. None: no bound.
        budget_shares: Engines that share it, in equal parts; this one keeps to its own.
        features_on_host: Whether vision features are kept in the host's memory rather than on the device.
        canonical: Whether a warm ask computes in the very steps of a cold one. Its answer then equals the cold one's to
            the bit, whatever the dtype; else up to rounding.
        warnings: Standing notices for every answer, such as that the model is the demo's.
        on_oom: Called when an ask has run out of the device's memory, before any frame is left out for that:
            others on the device may drop what they keep.

    Raises:
        ConfigurationError: ``max_pixels`` is below what the model takes, or a memory size cannot work.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        device: str | None = None,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        star_memory_size: int = MemoryConfig.star_memory_size,
        stream_window_size: int = MemoryConfig.stream_window_size,
        frame_manager: SmartFrameManager | None = None,
        *,
        eviction_chunk: int = 0,
        memory_budget_mb: float | None = None,
        budget_shares: int = 1,
        features_on_host: bool = False,
        canonical: bool = True,
        warnings: tuple[str, ...] = (),
        on_oom: Callable[[], None] | None = None,
    ) -> None:
        self.model = model if device is None else model.to(device)
        self.processor = processor
        self.frame_manager = frame_manager or SmartFrameManager(
            star_memory_size, stream_window_size, eviction_chunk=eviction_chunk
        )
        geometry = _geometry(model.config, processor, max_pixels)
        self._ingestor = FrameIngestor(geometry, self.frame_manager)
        budget = None
        if memory_budget_mb is not None:
            token = token_bytes(model.config.text_config.to_dict(), model.dtype.itemsize)
            frames = self.frame_manager.capacity
            budget = plan_budget(memory_budget_mb, frames, geometry, token, shares=budget_shares)
        self._budget = budget
        self._precomputed: tuple[Any, ...] = ()
        self._degraded = warnings
        self._on_shortage = on_oom
        self._encoded = EncodingCache(
            model,
            processor,
            features_on_host=features_on_host,
            canonical=canonical,
            budget=budget,
        )

    @classmethod
    def from_pretrained(
        cls,
        model: str = "auto",
        *,
        device: str = "auto",
        dtype: str = "auto",
        attention: str = "auto",
        allow_download: bool = False,
        **memory: Any,
    ) -> DelayedBatchInferenceEngine:
        """Find and load a checkpoint, and make an engine for it that carries the checkpoint's notices.

        Args:
            model: As for ``resolve_checkpoint``: a folder, a name on the hub, ``demo`` or ``auto``.
            device: As for ``load_model``.
            dtype: As for ``load_model``.
            attention: As for ``load_model``.
            allow_download: Whether a hub model that is not on this machine may be fetched.
            **memory: Further arguments of the constructor.

        Raises:
            ModelNotFoundError: The checkpoint is not on this machine.
            UnsupportedModelError: It cannot be loaded.
            ConfigurationError: The device, dtype or attention cannot be had here, or a memory size cannot work.
        """
        checkpoint = resolve_checkpoint(model, allow_download=allow_download, device=device)
        loaded = load_model(checkpoint, device=device, dtype=dtype, attention=attention)
        return cls(loaded.model, loaded.processor, warnings=checkpoint.warnings, **memory)

    def add_frame(self, image: Any, timestamp: float | None = None) -> str:
        """Remember an image.

        Args:
            image: RGB uint8 array of shape (H, W, 3), or a PIL image.
            timestamp: When it was taken, in seconds, newer than the last one; None: half a second after the last one.

        Returns:
            What became of it, such as ``Frame #10 added to Stream Memory + Star Memory (scene change) | Star: 3,
            Stream: 10``.

        Raises:
            ImageError: The image cannot be used; nothing has changed.
            StampOrderError: The timestamp is not newer than the last one; nothing has changed.
        """
        if timestamp is None:
            newest = self.frame_manager.newest_stamp
            timestamp = 0.0 if newest is None else newest + _DEFAULT_FRAME_PERIOD_SEC
        return str(self._ingestor.add(image, timestamp))

    def snapshot(self) -> Snapshot:
        """The kept pairs in time order."""
        return self.frame_manager.snapshot()

    def ask(self, question: str, **limits: Any) -> tuple[str, AskMetrics]:
        """Answer a question about the kept frames.

        Args:
            question: Plain text.
            **limits: Further fields of ``AskRequest``: since, until, last_sec, max_new_tokens.

        Returns:
            The answer, and what it cost.

        Raises:
            NoFramesError: No frame is kept, or none within the limits.
            BadRequestError: The question or a limit makes no sense.
            DeviceMemoryError: The device ran out of memory.
            NonFiniteError: The model computed NaN or infinity; nothing computed is kept.
        """
        result = self.answer(AskRequest(question, **limits))
        return result.answer, result.metrics

    def answer(self, request: AskRequest, control: AskControl | None = None) -> AskResult:
        """Answer a request; like ``ask``, with deadline and cancellation, and with the frames used.

        Raises:
            AskCancelledError: The ask was cancelled.
            AskTimeoutError: Its deadline has passed.
            NoFramesError: No frame is kept, or none within the limits.
            BadRequestError: The question or a limit makes no sense.
            DeviceMemoryError: The device ran out of memory.
            NonFiniteError: The model computed NaN or infinity; nothing computed is kept.
        """
        check_request(request)
        control = control or AskControl()
        started = time.monotonic()
        asked = snapshot = select_frames(self.snapshot(), request)
        notices: tuple[str, ...] = ()
        while True:
            try:
                return self._answer(request, snapshot, control, notices, started)
            except NonFiniteError:
                self.reset_cache()
                raise
            except torch.OutOfMemoryError as error:
                self.reset_cache()
                if self._on_shortage is not None:
                    self._on_shortage()
                # Their tensors would live as long as the caller, or the next attempt, holds the error.
                traceback.clear_frames(error.__traceback__)
                if snapshot is not asked or (notices and len(snapshot) < 2):  # noqa: PLR2004  no half of one
                    raise _device_memory_error(len(asked), error) from error
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if notices:
                snapshot = half_of(snapshot)
                notices = (CACHES_DROPPED, frames_dropped(len(snapshot), len(asked)))
            else:
                notices = (CACHES_DROPPED,)

    def precompute(self, control: AskControl | None = None, *, prefill: bool) -> bool:
        """Encode what is new ahead of the next ask, so that it need not wait for that.

        Args:
            control: Looked at between chunks; what is complete when it ends stays.
            prefill: Whether the language model reads the video too, or only the vision encoder.

        Nothing is done twice for the same frames, and nothing that the memory budget would drop again.

        Returns:
            Whether there was anything to do.

        Raises:
            AskCancelledError: It was cancelled.
            AskTimeoutError: Its deadline has passed.
            DeviceMemoryError: The device ran out of memory; nothing is kept.
            NonFiniteError: The model computed NaN or infinity; nothing computed is kept.
        """
        control = control or AskControl()
        generation = self._encoded.generation
        snapshot = self.snapshot()
        wanted = (prefill, *((kept.content_key, kept.stamps) for kept in snapshot))
        if not snapshot or wanted == self._precomputed:
            return False
        prompt = build_prompt(self.processor, "?")  # which question is not in the prefix
        layout = lay_out(self.model.config, snapshot)
        room = _QUESTION_ROOM + DEFAULT_MAX_NEW_TOKENS
        if self._budget is not None:
            tokens = layout.visual_tokens
            prefill = prefill and self._budget.holds(tokens, round_up_capacity(len(prompt.before) + tokens + room))
            if not self._budget.holds(tokens, 0):
                self._precomputed = wanted
                return False
        try:
            with self._encoded.settling(self.snapshot):
                if prefill:
                    done = not self._encoded.prefix(prompt, layout, snapshot, control, capacity=room).is_as_before
                else:
                    done = bool(self._encoded.features(snapshot, layout, control).new_pairs)
        except NonFiniteError:
            self.reset_cache()
            raise
        except torch.OutOfMemoryError as error:
            self.reset_cache()
            traceback.clear_frames(error.__traceback__)
            raise _device_memory_error(len(snapshot), error) from error
        if self._encoded.generation == generation:
            self._precomputed = wanted
        return done

    def kept_prefix(self) -> Cache | None:
        """A cache for the library that begins with the KV kept of the last ask; None where none is kept.

        It shares the engine's buffers: use it in inference mode, one at a time, and not beyond the next ask.
        """
        return self._encoded.fork_of_kept()

    def cached_bytes(self) -> CachedBytes:
        """Bytes of encoded state kept between asks."""
        return self._encoded.cached_bytes()

    def reset_cache(self) -> None:
        """Drop what is kept of earlier asks, and of one that runs in another thread; frames stay."""
        self._precomputed = ()
        self._encoded.forget()

    def reset(self) -> None:
        """Forget every frame, and what was kept of earlier asks."""
        self._ingestor.reset()
        self.reset_cache()

    def release(self) -> None:
        """Give the model and the device's memory back; the engine cannot be asked again."""
        self.reset_cache()
        self._encoded.release()
        self.model = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _answer(
        self,
        request: AskRequest,
        snapshot: Snapshot,
        control: AskControl,
        notices: tuple[str, ...],
        started: float,
    ) -> AskResult:
        control.report(Progress(Stage.ENCODING))
        prompt = build_prompt(self.processor, request.question)
        layout = lay_out(self.model.config, snapshot)
        max_new_tokens = request.max_new_tokens or DEFAULT_MAX_NEW_TOKENS
        room = len(prompt.after) + min(max_new_tokens, _MOST_ROOM_FOR_AN_ANSWER)
        transient = request.is_limited_in_time
        with self._encoded.settling(self.snapshot):
            work = self._encoded.prefix(prompt, layout, snapshot, control, capacity=room, transient=transient)
            encoded = time.monotonic()
            control.report(Progress(Stage.GENERATING))
            generated = generate_answer(
                self.model,
                prompt.token_ids(layout.visual_tokens),
                layout.positions(prompt),
                work.cache.fork(),
                max_new_tokens=max_new_tokens,
                control=control,
                decode=self._text_of,
            )
        self._precomputed = ()  # a tight budget may have dropped something for this question's sake
        text = self._text_of(generated.token_ids).strip()
        ended = time.monotonic()
        frames = sum(kept.frame_count for kept in snapshot)
        frames_encoded = sum(snapshot[number].frame_count for number in work.new_pairs)
        metrics = AskMetrics(
            total_latency=ended - started,
            encoding_latency=None if work.is_as_before else encoded - started,
            generation_latency=ended - encoded,
            time_to_first_token=generated.first_token_time - started,
            frames_encoded=frames_encoded,
            frames_reused=frames - frames_encoded,
            visual_tokens=layout.visual_tokens,
            kv_cache_length=generated.cache_length,
            kv_tokens_reused=work.tokens_reused,
            answer_tokens=len(generated.token_ids),
            video_grid_thw=layout.grid_thw,
            exact=True,
            warnings=(*self._degraded, *_degraded_by_time(layout), *notices),
        )
        return AskResult(text, metrics, snapshot)

    def _text_of(self, token_ids: Sequence[int]) -> str:
        return str(self.processor.tokenizer.decode(token_ids, skip_special_tokens=True))


def _device_memory_error(pairs: int, error: torch.OutOfMemoryError) -> DeviceMemoryError:
    return DeviceMemoryError(
        f"the device ran out of memory for {pairs} pairs ({error}), also with fewer of them: lower max_pixels or the "
        "memory sizes, limit the ask in time, or use a smaller model. Kept frames are not lost"
    )


def _degraded_by_time(layout: VideoLayout) -> tuple[str, ...]:
    if not layout.time_compressed:
        return ()
    return ("compressed time: the kept frames span more time than the model was trained on",)


def _geometry(config: Any, processor: Any, max_pixels: int) -> FrameGeometry:
    video_processor = processor.video_processor
    return frame_geometry(
        "this model",
        int(video_processor.patch_size) * int(video_processor.merge_size),
        int(video_processor.size["shortest_edge"]),
        min(max_pixels, int(video_processor.size["longest_edge"])),
        only_size(getattr(config, "frame_size", None)),
    )
