"""Parsing of messages with the settings of a watch; zeros become defaults."""

from __future__ import annotations

from typing import Any

from delayed_vlm_ros.errors import BadRequestError
from delayed_vlm_ros.ros.scene_memory.parameters import SceneMemoryParameters
from delayed_vlm_ros.watches import Gate, Watch, check_watch


def parse_watch(settings: Any, parameters: SceneMemoryParameters, name: str = "") -> Watch:
    """Return the watch of a ``WatchSettings`` message.

    Args:
        settings: The message.
        parameters: Parameters of the node.
        name: Name of the watch; empty: the name in the message.

    Raises:
        BadRequestError: A setting is invalid.
    """
    gates = tuple(Gate)
    if settings.gate >= len(gates):
        raise BadRequestError(f"'gate' must be 0 to {len(gates) - 1}, got {settings.gate}")
    if len(settings.question) > parameters.max_question_characters:
        raise BadRequestError(
            f"question too long ({len(settings.question)} characters, limit {parameters.max_question_characters}): "
            "shorten it, or raise the parameter ask.max_question_characters"
        )
    threshold = as_decimal(settings.threshold) or Watch.threshold
    watch = Watch(
        name=name or settings.name,
        question=settings.question,
        camera=settings.camera,
        last_sec=0.0 if settings.last_sec < 0 else as_decimal(settings.last_sec) or Watch.last_sec,
        period_sec=as_decimal(settings.period_sec) or Watch.period_sec,
        gate=gates[settings.gate],
        threshold=threshold,
        release=as_decimal(settings.release) or min(Watch.release, threshold),
        hold_sec=as_decimal(settings.hold_sec),
        yes_checks=settings.yes_checks or Watch.yes_checks,
        of_checks=settings.of_checks or max(Watch.of_checks, settings.yes_checks),
        cooldown_sec=as_decimal(settings.cooldown_sec),
        once=settings.once,
        lifetime_sec=as_decimal(settings.lifetime_sec),
    )
    check_watch(watch)
    return watch


def as_decimal(value: float) -> float:
    """Return the decimal number that was stored in a float32 field, so that 0.6 is not 0.6000000238."""
    return float(f"{value:.7g}")
