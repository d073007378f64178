"""The engine: it keeps frames as they arrive, and runs the model only for a question."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from transformers import Cache

from delayed_vlm_ros.errors import BadRequestError, NonFiniteError
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.engine import CachedBytes
from delayed_vlm_ros.inference.finish import STOP, finish_warnings
from delayed_vlm_ros.inference.local.budget import cache_bytes, plan_budget, round_up_capacity
from delayed_vlm_ros.inference.local.cache.encoding import EncodedPrefix, EncodingCache
from delayed_vlm_ros.inference.local.evidence import NO_RANKING, rank_evidence, recorded_attention
from delayed_vlm_ros.inference.local.familiarity import (
    UNFAMILIAR_ANSWER,
    FamiliarImages,
    are_mostly_unfamiliar,
    unfamiliar_warnings,
)
from delayed_vlm_ros.inference.local.generation import Generated, generate_answer
from delayed_vlm_ros.inference.local.models.checkpoint import processor_geometry, resolve_checkpoint
from delayed_vlm_ros.inference.local.models.decoding import decoding_settings
from delayed_vlm_ros.inference.local.models.loading import load_model
from delayed_vlm_ros.inference.local.oom import is_out_of_memory
from delayed_vlm_ros.inference.local.prompt import build_prompt
from delayed_vlm_ros.inference.local.retries import device_memory_error, run_with_less_when_short
from delayed_vlm_ros.inference.local.scoring import Question, packed_tokens, score_questions
from delayed_vlm_ros.inference.local.video_input import VideoLayout, lay_out
from delayed_vlm_ros.inference.metrics import AskMetrics
from delayed_vlm_ros.inference.progress import Progress, Stage
from delayed_vlm_ros.inference.request import AskRequest, AskResult, check_request, select_frames, window_start
from delayed_vlm_ros.inference.yes_no import UNKNOWN, AnswerForms, ScoreResult, answer_forms
from delayed_vlm_ros.ingest.ingestor import FrameIngestor
from delayed_vlm_ros.memory import MemoryConfig, SmartFrameManager, Snapshot

DEFAULT_MAX_PIXELS = MemoryConfig.max_pixels
DEFAULT_MAX_NEW_TOKENS = 128
_RESERVED_QUESTION_TOKENS = 128  # reserved after a prefix while the question is not known yet
_MAX_RESERVED_ANSWER_TOKENS = 512  # reserved after a prefix; a longer answer grows the buffers
# add_frame without a stamp assumes 2 frames per second, as qwen-vl-utils does for a list of frames.
_DEFAULT_FRAME_PERIOD_SEC = 0.5
_SAMPLED = "sampled answer (model.sampling): another attempt may have another answer"
_TIME_COMPRESSED = (
    "compressed time: some gaps between kept frames are longer than the model was trained on and are shown as shorter: "
    "answers about durations across them are wrong"
)
_TIME_REBASED = (
    "compressed time: the kept frames span more time than the model was trained on, so only the order of the oldest "
    "ones is right: limit the question in time for answers about durations"
)
_TIME_IS_LONG = (
    "long time: the kept frames span more than two hours, longer than the videos this kind of model is known to be "
    "tested with: answers about durations may be wrong"
)
_LOGGER = logging.getLogger(__name__)
_Result = TypeVar("_Result")


class DelayedBatchInferenceEngine:
    """Scene memory of one camera, with the model that answers questions about it.

    Adding frames runs no model code. A question encodes the kept frames as one video. A further question encodes only
    new pairs, and prefills only the part after the first change. Only one thread may ask at a time; another thread may
    add frames meanwhile.

    Args:
        model: A Qwen2-VL, Qwen2.5-VL, Qwen3-VL or Qwen3.5 model from transformers.
        processor: The processor of the model.
        device: Device to move the model to; None: the model stays where it is.
        max_pixels: Largest height × width of a kept frame; the checkpoint's own limit applies, too.
        star_memory_size: Key frames over the whole past, in frames.
        stream_window_size: Newest frames, in frames.
        frame_manager: A memory to use instead of a new one; its own sizes and eviction chunk apply.
        eviction_chunk: Frames that a full memory evicts together; 0: one pair for each new pair. With larger chunks,
            encoded state stays valid for longer, and the memory temporarily holds up to one chunk less.
        memory_budget_mb: Bytes that may be kept between questions, in MB of 10**6 bytes: pixels, vision features and
            KV. None: unlimited.
        budget_shares: Number of engines that share the budget, with equal parts; this one uses its own part.
        features_on_host: Whether to keep vision features in host memory instead of the device.
        canonical: Whether a warm question computes in exactly the steps of a cold one. Its answer then equals the cold
            one bitwise in any dtype; otherwise up to rounding.
        stop_repetition: Whether to stop an answer that repeats itself without end.
        sampling: Whether to follow the sampling settings in the model's generation config; otherwise every answer is
            greedy.
        warnings: Limitations of all answers, such as those of the demo model.
        familiar_images: The images that the model knows. The answer about others is a sentence that says so. None: the
            model answers about any images.
        on_oom: Called when the device runs out of memory, before any frame is left out: other users of the device may
            drop their caches.

    Raises:
        ConfigurationError: ``max_pixels`` is too small for the model, or a memory size is invalid.
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
        stop_repetition: bool = True,
        sampling: bool = False,
        warnings: tuple[str, ...] = (),
        familiar_images: FamiliarImages | None = None,
        on_oom: Callable[[], None] | None = None,
    ) -> None:
        self.model = model if device is None else model.to(device)
        self.processor = processor
        self.frame_manager = frame_manager or SmartFrameManager(
            star_memory_size, stream_window_size, eviction_chunk=eviction_chunk
        )
        geometry = processor_geometry(model.config, processor, max_pixels)
        self._ingestor = FrameIngestor(geometry, self.frame_manager)
        budget = None
        if memory_budget_mb is not None:
            token = cache_bytes(model.config.to_dict(), model.dtype.itemsize)
            frames = self.frame_manager.capacity
            budget = plan_budget(memory_budget_mb, frames, geometry, token, shares=budget_shares)
        self._budget = budget
        self._precomputed: tuple[Any, ...] = ()
        self._stop_repetition = stop_repetition
        self._sampling = sampling
        self._warnings = warnings
        self._familiar_images = familiar_images
        self._is_familiar: dict[bytes, bool] = {}
        self._on_oom = on_oom
        self._answer_forms: AnswerForms | None = None
        self._cache = EncodingCache(
            model, processor, features_on_host=features_on_host, canonical=canonical, budget=budget
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
        sampling: bool = False,
        **engine_options: Any,
    ) -> DelayedBatchInferenceEngine:
        """Find and load a checkpoint, and return an engine with the checkpoint's warnings.

        Args:
            model: Model as for ``resolve_checkpoint``: a folder, a name on the hub, ``demo`` or ``auto``.
            device: Device as for ``load_model``.
            dtype: Dtype as for ``load_model``.
            attention: Attention as for ``load_model``.
            allow_download: Whether a hub model that is not on this machine may be downloaded.
            sampling: Whether to follow the sampling settings in the checkpoint's ``generation_config.json``.
            **engine_options: Further arguments of the constructor, such as ``star_memory_size``.

        Raises:
            ModelNotFoundError: The checkpoint is not on this machine.
            UnsupportedModelError: The checkpoint cannot be loaded.
            NonFiniteError: The model computes NaN or infinity.
            ConfigurationError: The device, dtype or attention is not available, or a memory size is invalid.
        """
        checkpoint = resolve_checkpoint(model, allow_download=allow_download, device=device)
        loaded = load_model(checkpoint, device=device, dtype=dtype, attention=attention, sampling=sampling)
        for note in loaded.notes:
            _LOGGER.warning(note)
        options = {"warnings": checkpoint.warnings, "familiar_images": loaded.familiar_images, **engine_options}
        return cls(loaded.model, loaded.processor, sampling=sampling, **options)

    def add_frame(self, image: Any, timestamp: float | None = None) -> str:
        """Add an image to the memory.

        Args:
            image: RGB uint8 array of shape (H, W, 3), or a PIL image.
            timestamp: Stamp of the image in seconds, newer than the last one; None: half a second after the last one.

        Returns:
            What happened to the image, such as ``Frame #10 added to Stream Memory + Star Memory (scene change) | Star:
            3, Stream: 10``.

        Raises:
            ImageError: The image cannot be used; the memory has not changed.
            StampOrderError: The stamp is not newer than the last one; the memory has not changed.
        """
        if timestamp is None:
            newest = self.frame_manager.newest_stamp
            timestamp = 0.0 if newest is None else newest + _DEFAULT_FRAME_PERIOD_SEC
        return str(self._ingestor.add(image, timestamp))

    @property
    def warnings(self) -> tuple[str, ...]:
        """Limitations of all answers, one sentence each."""
        return self._warnings

    def snapshot(self) -> Snapshot:
        """Return the kept pairs in time order."""
        return self.frame_manager.snapshot()

    def ask(
        self,
        question: str,
        *,
        since: float | None = None,
        until: float | None = None,
        last_sec: float | None = None,
        newest_pairs: int | None = None,
        max_new_tokens: int | None = None,
    ) -> tuple[str, AskMetrics]:
        """Answer a question about the kept frames.

        Args:
            question: Plain text.
            since: Stamp of the oldest frame to use, in seconds; None: unbounded.
            until: Stamp of the newest frame to use, in seconds; None: unbounded.
            last_sec: Time span before the newest kept frame, in seconds; None: unbounded.
            newest_pairs: Number of the newest pairs within the limits to use; None: all.
            max_new_tokens: Length limit of the answer in tokens; None: 128.

        Returns:
            The answer and its metrics.

        Raises:
            NoFramesError: No frame is kept, or none lies within the limits.
            BadRequestError: The question or a limit is invalid.
            DeviceMemoryError: The device ran out of memory.
            NonFiniteError: The model computed NaN or infinity; no encoded state is kept.
        """
        result = self.answer(AskRequest(question, since, until, last_sec, max_new_tokens, newest_pairs))
        return result.answer, result.metrics

    def answer(
        self, request: AskRequest, control: AskControl | None = None, *, frames: Snapshot | None = None
    ) -> AskResult:
        """Answer a request, like ``ask``, with deadline, cancellation and the frames used.

        Args:
            request: The question with its limits.
            control: Control of the work, checked between chunks of frames and after every token.
            frames: Pairs to use instead of the kept ones, oldest first; nothing computed for them stays cached, except
                features of pairs that are kept.

        Raises:
            AskCancelledError: The question was cancelled.
            AskTimeoutError: The deadline has passed.
            NoFramesError: No frame is kept, or none lies within the limits.
            BadRequestError: The question or a limit is invalid.
            DeviceMemoryError: The device ran out of memory.
            NonFiniteError: The model computed NaN or infinity; no encoded state is kept.
        """
        check_request(request)
        control = control or AskControl()
        started = time.monotonic()
        requested = select_frames(self.snapshot() if frames is None else frames, request)
        is_partial = request.is_limited or frames is not None
        return self._run_with_less_when_short(
            requested,
            control,
            lambda snapshot, warnings: self._answer(
                request, snapshot, control, warnings, started, is_partial=is_partial
            ),
        )

    def score(
        self,
        questions: Sequence[str],
        *,
        since: float | None = None,
        until: float | None = None,
        last_sec: float | None = None,
        window_sec: float | None = None,
        frames: Snapshot | None = None,
        control: AskControl | None = None,
    ) -> ScoreResult:
        """Return what the model would answer to yes/no questions about the kept frames, without decoding answers.

        All questions share one encoding of the frames, and cost only forward passes over their own tokens. The
        penalties of the checkpoint's generation config do not apply.

        Args:
            questions: Plain texts.
            since: Stamp of the oldest frame to use, in seconds; None: unbounded.
            until: Stamp of the newest frame to use, in seconds; None: unbounded.
            last_sec: Time span before the newest kept frame, in seconds; None: unbounded.
            window_sec: Like ``last_sec``, for questions that are repeated while frames arrive: the span is up to half
                longer, so that its start moves rarely, and its encoding is kept for the next call. None: no window.
            frames: Pairs to use instead of the kept ones, as for ``answer``.
            control: Control of the work, checked between chunks of frames and of questions.

        Raises:
            AskCancelledError: The work was cancelled.
            AskTimeoutError: The deadline has passed.
            NoFramesError: No frame is kept, or none lies within the limits.
            BadRequestError: There is no question, a question or a limit is invalid, or the model's tokenizer has no
                token for yes and no.
            DeviceMemoryError: The device ran out of memory.
            NonFiniteError: The model computed NaN or infinity; no encoded state is kept.
        """
        if isinstance(questions, str):  # whose characters would be questions
            raise BadRequestError("'questions' must be a list of texts, got one text")
        snapshot = self.snapshot() if frames is None else frames
        if window_sec is not None:
            since = window_start(snapshot, window_sec)
        requests = [AskRequest(question, since, until, last_sec) for question in questions]
        for request in requests:
            check_request(request)
        if not requests:
            raise BadRequestError("no question: give at least one")
        if self._answer_forms is None:
            self._answer_forms = answer_forms(self._token_ids_of)
        forms = self._answer_forms
        control = control or AskControl()
        started = time.monotonic()
        requested = select_frames(snapshot, requests[0])
        return self._run_with_less_when_short(
            requested,
            control,
            lambda snapshot, warnings: self._score(
                requests,
                forms,
                snapshot,
                window_sec,
                control,
                warnings,
                started,
                is_partial=requests[0].is_limited or frames is not None,
                is_complete=snapshot == requested,
            ),
        )

    def precompute(self, control: AskControl | None = None, *, prefill: bool) -> bool:
        """Encode new pairs before a question needs them.

        Pairs that are already encoded are not encoded again, nor are pairs that the budget would evict immediately.

        Args:
            control: Control of the work, checked between chunks; complete chunks stay cached.
            prefill: Whether to prefill the language model, too, or to run the vision encoder only.

        Returns:
            Whether anything was encoded.

        Raises:
            AskCancelledError: The work was cancelled.
            AskTimeoutError: The deadline has passed.
            DeviceMemoryError: The device ran out of memory; no encoded state is kept.
            NonFiniteError: The model computed NaN or infinity; no encoded state is kept.
        """
        control = control or AskControl()
        generation = self._cache.generation
        snapshot = self.snapshot()
        target = (prefill, *((kept.content_key, kept.stamps) for kept in snapshot))
        if not snapshot or target == self._precomputed:
            return False
        prompt = build_prompt(self.processor, "?")  # the prefix does not depend on the question
        layout = lay_out(self.model.config, self.processor, snapshot)
        capacity = _RESERVED_QUESTION_TOKENS + DEFAULT_MAX_NEW_TOKENS
        if self._budget is not None:
            tokens = layout.visual_tokens
            kv_tokens = round_up_capacity(len(prompt.before) + layout.video_tokens + capacity)
            prefill = prefill and self._budget.holds(tokens, kv_tokens)
            if not self._budget.holds(tokens, 0):
                self._precomputed = target
                return False
        try:
            with self._cache.evicting(self.snapshot):
                if prefill:
                    done = not self._cache.prefix(prompt, layout, snapshot, control, capacity=capacity).was_complete
                else:
                    done = bool(self._cache.features(snapshot, layout, control).new_pairs)
        except NonFiniteError:
            self.reset_cache()
            raise
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            control.ran_out_of_memory = True
            self.reset_cache()
            traceback.clear_frames(error.__traceback__)
            raise device_memory_error(len(snapshot), error) from error
        if self._cache.generation == generation:
            self._precomputed = target
        return done

    def kept_prefix(self) -> Cache | None:
        """Return a cache for transformers that starts with the KV of the last question's prefix; None without one.

        The cache shares the engine's buffers: use it in inference mode, one at a time, and only until the next
        question.
        """
        return self._cache.fork_prefix()

    def keep_windows(self, lengths: Collection[float]) -> None:
        """Drop the encoded windows of ``score`` of all other lengths.

        Args:
            lengths: Lengths in seconds, as passed to ``score``.
        """
        self._cache.keep_windows(lengths)

    def cached_bytes(self) -> CachedBytes:
        """Return the bytes of encoded state kept between questions."""
        return self._cache.cached_bytes()

    def reset_cache(self) -> None:
        """Drop all encoded state, including that of a question in another thread; frames stay. Thread-safe."""
        self._precomputed = ()
        self._cache.reset()

    def reset(self) -> None:
        """Drop every frame and all encoded state."""
        self._ingestor.reset()
        self.reset_cache()

    def close(self) -> None:
        """Release the model and the device's memory; the engine answers no further questions."""
        self.reset_cache()
        self._cache.close()
        self.model = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _run_with_less_when_short(
        self, requested: Snapshot, control: AskControl, run: Callable[[Snapshot, tuple[str, ...]], _Result]
    ) -> _Result:
        def release() -> None:
            control.ran_out_of_memory = True
            self.reset_cache()
            if self._on_oom is not None:
                self._on_oom()

        try:
            return run_with_less_when_short(requested, run, release)
        except NonFiniteError:
            self.reset_cache()
            raise

    def _answer(
        self,
        request: AskRequest,
        snapshot: Snapshot,
        control: AskControl,
        warnings: tuple[str, ...],
        started: float,
        *,
        is_partial: bool,
    ) -> AskResult:
        control.report(Progress(Stage.ENCODING))
        prompt = build_prompt(self.processor, request.question)
        layout = lay_out(self.model.config, self.processor, snapshot)
        max_new_tokens = request.max_new_tokens or DEFAULT_MAX_NEW_TOKENS
        capacity = len(prompt.after) + min(max_new_tokens, _MAX_RESERVED_ANSWER_TOKENS)
        with self._cache.evicting(self.snapshot):
            prefix = self._cache.prefix(prompt, layout, snapshot, control, capacity=capacity, is_partial=is_partial)
            unfamiliar = self._count_unfamiliar(snapshot, layout, control)
            is_refused = are_mostly_unfamiliar(unfamiliar, len(snapshot))
            encoded = time.monotonic()
            control.report(Progress(Stage.GENERATING))
            ranking = NO_RANKING
            if is_refused:
                generated = Generated((), encoded, prefix.cache.length, STOP)
            else:
                cache = prefix.cache.fork()
                with recorded_attention(self.model, wanted=request.ranks_evidence) as recorder:
                    generated = generate_answer(
                        self.model,
                        layout.token_ids(prompt),
                        layout.positions(prompt),
                        cache,
                        max_new_tokens=max_new_tokens,
                        control=control,
                        decode=self._text_of,
                        stop_repetition=self._stop_repetition,
                        sampling=self._sampling,
                    )
                if request.ranks_evidence:
                    ranking = rank_evidence(recorder, snapshot, prompt, layout, cache, control)
        self._precomputed = ()  # a tight budget may have evicted something for this question
        text = UNFAMILIAR_ANSWER if is_refused else self._text_of(generated.token_ids).strip()
        ended = time.monotonic()
        is_sampled = decoding_settings(self.model.generation_config.to_dict(), sampling=self._sampling).is_sampled
        metrics = _metrics(
            snapshot,
            layout,
            prefix,
            _Times(started, encoded, generated.first_token_time, ended),
            kv_cache_length=generated.cache_length,
            answer_tokens=len(generated.token_ids),
            exact=not (is_sampled or is_refused),
            warnings=(
                *self._warnings,
                *_time_warnings(layout),
                *warnings,
                *unfamiliar_warnings(unfamiliar, len(snapshot)),
                *([_SAMPLED] if is_sampled else []),
                *ranking.warnings,
                *finish_warnings(generated.finish_reason, len(generated.token_ids)),
            ),
            finish_reason=generated.finish_reason,
        )
        return AskResult(text, metrics, snapshot, ranking.evidence, is_refused)

    def _score(
        self,
        requests: Sequence[AskRequest],
        forms: AnswerForms,
        snapshot: Snapshot,
        window_sec: float | None,
        control: AskControl,
        warnings: tuple[str, ...],
        started: float,
        *,
        is_partial: bool,
        is_complete: bool,
    ) -> ScoreResult:
        prompts = [build_prompt(self.processor, request.question) for request in requests]
        layout = lay_out(self.model.config, self.processor, snapshot)
        capacity = packed_tokens([len(prompt.after) for prompt in prompts])
        with self._cache.evicting(self.snapshot):
            prefix = self._cache.prefix(
                prompts[0],
                layout,
                snapshot,
                control,
                capacity=capacity,
                is_partial=is_partial,
                window_sec=window_sec,
            )
            unfamiliar = self._count_unfamiliar(snapshot, layout, control)
            is_refused = are_mostly_unfamiliar(unfamiliar, len(snapshot))
            encoded = time.monotonic()
            if is_refused:
                scores = [UNKNOWN for _ in prompts]
            else:
                parts = [
                    Question(prompt.after, layout.positions(prompt)[..., -len(prompt.after) :]) for prompt in prompts
                ]
                scores = score_questions(self.model, self.processor, prefix.cache, parts, forms, control)
        self._precomputed = ()  # a tight budget may have evicted something for these questions
        ended = time.monotonic()
        metrics = _metrics(
            snapshot,
            layout,
            prefix,
            _Times(started, encoded, ended, ended),
            kv_cache_length=prefix.cache.length,
            answer_tokens=0,
            exact=not is_refused,
            warnings=(
                *self._warnings,
                *_time_warnings(layout),
                *warnings,
                *unfamiliar_warnings(unfamiliar, len(snapshot)),
            ),
        )
        return ScoreResult(tuple(scores), snapshot, metrics, is_complete)

    def _count_unfamiliar(self, snapshot: Snapshot, layout: VideoLayout, control: AskControl) -> int:
        """Return the number of pairs that are unlike the images that the model knows."""
        familiar = self._familiar_images
        if familiar is None:
            return 0
        unknown = tuple(kept for kept in snapshot if kept.content_key not in self._is_familiar)
        if unknown:
            features = self._cache.features(unknown, layout, control).features
            new = {kept.content_key: familiar.contain(one) for kept, one in zip(unknown, features, strict=True)}
            self._is_familiar.update(new)
        self._is_familiar = {kept.content_key: self._is_familiar[kept.content_key] for kept in snapshot}
        return sum(not self._is_familiar[kept.content_key] for kept in snapshot)  # a still image is in many pairs

    def _token_ids_of(self, text: str) -> list[int]:
        return list(self.processor.tokenizer(text, add_special_tokens=False).input_ids)

    def _text_of(self, token_ids: Sequence[int]) -> str:
        return str(self.processor.tokenizer.decode(token_ids, skip_special_tokens=True))


