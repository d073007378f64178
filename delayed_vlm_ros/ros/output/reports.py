"""What is known of the node's parts at one moment; diagnostics and statistics are made from it."""

from __future__ import annotations

from dataclasses import dataclass

from delayed_vlm_ros.memory import MemoryStatistics


@dataclass(frozen=True)
class LifecycleReport:
    """Where the node stands.

    Attributes:
        state: Name of its lifecycle state.
        fault: Why the last transition failed; empty when it did not.
        namesakes: Other nodes of the same full name.
    """

    state: str
    fault: str
    namesakes: int = 0


@dataclass(frozen=True)
class CameraReport:
    """What arrives from one camera. Counts are since configure.

    Attributes:
        name: The camera's name.
        topic: Where its images come from, resolved.
        frame_id: Its frame, as its newest sampled image says.
        receiving: Whether images are taken now (the node is active).
        images_received: Images that arrived.
        images_sampled: Of these, remembered.
        images_dropped: Of these, due to be remembered but unusable.
        images_missed: Due by their times of arrival, but not by their stamps.
        images_restamped: Given their times of arrival, as stamps were missing or did not advance.
        last_drop_reason: Why the last one was dropped.
        poses_received: Poses that came.
        poses_unusable: Of these, without a stamp or unreadable.
        times_jumped: How often the images' time, or a simulated clock, has jumped.
        last_jump: What became of the last jump; empty when there was none.
        input_rate_hz: Images arriving, per second.
        sampled_rate_hz: Images remembered, per second.
        silent_sec: Seconds since the last image arrived; None before the first.
        converter: Library that converts its images.
        faults: Standing faults that its operator should mend.
        warnings: Standing ways in which answers about it are less than they should be, faults included.
    """

    name: str
    topic: str
    frame_id: str
    receiving: bool
    images_received: int
    images_sampled: int
    images_dropped: int
    images_missed: int
    images_restamped: int
    last_drop_reason: str
    times_jumped: int
    last_jump: str
    poses_received: int
    poses_unusable: int
    input_rate_hz: float
    sampled_rate_hz: float
    silent_sec: float | None
    converter: str
    faults: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class MemoryReport:
    """What is kept of one camera.

    Attributes:
        camera: The camera's name.
        statistics: Counts of kept frames.
        feature_bytes: Vision features kept between asks.
        kv_bytes: KV cache kept between asks.
        oldest_age_sec: Age of the oldest kept frame by its stamp, in seconds; None when nothing is kept.
        newest_age_sec: Age of the newest one.
        budget_bytes: Upper bound of images, features and KV together; 0: none.
    """

    camera: str
    statistics: MemoryStatistics
    feature_bytes: int
    kv_bytes: int
    oldest_age_sec: float | None
    newest_age_sec: float | None
    budget_bytes: int = 0


@dataclass(frozen=True)
class ModelReport:
    """Where the model stands.

    Attributes:
        name: Its checkpoint.
        state: unloaded, loading, ready or failed.
        device: Where it runs; empty until it is loaded.
        error: Why it could not be loaded; empty when it could.
        warnings: Standing ways in which its answers are less, or come later, than they should.
        resting: Whether it was unloaded since nobody asked, and comes back for the next ask.
    """

    name: str
    state: str
    device: str
    error: str
    warnings: tuple[str, ...]
    resting: bool = False


@dataclass(frozen=True)
class AskReport:
    """How the asks go. Counts are since configure.

    Attributes:
        served: Asks answered.
        failed: Asks that ended with an error.
        running: Whether one is being answered.
        waiting: Asks in the queue.
        queue_size: Asks that may wait.
        last_error: Error of the last failed ask.
        last_total_latency: Seconds the last answered ask took; 0.0 before the first.
        last_time_to_first_token: Its seconds to the first token.
    """

    served: int
    failed: int
    running: bool
    waiting: int
    queue_size: int
    last_error: str
    last_total_latency: float
    last_time_to_first_token: float


NO_ASKS = AskReport(
    served=0,
    failed=0,
    running=False,
    waiting=0,
    queue_size=0,
    last_error="",
    last_total_latency=0.0,
    last_time_to_first_token=0.0,
)
"""Of a node that is not configured."""


@dataclass(frozen=True)
class PersistenceReport:
    """How the files of key frames fare. Counts are since configure.

    Attributes:
        folder: Where they are.
        fault: Why they are not written now; empty when they are.
        notices: Files that could not be used at configure, each in a sentence.
        begun_anew: Whether of the camera of such a file no key frames have been written since.
        restored_frames: Frames taken from them at configure.
        times_written: How often one has been written.
        written_bytes: Bytes of the one written last.
        written_ago_sec: Seconds since then; None before the first.
    """

    folder: str
    fault: str
    notices: tuple[str, ...]
    begun_anew: bool
    restored_frames: int
    times_written: int
    written_bytes: int
    written_ago_sec: float | None


@dataclass(frozen=True)
class NodeReport:
    """All of it. Unless the node is configured there are no cameras and memories.

    Attributes:
        lifecycle: Where the node stands.
        cameras: One report per camera.
        memories: One per camera, in the same order.
        model: Where the model stands.
        asks: How the asks go.
        stale_after_sec: A camera silent for longer is stale.
        persistence: How the files of key frames fare; None where none are kept.
    """

    lifecycle: LifecycleReport
    cameras: tuple[CameraReport, ...]
    memories: tuple[MemoryReport, ...]
    model: ModelReport
    asks: AskReport
    stale_after_sec: float
    persistence: PersistenceReport | None = None
