"""Opens a path as a bag, a video or a folder of images."""

from __future__ import annotations

from pathlib import Path

from delayed_vlm_ros.dependencies import explained_imports
from delayed_vlm_ros.errors import RecordingError, without_credentials
from delayed_vlm_ros.images.video import is_stream
from delayed_vlm_ros.replay.recordings.folder import DEFAULT_RATE, FolderRecording
from delayed_vlm_ros.replay.recordings.metadata import METADATA_FILE
from delayed_vlm_ros.replay.recordings.recording import BAG_SUFFIXES, Recording
from delayed_vlm_ros.replay.recordings.video import VideoRecording

_ROS_1_SUFFIX = ".bag"


def open_recording(path: str | Path, *, topic: str = "", image_rate: float = DEFAULT_RATE) -> Recording:
    """Open a recording of a camera.

    Args:
        path: A ROS 2 bag (its folder, or a ``.mcap`` or ``.db3`` file), a video file, or a folder of images.
        topic: Image topic of a bag; empty selects the only topic with images.
        image_rate: Images per second of a folder whose file names are not times.

    Raises:
        RecordingError: The path does not exist, is not a recording, or has no such images.
        DependencyError: The packages that read bags are not installed.
        VideoSourceError: The video cannot be read.
    """
    path = Path(path).expanduser()
    check_exists(path)
    _check_version(path)
    if _is_bag(path):
        # The packages that read bags are an optional extra; videos and folders need none of them.
        with explained_imports():
            from delayed_vlm_ros.replay.recordings.bag import BagRecording  # noqa: PLC0415
        return BagRecording(path, topic)
    if topic:
        raise RecordingError(f"{path} is not a bag and has no topic {topic}: omit the topic")
    return FolderRecording(path, image_rate) if path.is_dir() else VideoRecording(path)


def check_exists(path: Path) -> None:
    """Raise ``RecordingError`` if the path does not exist, or is the address of a network stream."""
    if is_stream(str(path)):
        raise RecordingError(
            f"{without_credentials(str(path))} is a network stream, which has no end: record it first, or play it live "
            "with 'delayed-vlm web --video ADDRESS' or the node video_camera"
        )
    if not path.exists():
        raise RecordingError(f"{path} does not exist: check the path (the current folder is {Path.cwd()})")


def _check_version(path: Path) -> None:
    """Raise ``RecordingError`` for a ROS 1 bag, and for a folder that has no ROS 2 bag but one of ROS 1."""
    if path.is_file():
        old = [path] if path.suffix == _ROS_1_SUFFIX else []
    else:
        old = [] if _is_bag(path) else sorted(path.glob(f"*{_ROS_1_SUFFIX}"))
    if old:
        raise RecordingError(
            f"{old[0]} is a ROS 1 bag: convert it with 'rosbags-convert --src {old[0].name} --dst FOLDER'"
        )


def _is_bag(path: Path) -> bool:
    if path.is_dir():
        return any(file.name == METADATA_FILE or file.suffix in BAG_SUFFIXES for file in path.iterdir())
    return path.suffix in BAG_SUFFIXES
