"""Checkpoints: finding, validating and loading them; one adapter per model type."""
