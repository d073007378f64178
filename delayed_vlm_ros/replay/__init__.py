"""Evaluation on recordings: run a recording through the memory, ask, compare with native inference, report."""
