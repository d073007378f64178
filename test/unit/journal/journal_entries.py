"""Lines for tests of the journal."""

from __future__ import annotations

from delayed_vlm_ros.journal import JournalEntry, JournalStore, Pose

SECOND = 10**9
POSE = Pose(5 * SECOND, "map", (1.5, -2.0, 0.25), (0.0, 0.0, 0.6, 0.8))


def entry(caption, at=1, *, camera="front", pose=POSE, thumbnail=b"\xff\xd8jpeg", **fields):
    """Return a line about a pair at a time in seconds."""
    return JournalEntry(
        *(0, camera, "camera_link", at * SECOND, at * SECOND + SECOND // 2, at),
        caption=caption,
        **{"reason": "brief event", "pose": pose, "thumbnail": thumbnail, **fields},
    )


def open_store(folder, *, max_rows=1000, max_bytes=10**8):
    """Return the journal in a folder."""
    return JournalStore(folder, max_rows=max_rows, max_bytes=max_bytes)


def captions(found):
    """Return the captions of matches or lines, in their order."""
    return [getattr(one, "entry", one).caption for one in found]
