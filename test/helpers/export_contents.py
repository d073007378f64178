"""Contents of an export with markup, non-ASCII text, a pose, a pair with one image and one that left the memory."""

from __future__ import annotations

import cv2
import numpy as np

from delayed_vlm_ros.export.contents import (
    Evidence,
    ExportedAlert,
    ExportedAnswer,
    ExportedPair,
    JournalLine,
    LeftPair,
    PairImages,
    Pose,
    Records,
)

SECOND_NS = 10**9
NOON_NS = 1_795_953_600 * SECOND_NS
IMAGE = np.random.default_rng(1).integers(0, 255, (60, 320, 3), np.uint8)
PNG = cv2.imencode(".png", IMAGE)[1].tobytes()
MARKUP = '<script>alert(1)</script> & "Tür" 門 \'\ud800'
POSE = Pose("map", (1.0, 2.0, 0.5), (0.0, 0.0, 0.0, 1.0))


def pair(number: int, **changes) -> ExportedPair:
    values = {
        "id": number,
        "camera": "front",
        "stamp_ns": NOON_NS + number * SECOND_NS,
        "end_stamp_ns": NOON_NS + number * SECOND_NS + 1,
        "importance": 0.5,
        "reason": "new thing",
        "in_star": True,
        "in_stream": False,
        "marked": False,
        "label": "",
    }
    return ExportedPair(**{**values, **changes})


def records(**changes) -> Records:
    return Records(**{"source": "robot", "created_ns": NOON_NS, **changes})


ALL = records(
    answers=(
        ExportedAnswer(
            NOON_NS, "", MARKUP, MARKUP, "", (1, 2), (Evidence(2, NOON_NS + 2 * SECOND_NS, 0.7),), (MARKUP,)
        ),
        ExportedAnswer(NOON_NS, "*", "What?", "", "no frames", (), (), ()),
    ),
    alerts=(ExportedAlert(NOON_NS, "front", "door", MARKUP, is_rising=True, p_yes=0.9, pair_ids=(1,)),),
    lines=(JournalLine(5, "front", NOON_NS, NOON_NS, MARKUP, "new place", ""),),
    warnings=(MARKUP,),
)
PAIRS = [
    PairImages(pair(2, marked=True, label=MARKUP, reason=MARKUP, pose=POSE), PNG, PNG),
    LeftPair(9),
    PairImages(pair(1, camera="../門 cam"), PNG, b""),
]
