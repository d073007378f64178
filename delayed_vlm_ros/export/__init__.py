"""Export of a memory: frames as PNG files, answers and their evidence as JSON, and one HTML page. Needs no ROS."""
