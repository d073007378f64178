"""Caches that outlive a question: vision features of pairs, and the KV of one prefix."""
