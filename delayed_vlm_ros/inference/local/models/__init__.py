"""Checkpoints: resolving, validating and loading them; one adapter a model family."""
