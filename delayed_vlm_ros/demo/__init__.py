"""The demo: nodes with a synthetic scene, the embedded model, and the four stages of a delayed memory."""
