"""Finding out what a path is: a bag, a video, or a folder of images."""

from __future__ import annotations

from pathlib import Path

from delayed_vlm_ros.dependencies import explained_imports
from delayed_vlm_ros.errors import RecordingError
from delayed_vlm_ros.replay.recordings.folder import DEFAULT_RATE, FolderRecording
from delayed_vlm_ros.replay.recordings.recording import BAG_SUFFIXES, Recording
from delayed_vlm_ros.replay.recordings.video import VideoRecording


def open_recording(path: str | Path, *, topic: str = "", image_rate: float = DEFAULT_RATE) -> Recording:
    """Open a recording of a camera.

    Args:
        path: A ROS 2 bag (its folder, or a ``.mcap`` or ``.db3`` file), a video file, or a folder of images.
        topic: Which images of a bag; empty: those of the only topic that has images.
        image_rate: Images per second of a folder whose files are not named by their times.

    Raises:
        RecordingError: There is no such path, or it is nothing of these, or has no such images.
        DependencyError: What reads bags is not installed.
        VideoSourceError: The video cannot be read.
    """
    path = Path(path).expanduser()
    check_is_there(path)
    if path.suffix == ".bag" and path.is_file():
        raise RecordingError(
            f"{path} is a bag of ROS 1: convert it with 'rosbags-convert --src {path.name} --dst FOLDER'"
        )
    if _is_bag(path):
        # What reads bags is an extra: who plays a video need not have it.
        with explained_imports():
            from delayed_vlm_ros.replay.recordings.bag import BagRecording  # noqa: PLC0415
        return BagRecording(path, topic)
    if topic:
        raise RecordingError(f"{path} is no bag, so it has no topic {topic}: leave the topic out")
    return FolderRecording(path, image_rate) if path.is_dir() else VideoRecording(path)


def check_is_there(path: Path) -> None:
    """Raise `RecordingError` if there is no such path."""
    if not path.exists():
        raise RecordingError(f"there is no {path}: check the path (the current folder is {Path.cwd()})")


def _is_bag(path: Path) -> bool:
    if path.is_dir():
        return any(file.name == "metadata.yaml" or file.suffix in BAG_SUFFIXES for file in path.iterdir())
    return path.suffix in BAG_SUFFIXES
