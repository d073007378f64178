#!/usr/bin/env python3
"""Draw what a memory keeps of a bag, a video or a folder of images, without ROS and without a model.

python3 examples/show_kept.py drive.mcap kept.png
python3 examples/show_kept.py drive.mcap kept.png --topic /camera/image_raw --star 40
"""

from __future__ import annotations

import argparse
import sys

import cv2

from delayed_vlm_ros import DelayedVlmError, ImageError, MemoryConfig
from delayed_vlm_ros.ingest.geometry import FrameGeometry
from delayed_vlm_ros.ingest.ingestor import SamplingIngestor
from delayed_vlm_ros.replay.recordings import open_recording
from delayed_vlm_ros.ros.output.mosaic import draw_mosaic, make_tile

FACTOR = 28  # both sides of a kept frame are multiples of it, as Qwen2.5-VL reads them


def main() -> None:
    """Fill a memory as the node would, and draw its key frames and newest frames."""
    parser = argparse.ArgumentParser(description="Draw what a memory keeps of a recording.")
    parser.add_argument("recording", help="bag, video, or folder of images")
    parser.add_argument("image", help="file to write, such as kept.png")
    parser.add_argument("--topic", default="", help="image topic of a bag; the only one by default")
    parser.add_argument("--star", type=int, default=MemoryConfig.star_memory_size, help="size of Star memory, frames")
    arguments = parser.parse_args()
    config = MemoryConfig(star_memory_size=arguments.star)
    memory, geometry = config.build(), FrameGeometry(FACTOR, max_pixels=config.max_pixels)
    skipped = 0
    with open_recording(arguments.recording, topic=arguments.topic) as recording:
        ingestor = SamplingIngestor(geometry, memory, config.sample_fps, topic=recording.name, restart_on_jump=False)
        for image in recording.images():
            try:
                stamp_ns = ingestor.usable_stamp(image.stamp_ns, image.arrival_ns)
                decision = ingestor.decide(stamp_ns, image.arrival_ns / 1e9, image.arrival_ns)
                if decision.is_due:
                    ingestor.add(image.decode(), decision)
            except ImageError:
                skipped += 1
    kept = memory.snapshot()
    if not kept:
        sys.exit(f"error: no usable image, {skipped} skipped")
    tiles = [make_tile(one, age_sec=kept[-1].stamps[1] - one.stamps[0]) for one in kept]
    sheet = draw_mosaic(recording.name, f"{len(tiles)} pairs kept", tiles, slots=len(tiles))
    if not cv2.imwrite(arguments.image, cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR)):
        sys.exit(f"error: cannot write {arguments.image}")
    notes = "".join(f"\nwarning: {warning}" for warning in recording.warnings)
    print(f"{len(kept)} pairs of frames, {skipped} images skipped: {arguments.image}{notes}")


if __name__ == "__main__":
    try:
        main()
    except DelayedVlmError as error:
        sys.exit(f"error: {error}")
