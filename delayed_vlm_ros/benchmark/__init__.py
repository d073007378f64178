"""Benchmarks for users: the latency of questions on this machine, and the trade-offs between memory sizes."""
