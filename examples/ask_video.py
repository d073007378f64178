#!/usr/bin/env python3
"""Ask about a video from Python, without ROS. Requires the extra vlm: pip install ".[vlm]".

python3 examples/ask_video.py room.mp4 "What was on the left at the start?"
python3 examples/ask_video.py room.mp4 "Is the door open?" --model Qwen/Qwen2.5-VL-3B-Instruct
"""

from __future__ import annotations

import argparse
import sys

from delayed_vlm_ros import DelayedBatchInferenceEngine, DelayedVlmError
from delayed_vlm_ros.images.video import open_video
from delayed_vlm_ros.replay.video_frames import sampling_rate


def main() -> None:
    """Fill a memory from the video, ask two questions, and print answers and cost."""
    parser = argparse.ArgumentParser(description="Ask questions about a video.")
    parser.add_argument("video", help="video file")
    parser.add_argument("question")
    parser.add_argument("--model", default="auto", help="folder of a checkpoint, name on the hub, demo or auto")
    arguments = parser.parse_args()

    with open_video(arguments.video) as video:
        rate = sampling_rate(video, min_frames=8)
        engine = DelayedBatchInferenceEngine.from_pretrained(arguments.model)
        for warning in engine.warnings:
            print(f"warning: {warning}")
        for frame in video.frames(rate=rate):
            engine.add_frame(frame.image, timestamp=frame.stamp)
    kept = engine.snapshot()
    if not kept:
        sys.exit(f"error: no image in {arguments.video}")
    print(f"{len(kept)} pairs of frames kept, from {kept[0].stamps[0]:.1f} to {kept[-1].stamps[1]:.1f} s")

    # The second question finds everything encoded.
    for question in (arguments.question, "What happened last?"):
        answer, metrics = engine.ask(question, max_new_tokens=64)
        print(f"Q: {question}\nA: {answer}")
        print(f"   {metrics['frames_encoded']} frames encoded, {metrics['frames_reused']} reused")
    engine.close()


if __name__ == "__main__":
    try:
        main()
    except DelayedVlmError as error:
        sys.exit(f"error: {error}")
