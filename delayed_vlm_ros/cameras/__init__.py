"""Camera nodes: a video file or device, a recording, and a synthetic room."""
