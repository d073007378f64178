"""Topics whose publishers have another type than the subscription."""

from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import CompressedImage, Image

from delayed_vlm_ros.ros.input.topic_types import image_topic_fault, pose_topic_fault

RAW, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
POSE_TYPES = ("PoseStamped", "PoseWithCovarianceStamped", "Odometry")


def graph(**types):
    """Return a graph with publishers: topic (with _ for /) = types."""
    listed = {name.replace("_", "/"): found for name, found in types.items()}
    return SimpleNamespace(
        get_publishers_info_by_topic=lambda topic: [SimpleNamespace(topic_type=one) for one in listed.get(topic, [])]
    )


@pytest.mark.parametrize(
    ("published", "topic", "message_type", "named"),
    [
        ({"_cam": [RAW]}, "/cam", Image, []),
        ({"_cam_compressed": [COMPRESSED]}, "/cam/compressed", CompressedImage, []),
        ({"_cam": [COMPRESSED, RAW]}, "/cam", Image, []),
        ({}, "/cam", Image, []),
        (
            {"_cam_compressed": [COMPRESSED]},
            "/cam/compressed",
            Image,
            ["/cam/compressed has type " + COMPRESSED, "image_transport to compressed", "remap image to /cam"],
        ),
        ({"_cam_compressed": [COMPRESSED]}, "/cam", Image, ["only /cam/compressed", "image_transport to compressed"]),
        ({"_cam": [COMPRESSED]}, "/cam", Image, ["has type " + COMPRESSED, "/cam/compressed"]),
        ({"_cam": [RAW]}, "/cam/compressed", CompressedImage, ["only /cam is", "image_transport to raw"]),
        ({"_cam_compressed": [RAW]}, "/cam/compressed", CompressedImage, ["has type " + RAW, "image_transport to raw"]),
        (
            {"_cam_compressed": [COMPRESSED]},
            "/cam/compressed/compressed",
            CompressedImage,
            ["adds /compressed once more", "remap image to /cam"],
        ),
        (
            {"_cam_ffmpeg": ["ffmpeg_image_transport_msgs/msg/FFMPEGPacket"]},
            "/cam/ffmpeg",
            Image,
            ["has type ffmpeg_image_transport_msgs/msg/FFMPEGPacket", "remap image"],
        ),
    ],
)
def test_images_of_another_type_are_named_with_the_remedy(published, topic, message_type, named):
    fault = image_topic_fault(graph(**published), topic, message_type)
    assert bool(fault) == bool(named)
    assert [text for text in named if text not in fault] == []


@pytest.mark.parametrize(
    ("found", "named"),
    [
        ([], []),
        (["geometry_msgs/msg/PoseStamped"], []),
        (["nav_msgs/msg/Odometry"], ["/pose has type nav_msgs/msg/Odometry", "pose.source to Odometry"]),
        (["geometry_msgs/msg/Twist"], ["has type geometry_msgs/msg/Twist", "remap pose", "PoseStamped"]),
    ],
)
def test_poses_of_another_type_are_named_with_the_remedy(found, named):
    fault = pose_topic_fault(graph(_pose=found), "/pose", PoseStamped, POSE_TYPES)
    assert bool(fault) == bool(named)
    assert [text for text in named if text not in fault] == []
