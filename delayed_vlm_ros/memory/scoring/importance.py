"""Score each frame on arrival."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from delayed_vlm_ros.memory.scoring.descriptor import Descriptor, distance, is_cut

# Number of frames that define the usual change: a kind of change in half of them is usual.
_HABIT_FRAMES = 16
# Weight of novelty; the rest is the weight of sudden change. A higher weight of change would score each return to a
# known view.
_NOVELTY_WEIGHT = 0.75
# Smallest component that is named as the reason.
_NAMED_FROM = 0.4
# Excess over the usual change from which a change in a moving scene is named.
_UNUSUAL_FROM = 0.1


@dataclass(frozen=True, slots=True)
class Importance:
    """The score of one frame.

    Attributes:
        score: 0 for nothing new, 1 for everything new. Star memory takes frames from about 0.6.
        reason: Main reason: "first frame", "scene change" (a cut), "local change" (part of the image), "novel view" (a
            gradual change), "moving scene" or "quiet scene".
        scene_change: Distance to the previous frame, 0..1.
        novelty: Distance to the nearest frame in Star memory, 0..1.
    """

    score: float
    reason: str
    scene_change: float
    novelty: float


class ImportanceScorer:
    """Scores frames by change since the previous frame and by distance to Star memory.

    It knows the previous frame and the size of recent changes, and has no object recognition. Continuous change becomes
    usual: half of the median recent change is subtracted. Waving trees or steady traffic therefore need an unusual
    event to be notable, and a moving camera yields a frame occasionally.
    """

    def __init__(self) -> None:
        self._previous: Descriptor | None = None
        # Starts with zeros: a scene counts as quiet until enough frames show otherwise.
        self._recent_changes = deque([0.0] * _HABIT_FRAMES, maxlen=_HABIT_FRAMES)

    def assess(self, descriptor: Descriptor, novelty: float) -> Importance:
        """Return the score of the next frame; the state does not change.

        Args:
            descriptor: Descriptor of the frame.
            novelty: Distance to the nearest frame in Star memory, 0..1; infinite if Star memory is empty, and then only
                the change since the previous frame counts.
        """
        if self._previous is None:
            return Importance(score=1.0, reason="first frame", scene_change=1.0, novelty=1.0)
        scene_change = distance(self._previous, descriptor)
        if math.isinf(novelty):
            novelty = scene_change
        usual = sorted(self._recent_changes)[_HABIT_FRAMES // 2]
        # Distances are 1 - exp(-x): this subtracts half of the usual x from each x.
        tolerance = math.sqrt(1.0 - usual)
        unusual_change = max(0.0, 1.0 - (1.0 - scene_change) / tolerance) if tolerance else 0.0
        unusual_view = max(0.0, 1.0 - (1.0 - novelty) / tolerance) if tolerance else 0.0
        is_sudden = unusual_change >= _NAMED_FROM
        if is_sudden and is_cut(self._previous, descriptor):
            reason = "scene change"
        elif usual >= _NAMED_FROM and scene_change < usual + _UNUSUAL_FROM:
            reason = "moving scene"
        elif is_sudden:
            reason = "local change"
        else:
            reason = "novel view" if unusual_view >= _NAMED_FROM else "quiet scene"
        score = _NOVELTY_WEIGHT * unusual_view + (1.0 - _NOVELTY_WEIGHT) * unusual_change
        return Importance(score=score, reason=reason, scene_change=scene_change, novelty=novelty)

    def remember(self, descriptor: Descriptor, importance: Importance) -> None:
        """Make a scored frame the previous frame.

        Args:
            descriptor: Descriptor of the frame.
            importance: Return value of ``assess`` for the frame.
        """
        if self._previous is not None:
            self._recent_changes.append(importance.scene_change)
        self._previous = descriptor
