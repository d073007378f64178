"""Snapshots of the node's parts, from which diagnostics and statistics are made."""

from __future__ import annotations

from dataclasses import dataclass

from delayed_vlm_ros.memory import MemoryStatistics
from delayed_vlm_ros.watches import WatchStatus


@dataclass(frozen=True)
class LifecycleReport:
    """State of the node.

    Attributes:
        state: Name of the lifecycle state.
        error: Why the last transition failed; empty if it succeeded.
        namesakes: Number of other nodes with the same full name.
    """

    state: str
    error: str
    namesakes: int = 0


@dataclass(frozen=True)
class CameraReport:
    """Input of one camera. Counts start at configure.

    Attributes:
        name: Name of the camera.
        topic: Resolved topic of its images.
        frame_id: frame_id of the newest sampled image.
        receiving: Whether the node takes images now, that is, is active.
        images_received: Images received.
        images_sampled: Images added to the memory.
        images_dropped: Images that were due but could not be used.
        images_missed: Images due by arrival time but not by stamp.
        images_restamped: Images that got their arrival time as stamp, because stamps were missing or did not advance.
        last_drop_reason: Why the last image was dropped; empty if none was.
        times_jumped: Time jumps of the stamps or of a simulated clock.
        last_jump: The last time jump and its effect; empty if there was none.
        poses_received: Poses received.
        poses_unusable: Poses that are cut short or have no stamp.
        frames_without_pose: Sampled images for which no pose was near enough in time.
        input_rate_hz: Images received per second.
        sampled_rate_hz: Images sampled per second.
        silent_sec: Seconds since the last image; None before the first.
        converter: Library that converts the images.
        input_warnings: Warnings about the images that arrive now.
        warnings: Warnings that answers about this camera carry, the input warnings included.
        bit_depth: Bits in use of 16-bit images; 0 before the first one.
        image_topic_fault: Why publishers of the image topic do not reach the node; empty if they do.
        pose_topic_fault: Why publishers of the pose topic do not reach the node; empty if they do.
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
    frames_without_pose: int
    input_rate_hz: float
    sampled_rate_hz: float
    silent_sec: float | None
    converter: str
    input_warnings: tuple[str, ...]
    warnings: tuple[str, ...]
    bit_depth: int = 0
    image_topic_fault: str = ""
    pose_topic_fault: str = ""


@dataclass(frozen=True)
class MemoryReport:
    """Memory of one camera.

    Attributes:
        camera: Name of the camera.
        statistics: Counts of kept frames.
        feature_bytes: Bytes of vision features kept between questions.
        kv_bytes: Bytes of KV cache kept between questions.
        oldest_age_sec: Age of the oldest kept frame by its stamp, in seconds; None if no frame is kept.
        newest_age_sec: Age of the newest kept frame, in the same form.
        budget_bytes: Upper bound of images, features and KV cache together, in bytes; 0 is unbounded.
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
    """State of the model.

    Attributes:
        name: Name of the checkpoint.
        state: unloaded, loading, ready or failed.
        device: Device of the model; empty until it is loaded.
        error: Why the model could not be loaded; empty if it could.
        warnings: Warnings that concern every answer.
        idle_unloaded: Whether the model was unloaded while idle; the next question loads it again.
    """

    name: str
    state: str
    device: str
    error: str
    warnings: tuple[str, ...]
    idle_unloaded: bool = False


@dataclass(frozen=True)
class QuestionReport:
    """State of the question queue. Counts start at configure; the defaults are those of an unconfigured node.

    Attributes:
        answered: Questions answered.
        failed: Questions that the node could not answer.
        rejected: Requests with an invalid field.
        cancelled: Questions cancelled by their client, or by a cleanup.
        running: Whether a question is being answered.
        waiting: Questions in the queue.
        queue_size: Largest number of waiting questions.
        last_error: Error of the last failed question; empty if none failed.
        last_total_latency: Seconds the last answered question took; 0.0 before the first.
        last_time_to_first_token: Its seconds to the first token.
    """

    answered: int = 0
    failed: int = 0
    rejected: int = 0
    cancelled: int = 0
    running: bool = False
    waiting: int = 0
    queue_size: int = 0
    last_error: str = ""
    last_total_latency: float = 0.0
    last_time_to_first_token: float = 0.0


@dataclass(frozen=True)
class PersistenceReport:
    """State of the key-frame files. Counts start at configure.

    Attributes:
        folder: Path of the folder.
        error: Why key frames are not saved now; empty if they are.
        warnings: One warning for each file that could not be used at configure.
        not_replaced: Whether a camera whose file could not be used has not saved key frames since.
        restored_frames: Frames restored at configure.
        times_written: Files written.
        written_bytes: Bytes of the file written last.
        written_ago_sec: Seconds since a file was written; None before the first.
    """

    folder: str
    error: str
    warnings: tuple[str, ...]
    not_replaced: bool
    restored_frames: int
    times_written: int
    written_bytes: int
    written_ago_sec: float | None


@dataclass(frozen=True)
class JournalReport:
    """State of the journal. Counts start at configure.

    Attributes:
        lines: Lines in the file.
        file_bytes: Bytes of the file in use.
        waiting: Evicted pairs that wait for their caption or for the disk.
        written: Lines written.
        dropped: Evicted pairs that got no line.
        device_sec: Device time of captions, in seconds.
        running_sec: Time since configure, in seconds.
        error: Why lines are not written now, or the last caption failed; empty if neither.
        warning: Why an earlier file could not be used; empty if it could.
        caption_warnings: Limitations of the last caption.
    """

    lines: int
    file_bytes: int
    waiting: int
    written: int
    dropped: int
    device_sec: float
    running_sec: float
    error: str
    warning: str
    caption_warnings: tuple[str, ...] = ()

    @property
    def device_sec_per_hour(self) -> float:
        """Device time that captions take in an hour, in seconds."""
        return self.device_sec / self.running_sec * 3600.0 if self.running_sec > 0 else 0.0


@dataclass(frozen=True)
class NodeReport:
    """State of the whole node. An unconfigured node has no cameras and no memories.

    Attributes:
        lifecycle: State of the node.
        cameras: One report per camera.
        memories: One report per camera, in the same order.
        model: State of the model.
        questions: State of the question queue.
        stale_after_sec: Silence after which a camera is stale, in seconds.
        persistence: State of the key-frame files; None if persistence is off.
        watches: Standing questions.
        watches_unavailable: Why none can be checked; empty if they can.
        watches_error: Why they could not be saved; empty if they could.
        journal: State of the journal; None if it is off.
    """

    lifecycle: LifecycleReport
    cameras: tuple[CameraReport, ...]
    memories: tuple[MemoryReport, ...]
    model: ModelReport
    questions: QuestionReport
    stale_after_sec: float
    persistence: PersistenceReport | None = None
    watches: tuple[WatchStatus, ...] = ()
    watches_unavailable: str = ""
    watches_error: str = ""
    journal: JournalReport | None = None
