"""The scene_memory node with a fake engine whose behaviour the question selects.

``work 2``: answer after 2 s, stopping when cancelled. ``hold FILE``: answer when the file exists, and do not stop
before, like one long step of a model. ``defect``: raise an unexpected error. ``out of memory``: raise the device's
error. ``say a b c``: answer with these words, one token each, 0.05 s apart; ``say`` alone continues until stopped. Any
other question is answered immediately.

Yes/no questions: ``bright`` is about the newest image, ``file FILE`` about the existence of a file, ``slow SECONDS``
takes that long, ``strange`` is not taken as such a question; ``defect`` and ``out of memory`` are as above.

Environment variables: loading ends when the file FAKE_LOAD_UNTIL exists, and fails while FAKE_LOAD_FAILS exists;
configuring has a defect while FAKE_DEFECT_WHILE exists.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from pathlib import Path

from fake_metrics import metrics_of_scores

from delayed_vlm_ros.errors import DeviceMemoryError, ModelNotFoundError
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.metrics import AskMetrics
from delayed_vlm_ros.inference.progress import Progress, Stage
from delayed_vlm_ros.inference.request import AskRequest, AskResult, select_frames
from delayed_vlm_ros.inference.yes_no import ScoreResult, YesNo
from delayed_vlm_ros.ros.output import report_publisher
from delayed_vlm_ros.ros.scene_memory import engines, node, session


class _Bytes:
    features = 1000
    kv = 2000


class FakeEngine:
    def __init__(self, memory) -> None:
        self._memory = memory

    def answer(self, request: AskRequest, control: AskControl | None = None, *, frames=None) -> AskResult:
        snapshot = select_frames(self._memory.snapshot() if frames is None else frames, request)
        started = time.monotonic()
        word, _, rest = request.question.partition(" ")
        if word == "work":
            while time.monotonic() < started + float(rest):
                control.check()
                time.sleep(0.01)
        elif word == "hold":
            while not Path(rest).exists():
                time.sleep(0.01)
        elif word == "say":
            words = rest.split() or itertools.repeat("word", 100_000)
            spoken = []
            control.report(Progress(Stage.ENCODING))
            control.report(Progress(Stage.GENERATING))
            for one in words:
                control.check()
                spoken.append(one)
                if control.wants_text:
                    control.report(Progress(Stage.GENERATING, " ".join(spoken), len(spoken)))
                time.sleep(0.05)
        elif word == "defect":
            raise ZeroDivisionError("planted by the test")
        elif request.question == "out of memory":
            raise DeviceMemoryError("the device ran out of memory, planted by the test")
        frames = sum(kept.frame_count for kept in snapshot)
        metrics = AskMetrics(
            total_latency=time.monotonic() - started,
            encoding_latency=None,
            generation_latency=0.25,
            time_to_first_token=0.125,
            frames_encoded=frames,
            frames_reused=0,
            visual_tokens=10,
            kv_cache_length=20,
            kv_tokens_reused=0,
            answer_tokens=request.max_new_tokens,
            video_grid_thw=(len(snapshot), 2, 2),
            exact=True,
            warnings=("fake engine",),
        )
        return AskResult(f"about {request.question}", metrics, snapshot)

    def score(self, questions, *, window_sec=None, frames=None, control) -> ScoreResult:
        snapshot = self._memory.snapshot() if frames is None else frames
        return ScoreResult(
            tuple(self._score(question, snapshot, control) for question in questions), snapshot, metrics_of_scores()
        )

    def _score(self, question, snapshot, control) -> YesNo:
        question = question.rstrip(" ?")  # of a search
        word, _, rest = question.partition(" ")
        if word == "slow":
            started = time.monotonic()
            while time.monotonic() < started + float(rest):
                control.check()
                time.sleep(0.005)
        elif word == "strange":
            return YesNo(0.5, 0.01, 0.0, "perhaps")
        elif word == "defect":
            raise ZeroDivisionError("planted by the test")
        elif question == "out of memory":
            raise DeviceMemoryError("the device ran out of memory, planted by the test")
        is_yes = Path(rest).exists() if word == "file" else snapshot[-1].pair.last.image.mean() > 128
        return YesNo(0.9, 1.0, 2.2, "yes") if is_yes else YesNo(0.1, 1.0, -2.2, "no")

    def keep_windows(self, lengths) -> None:
        pass

    def cached_bytes(self) -> _Bytes:
        return _Bytes()

    def reset_cache(self) -> None:
        pass

    def close(self) -> None:
        pass


def load(_checkpoint, _parameters, memories) -> engines.Engines:
    while "FAKE_LOAD_UNTIL" in os.environ and not Path(os.environ["FAKE_LOAD_UNTIL"]).exists():
        time.sleep(0.02)
    if "FAKE_LOAD_FAILS" in os.environ and Path(os.environ["FAKE_LOAD_FAILS"]).exists():
        raise ModelNotFoundError("the weights are gone, planted by the test")
    return engines.Engines("cpu", {name: FakeEngine(memory) for name, memory in memories.items()})


def build_session(*arguments):
    if "FAKE_DEFECT_WHILE" in os.environ and Path(os.environ["FAKE_DEFECT_WHILE"]).exists():
        raise ZeroDivisionError("planted by the test")
    return session.build_session(*arguments)


if __name__ == "__main__":
    node.build_session = build_session
    engines.load_engines = load
    report_publisher._PERIOD_SEC = 0.1  # tests wait for many reports
    sys.exit(node.main())
