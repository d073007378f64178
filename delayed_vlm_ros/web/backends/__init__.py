"""Where the page gets its scene memory from: a ROS node, or this process."""
