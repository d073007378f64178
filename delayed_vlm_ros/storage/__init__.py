"""Star memory in files, for after a restart. Knows nothing of models or of ROS.

`file_format` is what one camera's file holds, `folder` how it is written so that it is whole or not there.
"""
