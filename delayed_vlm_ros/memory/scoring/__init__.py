"""Scores that decide which frames Star keeps."""
