"""Whether a model and full memories fit a GPU, and the largest memory that does. Needs no torch."""

from __future__ import annotations

from bisect import bisect
from dataclasses import dataclass

from delayed_vlm_ros.inference.local.budget import BYTES_PER_MB, PROMPT_TOKENS, cache_bytes
from delayed_vlm_ros.inference.local.memory_plan import MemoryPlan, plan_memory
from delayed_vlm_ros.inference.local.models.gpu_memory import SYSTEM_SHARE
from delayed_vlm_ros.inference.local.models.sizes import ELEMENT_BYTES, ModelSizes
from delayed_vlm_ros.memory.frame import FRAMES_PER_PAIR

MAX_FRAMES = 20_000
"""Largest memory that is considered, in frames."""

_BUDGET_STEP_MB = 100


@dataclass(frozen=True, slots=True)
class Fit:
    """A model and full memories on a GPU.

    Attributes:
        plan: Bytes by kind.
        needed: Bytes of GPU memory at the peak; with images where GPU and system share the memory.
        available: Bytes of GPU memory that a model may use.
        largest_frames: Largest memory of a camera that fits GPU and context, in frames; 0: not even a pair does.
        is_context_limit: Whether the context limits that, and not the GPU.
        prompt_tokens: Tokens of a question about a full memory, 512 for the answer included.
        context_tokens: Tokens that the model was made for; 0: unknown.
        budget_mb: A ``memory.budget_mb`` that keeps everything between questions.
    """

    plan: MemoryPlan
    needed: int
    available: int
    largest_frames: int
    is_context_limit: bool
    prompt_tokens: int
    context_tokens: int
    budget_mb: int

    @property
    def fits(self) -> bool:
        """Whether the peak fits the GPU."""
        return self.needed <= self.available

    @property
    def exceeds_context(self) -> bool:
        """Whether a question about a full memory is longer than the model was made for."""
        return 0 < self.context_tokens < self.prompt_tokens


@dataclass(frozen=True, slots=True)
class _Calculator:
    """Computes the need of memories of any size."""

    model: ModelSizes
    frame_pixels: int
    cameras: int
    is_shared: bool

    def plan(self, frames: int) -> MemoryPlan:
        return plan_memory(
            self.model.config,
            parameters=self.model.parameters,
            element_bytes=ELEMENT_BYTES,
            frames=frames,
            frame_pixels=self.frame_pixels,
            factor=self.model.factor,
            cameras=self.cameras,
        )

    def needed(self, frames: int) -> int:
        plan = self.plan(frames)
        return plan.peak + plan.images if self.is_shared else plan.peak

    def prompt_tokens(self, frames: int) -> int:
        texts = cache_bytes(self.model.config, ELEMENT_BYTES).pair_text_tokens
        pair_tokens = self.frame_pixels // self.model.factor**2
        return frames // FRAMES_PER_PAIR * (pair_tokens + texts) + PROMPT_TOKENS


def plan_fit(
    model: ModelSizes, *, frames: int, max_pixels: int, gpu_bytes: int, is_shared: bool, cameras: int = 1
) -> Fit:
    """Compute whether a model and full memories fit a GPU.

    Args:
        model: Sizes of the model.
        frames: Capacity of one camera's memory in frames.
        max_pixels: Largest height × width of a frame.
        gpu_bytes: Bytes of memory of the GPU.
        is_shared: Whether GPU and system share it: a quarter is then left to the system, and the images count.
        cameras: Number of cameras, each with a memory of its own.

    Raises:
        ConfigurationError: The model needs larger images.
        UnsupportedModelError: The config lacks the sizes of the language model.
    """
    calculator = _Calculator(model, model.frame_pixels(max_pixels), cameras, is_shared)
    available = int(gpu_bytes * (1 - SYSTEM_SHARE)) if is_shared else gpu_bytes
    context = _context_tokens(model)

    def is_too_large(pairs: int) -> bool:
        return needs_too_much(pairs) or 0 < context < calculator.prompt_tokens(pairs * FRAMES_PER_PAIR)

    def needs_too_much(pairs: int) -> bool:
        return calculator.needed(pairs * FRAMES_PER_PAIR) > available

    sizes = range(1, MAX_FRAMES // FRAMES_PER_PAIR + 1)
    largest = bisect(sizes, 0, key=is_too_large)
    plan = calculator.plan(frames)
    kept_mb = (plan.images + plan.kept) / BYTES_PER_MB
    return Fit(
        plan=plan,
        needed=calculator.needed(frames),
        available=available,
        largest_frames=FRAMES_PER_PAIR * largest,
        is_context_limit=largest < len(sizes) and not needs_too_much(largest + 1),
        prompt_tokens=calculator.prompt_tokens(frames),
        context_tokens=context,
        budget_mb=int(-(-kept_mb // _BUDGET_STEP_MB)) * _BUDGET_STEP_MB,
    )


def _context_tokens(model: ModelSizes) -> int:
    if model.checkpoint is not None and model.checkpoint.only_size is not None:
        return 0  # a model of this project: the field limits its positions, of which a pair takes few
    text = model.config.get("text_config") or model.config
    return int(text.get("max_position_embeddings") or 0)
