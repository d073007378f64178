"""The web page: what it shows, who may see it, and where it gets it from. No ROS."""
