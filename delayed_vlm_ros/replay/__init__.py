"""Evaluation on recordings: replay a recording through the memory, ask questions, compare with native inference."""
