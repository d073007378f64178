"""Images from a node are checked before a browser decodes them."""

import cv2
import numpy as np
import pytest
from image_bombs import jpeg_claiming

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from sensor_msgs.msg import CompressedImage

from delayed_vlm_ros.errors import ImageError
from delayed_vlm_ros.web.backend import KeptFrameImages
from delayed_vlm_ros.web.backends.ros_conversion import to_kept_images

JPEG = cv2.imencode(".jpg", np.zeros((4, 6, 3), np.uint8))[1].tobytes()


@pytest.mark.parametrize("second", [b"", JPEG])
def test_images_of_a_kept_pair_are_returned_unchanged(second):
    images = to_kept_images(CompressedImage(format="jpeg", data=JPEG), CompressedImage(format="jpeg", data=second))
    assert images == KeptFrameImages(JPEG, second)


@pytest.mark.parametrize("files", [(jpeg_claiming(30_000, 20_000), b""), (JPEG, b"<svg/>")])
def test_image_that_is_too_large_or_of_another_kind_is_refused(files):
    first, second = (CompressedImage(format="jpeg", data=file) for file in files)
    with pytest.raises(ImageError):
        to_kept_images(first, second)
