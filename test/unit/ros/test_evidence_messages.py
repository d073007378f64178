"""Evidence of an answer in responses and on ``~/answers``: best first, with its span and the pose of the best pair."""

from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

import numpy as np
from delayed_vlm_ros.action import AskScene as AskSceneAction
from delayed_vlm_ros.srv import AskScene
from fake_metrics import metrics_of_scores
from geometry_msgs.msg import PoseStamped
from rclpy.serialization import serialize_message

from delayed_vlm_ros.inference.request import MAX_EVIDENCE, AskResult, Evidence
from delayed_vlm_ros.memory import Frame, FramePair, KeptPair
from delayed_vlm_ros.ros.input.frame_headers import FrameHeader, TimedPose
from delayed_vlm_ros.ros.output import messages
from delayed_vlm_ros.ros.services.multi_camera_ask import Answer, CameraAnswer
from delayed_vlm_ros.ros.time import time_message

NO_WARNINGS = ()
SECOND_NS = 10**9
WITHOUT_POSE = 50  # id of a pair


def pair(number):
    first, second = (Frame(np.zeros((4, 4, 3), np.uint8), number + half, 1, 0.1, "") for half in (0.0, 0.5))
    return KeptPair(FramePair(number, first, second), in_star=True, in_stream=False)


def header_of(frame):
    number = int(frame.stamp)
    pose = PoseStamped()
    pose.header.frame_id, pose.pose.position.x = "map", float(number)
    timed = None if number == WITHOUT_POSE else TimedPose(0, serialize_message(pose))
    return FrameHeader(round(frame.stamp * SECOND_NS), "lens", timed)


def camera(name):
    return SimpleNamespace(name=name, header_of=header_of, warnings=NO_WARNINGS)


def part(name, **relevance):
    evidence = tuple(Evidence(pair(int(number[1:])), share) for number, share in relevance.items())
    used = tuple(sorted((one.kept for one in evidence), key=lambda kept: kept.stamps)) or (pair(7),)
    return CameraAnswer(camera(name), AskResult("a bag", metrics_of_scores(), used, evidence), 0.5)


def filled(*parts, response=None):
    response = response or AskScene.Response()
    messages.fill_answer(response, Answer(parts, 0.0, is_of_all=len(parts) > 1), include_frames=False)
    return response


@pytest.mark.parametrize("response", [AskScene.Response(), AskSceneAction.Result()], ids=["service", "action"])
def test_evidence_has_relevance_span_and_pose_of_the_best_pair(response):
    filled(part("front", p30=0.6, p10=0.3, p20=0.1), response=response)
    assert [(frame.id, frame.camera) for frame in response.evidence] == [(30, "front"), (10, "front"), (20, "front")]
    assert [frame.relevance for frame in response.evidence] == pytest.approx([0.6, 0.3, 0.1])
    assert list(response.evidence_span) == [time_message(10 * SECOND_NS), time_message(30 * SECOND_NS + SECOND_NS // 2)]
    assert response.evidence_pose_valid
    assert (response.evidence_pose.header.frame_id, response.evidence_pose.pose.position.x) == ("map", 30.0)
    assert messages.scene_answer(AskScene.Request(question="Where?"), response, None).evidence == response.evidence


def test_best_pair_without_pose_has_no_pose_of_another_pair():
    response = filled(part("front", p50=0.6, p10=0.4))
    assert not response.evidence_pose_valid
    assert response.evidence_pose == PoseStamped()


def test_answer_without_evidence_leaves_the_fields_empty():
    response, empty = filled(part("front")), AskScene.Response()
    assert response.success
    for name in ("evidence", "evidence_pose_valid", "evidence_pose"):
        assert getattr(response, name) == getattr(empty, name), name
    assert list(response.evidence_span) == list(empty.evidence_span)


def test_only_pair_of_a_camera_is_no_better_than_an_average_one_of_others():
    response = filled(part("rear", p4=1.0), part("front", p1=0.5, p2=0.2, p3=0.1))
    assert [frame.id for frame in response.evidence] == [1, 4, 2, 3]


def test_evidence_of_all_cameras_has_the_most_relevant_pairs_of_any_and_no_single_pose():
    response = filled(part("front", p1=0.5, p2=0.2, p3=0.1), part("rear", p4=0.9, p5=0.05, p6=0.01))
    assert [(frame.camera, frame.id) for frame in response.evidence] == [
        ("rear", 4),
        ("front", 1),
        ("front", 2),
        ("front", 3),
        ("rear", 5),
    ]
    assert len(response.evidence) == MAX_EVIDENCE
    assert not response.evidence_pose_valid
    assert [frame.pose.pose.position.x for frame in response.evidence] == [4.0, 1.0, 2.0, 3.0, 5.0]
