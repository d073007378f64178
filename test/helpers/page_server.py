"""The page's server with a memory of made-up frames, for tests of the page alone: starts in a few seconds.

Usage: page_server.py PORT CAMERAS FRAMES SPAN_SEC [LIMIT=NUMBER …]; the token is in the environment, as for the page.
The limits are those of ``VisitorLimits``. The signal USR1 prints the number of pages in memory.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import numpy as np
from nicegui import Client

from delayed_vlm_ros.images.encoding import encode_jpeg
from delayed_vlm_ros.time import NANOSECONDS_PER_SECOND
from delayed_vlm_ros.web.access import TOKEN_VARIABLE, make_access
from delayed_vlm_ros.web.backend import (
    AskOutcome,
    CameraState,
    KeptFrame,
    KeptFrameImages,
    LiveImage,
    MemoryCounts,
    Question,
    SceneState,
)
from delayed_vlm_ros.web.connections import VisitorLimits
from delayed_vlm_ros.web.conversation import Conversation
from delayed_vlm_ros.web.server import WebServer

STREAM_FRAMES = 8
IMAGE = encode_jpeg(np.full((48, 64, 3), 128, np.uint8))


class MadeUpMemory:
    """A ``Backend`` whose frames are spread evenly over a time that ends now, and whose answers repeat the question."""

    def __init__(self, cameras: int, frames: int, span_sec: float) -> None:
        self._names = [f"camera{number}" for number in range(cameras)]
        now_ns = time.time_ns()
        step_ns = round(span_sec * NANOSECONDS_PER_SECOND / frames)
        self._frames = {
            name: tuple(
                self._frame(number, name, now_ns - (frames - number) * step_ns, frames) for number in range(frames)
            )
            for name in self._names
        }

    @staticmethod
    def _frame(number: int, camera: str, stamp_ns: int, frames: int) -> KeptFrame:
        in_stream = number >= frames - STREAM_FRAMES
        return KeptFrame(number, camera, stamp_ns, stamp_ns + 1, 0.5, "new thing", not in_stream, in_stream)

    def state(self) -> SceneState:
        return SceneState(
            connected=True,
            now_ns=time.time_ns(),
            cameras=tuple(
                CameraState(name, input_rate_hz=10.0, counts=MemoryCounts(added=1000), frames=self._frames[name])
                for name in self._names
            ),
            model="made up",
            model_state="ready",
        )

    def live_image(self, camera: str) -> LiveImage | None:
        """Return an image of the first camera; the others have none."""
        return None if camera != self._names[0] else LiveImage(time.time_ns() // 10**8, IMAGE, 64, 48)

    def images(self, ids):
        wanted = set(ids)
        frames = [frame for frames in self._frames.values() for frame in frames if frame.id in wanted]
        return {frame.key: KeptFrameImages(IMAGE, IMAGE) for frame in frames}

    def ask(self, question: Question, on_progress, on_done) -> None:
        outcome = AskOutcome(answer=question.text, frames_used=self._frames[self._names[0]])
        threading.Timer(0.1, on_done, (outcome,)).start()


def main() -> None:
    port, cameras, frames, span_sec = map(int, sys.argv[1:5])
    limits = {name: float(value) for name, _, value in (limit.partition("=") for limit in sys.argv[5:])}
    memory = MadeUpMemory(cameras, frames, span_sec)
    conversation = Conversation(memory, max_characters=1000, questions_per_minute=100)
    access = make_access("127.0.0.1", os.environ.get(TOKEN_VARIABLE, ""))
    server = WebServer(memory, conversation, access, port, VisitorLimits(**limits))
    signal.signal(signal.SIGUSR1, lambda *_: print(len(Client.instances), flush=True))
    server.start()
    print(server.url, flush=True)
    while True:
        time.sleep(1.0)


if __name__ == "__main__":
    main()
