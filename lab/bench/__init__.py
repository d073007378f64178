"""Benchmarks: quality of answers, what the memory keeps, the cost of questions over a day, load and soak."""