@dataclass(frozen=True, slots=True)
class _Times:
    """Times of a question in seconds, on the clock of ``time.monotonic``."""

    started: float
    encoded: float
    first_token: float
    ended: float


def _metrics(
    snapshot: Snapshot, layout: VideoLayout, prefix: EncodedPrefix, times: _Times, **others: Any
) -> AskMetrics:
    """Return the metrics of an answer or of scores; ``others`` are the fields that the arguments do not determine."""
    frames = sum(kept.frame_count for kept in snapshot)
    frames_encoded = sum(snapshot[number].frame_count for number in prefix.new_pairs)
    return AskMetrics(
        total_latency=times.ended - times.started,
        encoding_latency=None if prefix.was_complete else times.encoded - times.started,
        generation_latency=times.ended - times.encoded,
        time_to_first_token=times.first_token - times.started,
        frames_encoded=frames_encoded,
        frames_reused=frames - frames_encoded,
        visual_tokens=layout.visual_tokens,
        kv_tokens_reused=prefix.tokens_reused,
        video_grid_thw=layout.grid_thw,
        **others,
    )


def _time_warnings(layout: VideoLayout) -> tuple[str, ...]:
    if layout.time_rebased:
        return (_TIME_REBASED,)
    if layout.time_is_long:
        return (_TIME_IS_LONG,)
    return (_TIME_COMPRESSED,) if layout.time_compressed else ()
