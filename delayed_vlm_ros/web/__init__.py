"""The web page of a scene memory: views, access control and server. Only ``backends`` and the node need ROS."""
