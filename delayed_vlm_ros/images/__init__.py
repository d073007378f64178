"""Images: ROS messages and video files to RGB arrays, and RGB arrays to JPEG."""
