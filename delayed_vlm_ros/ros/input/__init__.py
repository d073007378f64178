"""Subscriptions of the node: images and poses."""
