#!/usr/bin/env python3
"""Keep frames here and let a model server answer. Requires the extra remote: pip install ".[remote]"; no torch.

vllm serve Qwen/Qwen3-VL-8B-Instruct     # on a machine with a GPU; its options: docs/remote.md
python3 examples/ask_server.py openai:http://server:8000/v1#Qwen/Qwen3-VL-8B-Instruct room.mp4 "What is on the table?"
"""

from __future__ import annotations

import argparse
import sys

from delayed_vlm_ros import DelayedVlmError, RemoteInferenceEngine
from delayed_vlm_ros.images.video import open_video
from delayed_vlm_ros.inference.remote.settings import RemoteSettings
from delayed_vlm_ros.replay.video_frames import sampling_rate


def main() -> None:
    """Fill a memory from the video, ask the server twice, and print what was sent."""
    parser = argparse.ArgumentParser(description="Ask a model server about a video.")
    parser.add_argument("server", help="address and model: openai:http://server:8000/v1#NAME")
    parser.add_argument("video", help="video file")
    parser.add_argument("question")
    parser.add_argument("--api-key-env", default="", help="environment variable with the server's key")
    arguments = parser.parse_args()

    # 32 fits Qwen3-VL and Qwen3.5, 28 Qwen2.5-VL: delayed-vlm server-check says which.
    settings = RemoteSettings(api_key_env=arguments.api_key_env, frame_multiple=32)
    engine = RemoteInferenceEngine(arguments.server, settings)
    with open_video(arguments.video) as video:
        for frame in video.frames(rate=sampling_rate(video, min_frames=8)):
            engine.add_frame(frame.image, timestamp=frame.stamp)

    for question in (arguments.question, "What happened last?"):
        answer, metrics = engine.ask(question, max_new_tokens=64)
        print(f"Q: {question}\nA: {answer}")
        print(f"   {metrics['bytes_sent']} bytes sent")
        for warning in metrics["warnings"]:
            print(f"   warning: {warning}")
    engine.close()


if __name__ == "__main__":
    try:
        main()
    except DelayedVlmError as error:
        sys.exit(f"error: {error}")
