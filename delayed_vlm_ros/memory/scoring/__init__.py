"""Scores that decide which frames Star memory keeps."""
