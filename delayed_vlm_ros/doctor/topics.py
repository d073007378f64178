"""Image topics in the graph, against what the node takes."""

from __future__ import annotations

from collections.abc import Iterator

from delayed_vlm_ros.doctor.finding import Finding, error, ok, warn
from delayed_vlm_ros.doctor.observation import IMAGE_TYPES, Camera, Observation, Topic
from delayed_vlm_ros.images.messages import COMPRESSED_TYPE
from delayed_vlm_ros.ros.input.topic_types import COMPRESSED_SUFFIX, image_type_remedy

_MAX_LISTED = 8
_NO_IMAGES = "check the driver; DDS shares no memory between users or containers, see docs/robots.md"


def topic_findings(seen: Observation) -> list[Finding]:
    """Compare the image topics with the node's cameras; without a node, list them."""
    if seen.cameras:
        return [_camera(camera, seen) for camera in seen.cameras]
    return [_listing(seen)]


def _camera(camera: Camera, seen: Observation) -> Finding:
    subject = f"camera {camera.name}"
    topic = seen.topic(camera.topic)
    if topic is None or not topic.publishers:
        return error(subject, f"nobody publishes {camera.topic}", _remap(camera, seen))
    others = [one for one in topic.types if one != camera.type]
    if others:
        return error(
            subject,
            f"{camera.topic} has type {', '.join(others)}, the node takes {camera.type}",
            image_type_remedy(camera.topic, others),
        )
    if topic.incompatible:
        remedy = (
            f"set qos_overrides.{camera.topic}.subscription.reliability to best_available, or correct the publisher"
        )
        return error(subject, f"the node's subscription to {camera.topic} does not fit ({topic.incompatible})", remedy)
    if not topic.stamps_ns:
        by = " and ".join(topic.publishers)
        return warn(
            subject, f"no image on {camera.topic} within {topic.measured_sec:.1f} s, published by {by}", _NO_IMAGES
        )
    if len(topic.publishers) > 1:
        remedy = "stop all but one, or remap them: their images would be mixed"
        return warn(subject, f"{_described(topic)}, from {' and '.join(topic.publishers)}", remedy)
    return ok(subject, _described(topic))


def _remap(camera: Camera, seen: Observation) -> str:
    """Return the remedy for a topic without a publisher: the published image topics."""
    candidates = [one for one in seen.topics if one.publishers and set(one.types) & set(IMAGE_TYPES)]
    if not candidates:
        return "start the camera; no node publishes images, or they are in another domain"
    name = _launch_argument(camera, seen, candidates[0])
    return f"remap it, such as {name}; published: {_names(candidates)}"


def _launch_argument(camera: Camera, seen: Observation, topic: Topic) -> str:
    is_compressed = COMPRESSED_TYPE in topic.types
    name = topic.name.removesuffix(COMPRESSED_SUFFIX) if is_compressed else topic.name
    argument = (
        f"scene_memory_image_topic:={name}"
        if len(seen.cameras) == 1
        else f'scene_memory_cameras:="{camera.name}:{name} …"'
    )
    if is_compressed == (camera.type == COMPRESSED_TYPE):
        return argument
    return f"{argument} scene_memory_image_transport:={'compressed' if is_compressed else 'raw'}"


def _listing(seen: Observation) -> Finding:
    published = [one for one in seen.topics if one.publishers]
    if not published:
        return warn(
            "image topics", "no node publishes images", "start the camera, or set ROS_DOMAIN_ID as for the camera"
        )
    return ok("image topics", "; ".join(_described(one) for one in published[:_MAX_LISTED]))


def _described(topic: Topic) -> str:
    rate = f", {topic.rate_hz:.1f} Hz, {topic.image_bytes / 1e6:.1f} MB each" if topic.stamps_ns else ""
    return f"{topic.name} ({', '.join(_short(one) for one in topic.types)}, {topic.reliability}{rate})"


def _names(topics: list[Topic]) -> str:
    return ", ".join(_listed(topics))


def _listed(topics: list[Topic]) -> Iterator[str]:
    for topic in topics[:_MAX_LISTED]:
        yield f"{topic.name} ({', '.join(map(_short, topic.types))})"
    if len(topics) > _MAX_LISTED:
        yield f"and {len(topics) - _MAX_LISTED} more"


def _short(message_type: str) -> str:
    return message_type.removeprefix("sensor_msgs/msg/")
