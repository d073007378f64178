"""Services and actions of the node."""
