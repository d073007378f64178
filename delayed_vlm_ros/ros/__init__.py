"""ROS 2: the ``scene_memory`` node, its client, and what nodes share."""
