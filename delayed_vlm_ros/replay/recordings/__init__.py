"""Recordings of cameras, read without ROS: ROS 2 bags, video files, folders of pictures.

with open_recording("drive.mcap", topic="/camera/image_raw") as recording:
for picture in recording.pictures():
use(picture.stamp_ns, picture.decode())
"""

from delayed_vlm_ros.replay.recordings.opening import open_recording
from delayed_vlm_ros.replay.recordings.recording import RecordedPicture, Recording

__all__ = ["RecordedPicture", "Recording", "open_recording"]
