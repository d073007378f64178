"""The parts of the node that a session uses."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from rclpy.impl.rcutils_logger import RcutilsLogger

from delayed_vlm_ros import msg
from delayed_vlm_ros.memory import PairIds
from delayed_vlm_ros.ros.scene_memory.watches import AlertIds


@dataclass(frozen=True)
class NodeContext:
    """The parts of the node that a session uses.

    Attributes:
        resolve_topic: Returns a topic's full name after remapping.
        now_ns: Returns the time of the node's clock, in nanoseconds.
        simulated: Whether that clock is a simulated one.
        pair_ids: Source of increasing pair ids, shared by all cameras for the life of the node.
        device_lock: Held while a model is loaded. A new session loads its model only after the previous session, which
            may still be computing when it is closed, has freed the device.
        logger: The node's logger.
        stale_after_sec: Returns the silence after which a camera is stale, in seconds.
        publish_alert: Publishes an alert of a standing question, and returns whether it did; called in the worker's
            thread.
        alert_ids: Source of alert ids, for the life of the node.
        end_process: Called with the reason when only a new process can load the model: shuts this process down.
        shortage_seen: Set after the first shortage of memory, threads or file descriptors in this process.
    """

    resolve_topic: Callable[[str], str]
    now_ns: Callable[[], int]
    simulated: bool
    pair_ids: PairIds
    device_lock: threading.Lock
    logger: RcutilsLogger
    end_process: Callable[[str], None]
    stale_after_sec: Callable[[], float]
    publish_alert: Callable[[msg.Alert], bool]
    alert_ids: AlertIds
    shortage_seen: threading.Event = field(default_factory=threading.Event)
