"""The engine that runs a Qwen VL model in this process. Requires torch and transformers."""
