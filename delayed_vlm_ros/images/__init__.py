"""Images: validation, conversion from ROS messages to RGB arrays and back, video files."""
