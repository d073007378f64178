"""The engine that runs a Qwen VL model in this process. Imports torch and transformers."""
