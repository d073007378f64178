"""The demo: nodes over a synthetic scene, the embedded model, and the basic course."""
