"""How much a frame deserves to be remembered."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from delayed_vlm_ros.memory.scoring.descriptor import Descriptor, distance, is_cut

# Over this many frames a change becomes usual: a kind of change that fills half of them is.
_HABIT_FRAMES = 16
# A view new to Star counts most; that it also came suddenly counts less, or each return to a known view would.
_NOVELTY_WEIGHT = 0.75
# From here on a component is named as the reason.
_NAMED_FROM = 0.4
# A change within a moving scene is named only if it is larger than the usual one by this.
_STANDS_OUT = 0.1


@dataclass(frozen=True, slots=True)
class Importance:
    """The judgement on one frame.

    Attributes:
        score: 0 for nothing new, 1 for all new. From about 0.6 it is worth a place in Star memory.
        reason: What stands out most, in a few words: "first frame", "scene change" (a cut), "local change" (in a part
            of the image), "novel view" (it came slowly), "moving scene" or "quiet scene".
        scene_change: Distance to the frame before, 0..1.
        novelty: Distance to the nearest frame of Star memory, 0..1.
    """

    score: float
    reason: str
    scene_change: float
    novelty: float


class ImportanceScorer:
    """Judges frames by what changed and by what Star memory does not hold yet.

    It knows the frame before and how large the recent changes were. As with a biological sense, what goes on all the
    time becomes usual: half of the median recent change is taken off, so that waving trees or steady traffic need
    something out of the ordinary to be notable, and a camera on the move gives a frame now and then. It does not know
    what the things in the image are.
    """

    def __init__(self) -> None:
        self._previous: Descriptor | None = None
        # Zeros until it has seen more: a scene counts as quiet until it has proved otherwise.
        self._recent_changes = deque([0.0] * _HABIT_FRAMES, maxlen=_HABIT_FRAMES)

    def assess(self, descriptor: Descriptor, novelty: float) -> Importance:
        """Judge the next frame, without remembering it.

        Args:
            descriptor: The frame's descriptor.
            novelty: Its distance to the nearest frame in Star memory, 0..1; infinite when Star holds none, and then
                the change since the frame before decides alone.

        Returns:
            The judgement.
        """
        if self._previous is None:
            return Importance(score=1.0, reason="first frame", scene_change=1.0, novelty=1.0)
        scene_change = distance(self._previous, descriptor)
        if math.isinf(novelty):
            novelty = scene_change
        usual = sorted(self._recent_changes)[_HABIT_FRAMES // 2]
        # Distances are 1 - exp(-x): this takes half of the usual x off each x.
        tolerance = math.sqrt(1.0 - usual)
        unusual_change = max(0.0, 1.0 - (1.0 - scene_change) / tolerance) if tolerance else 0.0
        unusual_view = max(0.0, 1.0 - (1.0 - novelty) / tolerance) if tolerance else 0.0
        is_sudden = unusual_change >= _NAMED_FROM
        if is_sudden and is_cut(self._previous, descriptor):
            reason = "scene change"
        elif usual >= _NAMED_FROM and scene_change < usual + _STANDS_OUT:
            reason = "moving scene"
        elif is_sudden:
            reason = "local change"
        else:
            reason = "novel view" if unusual_view >= _NAMED_FROM else "quiet scene"
        score = _NOVELTY_WEIGHT * unusual_view + (1.0 - _NOVELTY_WEIGHT) * unusual_change
        return Importance(score=score, reason=reason, scene_change=scene_change, novelty=novelty)

    def remember(self, descriptor: Descriptor, importance: Importance) -> None:
        """Take a judged frame into the recent past.

        Args:
            descriptor: The frame's descriptor.
            importance: What `assess` said of it.
        """
        if self._previous is not None:
            self._recent_changes.append(importance.scene_change)
        self._previous = descriptor
