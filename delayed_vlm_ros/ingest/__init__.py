"""From camera images with time stamps to frames in memory: time, sampling, geometry."""
