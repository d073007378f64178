"""The remote engine: frames stay on the robot, and a server with an OpenAI-compatible API answers about them.

Imports neither torch nor transformers.
"""
