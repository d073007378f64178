"""When something last happened in a memory: changes of the view, and pairs that entered Star memory."""

from __future__ import annotations

from dataclasses import dataclass

from delayed_vlm_ros.memory.scoring.descriptor import Descriptor, distance

MIN_VIEW_CHANGE = 0.15
"""Distance from the reference view that counts as a change.

In the synthetic rooms, noise stays below 0.07, and a shake of 0.4 % of the image height below 0.14. An object that
covers 0.5 % of the image has a median distance of 0.27, one that covers 1 % of 0.49.
"""


@dataclass(frozen=True, slots=True)
class Activity:
    """Stamps of a memory in seconds; None: it has not happened since the start or the last reset.

    Attributes:
        first: Stamp of the first frame.
        newest: Stamp of the newest frame.
        view_changed: Stamp of the newest frame whose view differs from the view at the last change. So a gradual change
            counts, too.
        star_entered: Stamp of the newest frame when a pair last entered Star memory, marks not counted.
    """

    first: float | None = None
    newest: float | None = None
    view_changed: float | None = None
    star_entered: float | None = None


class ActivityMonitor:
    """Records changes frame by frame. Not thread-safe."""

    def __init__(self) -> None:
        self._reference: Descriptor | None = None
        self._activity = Activity()

    @property
    def activity(self) -> Activity:
        """What has happened so far."""
        return self._activity

    def add(self, descriptor: Descriptor, stamp: float, *, has_entered_star: bool) -> None:
        """Record a frame.

        Args:
            descriptor: Descriptor of the frame.
            stamp: Stamp of the frame, in seconds.
            has_entered_star: Whether a pair has entered Star memory with this frame.
        """
        has_changed = self._reference is None or distance(self._reference, descriptor) >= MIN_VIEW_CHANGE
        if has_changed:
            self._reference = descriptor
        before = self._activity
        self._activity = Activity(
            first=stamp if before.first is None else before.first,
            newest=stamp,
            view_changed=stamp if has_changed else before.view_changed,
            star_entered=stamp if has_entered_star else before.star_entered,
        )
