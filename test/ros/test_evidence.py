"""The evidence of an answer over DDS: key frames with relevance, their span, the camera's pose, and its parameter."""

import array

from geometry_msgs.msg import Point, Pose, PoseStamped
from harness import nanoseconds
from std_msgs.msg import Header
from waiting import wait_until

from delayed_vlm_ros.scenes import render
from delayed_vlm_ros.scenes.story import story_scene


def test_answer_has_evidence_with_pose_until_the_parameter_ends_it(start):
    # given a memory with poses
    _, client = start(fake=False, memory__sample_fps=20.0, pose__source="PoseStamped")
    client.wait_until_ready()
    client.connect_images()
    client.reset()  # the model does not know those images

    def shown():
        room = render(story_scene(), 0.5 * len(client.answers), 112, 140)
        image = client.image(height=112, width=140, data=array.array("B", room.tobytes()))
        pose = Pose(position=Point(x=2.5))
        client.publish(PoseStamped(header=Header(stamp=image.header.stamp, frame_id="map"), pose=pose), "pose")
        client.publish(image)
        response = client.ask(max_new_tokens=2)
        return response if response.evidence_pose_valid else None

    # when
    response = wait_until(shown, "an answer whose best evidence has a pose")

    # then
    assert response.success, response.error_msg
    assert 1 <= len(response.evidence) <= 5
    assert {frame.id for frame in response.evidence} <= set(response.frame_ids)
    relevance = [frame.relevance for frame in response.evidence]
    assert relevance == sorted(relevance, reverse=True)
    assert 0.0 < sum(relevance) <= 1.0 + 1e-6
    first, last = map(nanoseconds, response.evidence_span)
    assert first == min(nanoseconds(frame.header.stamp) for frame in response.evidence)
    assert last == max(nanoseconds(frame.end_stamp) for frame in response.evidence)
    assert (response.evidence_pose.header.frame_id, response.evidence_pose.pose.position.x) == ("map", 2.5)
    assert all(frame.relevance == 0.0 for frame in response.frames_used)
    published = wait_until(
        lambda: next((one for one in client.answers if one.request_id == response.request_id), None), "its message"
    )
    assert published.evidence == response.evidence

    # when
    assert client.set_parameters({"evidence.enabled": False})[0]

    # then
    plain = client.ask(max_new_tokens=2)
    assert plain.success
    assert (plain.evidence, plain.evidence_pose_valid) == ([], False)
    assert not any("no evidence" in warning for warning in plain.metrics.warnings)
