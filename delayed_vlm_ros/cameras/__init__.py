"""Camera nodes: a video or device, a recording, a synthetic room."""
