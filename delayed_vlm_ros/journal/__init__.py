"""The journal: one caption for each pair that leaves Star memory, in a file with full-text search. No torch, no ROS."""

from delayed_vlm_ros.journal.entry import JournalCounts, JournalEntry, JournalMatch, JournalPage, Pose
from delayed_vlm_ros.journal.store import JournalStore, check_fts

__all__ = ["JournalCounts", "JournalEntry", "JournalMatch", "JournalPage", "JournalStore", "Pose", "check_fts"]
