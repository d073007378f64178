"""One adapter per model type. ``registry`` finds the adapter of a model."""
