"""Comparing answers: delayed encoding against native video inference on the same frames."""
