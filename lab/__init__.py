"""Benchmarks and training for developers of this project; never installed."""
