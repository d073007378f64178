"""Key-frame files: Star memory on disk, restored after a restart. Imports neither models nor ROS.

``file_format`` defines the content of one camera's file. ``folder`` writes files atomically.
"""
