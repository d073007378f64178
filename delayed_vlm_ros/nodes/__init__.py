"""ROS 2 nodes: thin layers between messages and the memory and model packages."""
