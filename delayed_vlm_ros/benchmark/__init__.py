"""Measurements for users: how fast this machine answers, and which memory sizes to choose."""
