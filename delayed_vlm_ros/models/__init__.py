"""Model checkpoints that come with the package, and what makes them."""
