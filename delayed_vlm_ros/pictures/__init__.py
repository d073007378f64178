"""Image messages as they come, from a camera or a recording, to RGB pictures; needs no ROS."""
