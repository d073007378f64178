"""Standing questions, called watches: yes/no questions that are checked again and again, and report each change.

Imports neither a model nor ROS. ``Watch`` is one question with its settings, ``WatchState`` what is known about it, and
``WatchRunner`` decides which watches to check next and turns outcomes into alerts.
"""

from delayed_vlm_ros.watches.runner import Alert, WatchRunner, WatchStatus
from delayed_vlm_ros.watches.state import Edge, Level, Observation, WatchState, advance, interrupted
from delayed_vlm_ros.watches.watch import Gate, Watch, check_watch

__all__ = [
    "Alert",
    "Edge",
    "Gate",
    "Level",
    "Observation",
    "Watch",
    "WatchRunner",
    "WatchState",
    "WatchStatus",
    "advance",
    "check_watch",
    "interrupted",
]
