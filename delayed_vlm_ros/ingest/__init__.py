"""From time-stamped camera images to frames in memory: sampling, time stamps, geometry."""
