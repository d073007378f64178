"""Services and actions of the scene_memory node."""
