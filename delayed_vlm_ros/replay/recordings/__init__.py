"""Camera recordings, read without ROS: ROS 2 bags, video files, folders of images.

Example::

with open_recording("drive.mcap", topic="/camera/image_raw") as recording:
    for image in recording.images():
        use(image.stamp_ns, image.decode())
"""

from delayed_vlm_ros.replay.recordings.opening import open_recording
from delayed_vlm_ros.replay.recordings.recording import RecordedImage, Recording

__all__ = ["RecordedImage", "Recording", "open_recording"]
