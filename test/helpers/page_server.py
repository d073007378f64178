"""The page's server with a memory of made-up frames, for tests of the page alone: starts in a few seconds.

Usage: page_server.py PORT CAMERAS FRAMES SPAN_SEC [LIMIT=NUMBER …] [KIND=NUMBER …]; the token is in the environment, as
for the page. The limits are those of ``VisitorLimits``. Kinds are ``journal``, ``alerts``, ``answers`` and ``gaps``,
spread over the time of the first camera, and ``new``: frames a second that the Stream memory takes. The signal USR1
prints the number of pages in memory.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import numpy as np
from nicegui import Client

from delayed_vlm_ros.errors import AskError
from delayed_vlm_ros.export.contents import JournalLine
from delayed_vlm_ros.images.encoding import encode_jpeg, encode_png
from delayed_vlm_ros.time import NANOSECONDS_PER_SECOND
from delayed_vlm_ros.web.access import TOKEN_VARIABLE, make_access
from delayed_vlm_ros.web.backend import (
    AnsweredQuestion,
    AskOutcome,
    CameraSpan,
    CameraState,
    FoundMoment,
    KeptFrame,
    KeptFrameImages,
    LiveImage,
    MemoryCounts,
    Question,
    SceneState,
    SearchOutcome,
    WatchAlert,
)
from delayed_vlm_ros.web.connections import VisitorLimits
from delayed_vlm_ros.web.conversation import Conversation
from delayed_vlm_ros.web.server import WebServer

STREAM_FRAMES = 8
IMAGE = encode_jpeg(np.full((48, 64, 3), 128, np.uint8))
PNG = encode_png(np.full((48, 64, 3), 128, np.uint8))
KINDS = ("journal", "alerts", "answers", "gaps", "new")
REASONS = ("brief event", "new place", "new thing", "scene change", "first frame")


class MadeUpMemory:
    """A ``Backend`` whose frames are spread evenly over a time that ends now, and whose answers repeat the question."""

    def __init__(self, cameras: int, frames: int, span_sec: float, counts: dict[str, float]) -> None:
        self._names = [f"camera{number}" for number in range(cameras)]
        now_ns = time.time_ns()
        step_ns = round(span_sec * NANOSECONDS_PER_SECOND / frames)
        self._frames = {
            name: tuple(
                self._frame(number, name, now_ns - (frames - number) * step_ns, frames) for number in range(frames)
            )
            for name in self._names
        }
        self._started_ns = now_ns
        self._new_per_sec = counts.get("new", 0.0)
        self._past(counts, now_ns, round(span_sec * NANOSECONDS_PER_SECOND))

    def _past(self, counts: dict[str, float], now_ns: int, span_ns: int) -> None:
        """Make up what happened in the time of the frames."""
        name = self._names[0]
        frames = self._frames[name]

        def times(kind: str) -> list[int]:
            count = int(counts.get(kind, 0))
            return [now_ns - span_ns + (2 * number + 1) * span_ns // (2 * count) for number in range(count)]

        self._lines = tuple(
            JournalLine(number, name, at, at + 10**9, f"Zeile {number}: eine Tür 門 <b>offen</b>", "new thing")
            for number, at in enumerate(times("journal"), 1)
        )
        self._alerts = tuple(
            WatchAlert(number, "door", "Is the door open?", name, number % 2 == 0, 0.9, at, frames[:2])
            for number, at in enumerate(times("alerts"))
        )
        self._answers = tuple(
            AnsweredQuestion(
                f"q{number}", at, name, f"What happened <i>then</i>? {number}", "A box came.", frame_ids=(0, 1, 10**6)
            )
            for number, at in enumerate(times("answers"))
        )
        starts = times("gaps")
        ends = [*starts, now_ns][1:]
        gap_ns = 900 * NANOSECONDS_PER_SECOND
        self._spans = tuple(
            span
            for start, end in zip(starts, ends, strict=True)
            for span in (
                CameraSpan(start, start + gap_ns, has_images=False),
                CameraSpan(start + gap_ns, end, has_images=True),
            )
        )

    def _current(self, name: str) -> tuple[KeptFrame, ...]:
        """Return the frames of a camera; with ``new`` the Stream memory has taken some since the start."""
        frames = self._frames[name]
        new = int((time.time_ns() - self._started_ns) / 1e9 * self._new_per_sec)
        if not new:
            return frames
        first = len(frames) + max(0, new - STREAM_FRAMES)
        step_ns = round(NANOSECONDS_PER_SECOND / self._new_per_sec)
        added = [
            KeptFrame(
                number,
                name,
                self._started_ns + (number - len(frames)) * step_ns,
                self._started_ns + (number - len(frames)) * step_ns + 1,
                0.2,
                "",
                in_star=False,
                in_stream=True,
            )
            for number in range(first, len(frames) + new)
        ]
        kept = frames if new < STREAM_FRAMES else frames[:-STREAM_FRAMES]
        return (*kept, *added)

    @staticmethod
    def _frame(number: int, camera: str, stamp_ns: int, frames: int) -> KeptFrame:
        in_stream = number >= frames - STREAM_FRAMES
        reason = REASONS[number % len(REASONS)]
        return KeptFrame(number, camera, stamp_ns, stamp_ns + 1, 0.5, reason, not in_stream, in_stream, number == 3)

    def state(self) -> SceneState:
        return SceneState(
            connected=True,
            now_ns=time.time_ns(),
            cameras=tuple(
                CameraState(
                    name,
                    input_rate_hz=10.0,
                    counts=MemoryCounts(added=1000),
                    frames=self._current(name),
                    spans=self._spans if name == self._names[0] else (),
                )
                for name in self._names
            ),
            alerts=self._alerts,
            answers=self._answers,
            model="made up",
            model_state="ready",
        )

    def live_image(self, camera: str) -> LiveImage | None:
        """Return an image of the first camera; the others have none."""
        return None if camera != self._names[0] else LiveImage(time.time_ns() // 10**8, IMAGE, 64, 48)

    def images(self, ids, image_format="jpeg"):
        wanted = set(ids)
        image = PNG if image_format == "png" else IMAGE
        frames = [frame for name in self._names for frame in self._current(name) if frame.id in wanted]
        return {frame.key: KeptFrameImages(image, image) for frame in frames}

    def journal(self, after_id: int, *, since_ns: int = 0, until_ns: int = 0):
        return tuple(
            line
            for line in self._lines
            if line.id > after_id and since_ns <= line.stamp_ns <= (until_ns or line.stamp_ns)
        )

    def journal_image(self, line_id: int) -> bytes:
        return IMAGE if any(line.id == line_id for line in self._lines) else b""

    def find(self, description: str, camera: str) -> SearchOutcome:
        """Return the oldest frame, one that has left, one that does not fit, and two lines of the journal: the
        first one has all words, the second one half of them.

        ``fail`` is an error, and ``slow`` takes 2 s; ``nothing`` is nowhere.
        """
        if description == "fail":
            raise AskError("the model is away: start it")
        if description == "slow":
            time.sleep(2.0)
        frame, other = self._current(camera or self._names[0])[:2]
        stamps = frame.stamp_ns, frame.end_stamp_ns
        moments = [
            FoundMoment(0.97, *stamps, frame, None, IMAGE),
            FoundMoment(0.8, *stamps, None, None, IMAGE),
            FoundMoment(0.2, other.stamp_ns, other.end_stamp_ns, other, None, IMAGE),
        ]
        moments += [
            FoundMoment(score, line.stamp_ns, line.end_stamp_ns, None, line, b"")
            for score, line in zip((1.0, 0.5), self._lines, strict=False)
        ]
        found = () if description == "nothing" else tuple(moments)
        return SearchOutcome(found, 7, len(self._lines), (f"searched for {description}",))

    def ask(self, question: Question, on_progress, on_done) -> None:
        outcome = AskOutcome(answer=question.text, frames_used=self._frames[self._names[0]])
        threading.Timer(0.1, on_done, (outcome,)).start()


def main() -> None:
    port, cameras, frames, span_sec = map(int, sys.argv[1:5])
    numbers = {name: float(value) for name, _, value in (limit.partition("=") for limit in sys.argv[5:])}
    limits = {name: value for name, value in numbers.items() if name not in KINDS}
    memory = MadeUpMemory(cameras, frames, span_sec, numbers)
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
