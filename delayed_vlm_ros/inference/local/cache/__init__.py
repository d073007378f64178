"""Caches between questions: vision features and the prefix KV."""
