"""Compares the types that are published on a topic with the type that the node expects.

DDS does not connect publisher and subscription of different types, and reports nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Protocol

from delayed_vlm_ros.images.messages import COMPRESSED_TYPE, RAW_TYPE

COMPRESSED_SUFFIX = "/compressed"
"""Suffix of the topic with compressed images, as ``image_transport`` adds it."""


class TopicGraph(Protocol):
    """The part of an rclpy node that lists publishers."""

    def get_publishers_info_by_topic(self, topic_name: str) -> Iterable[Any]:
        """Return information on the publishers of a resolved topic."""


def type_name(message_type: Any) -> str:
    """Return the name of a message type, such as ``sensor_msgs/msg/Image``."""
    return f"{message_type.__module__.split('.')[0]}/msg/{message_type.__name__}"


def image_topic_fault(graph: TopicGraph, topic: str, message_type: Any) -> str:
    """Return why no publisher reaches a subscription to images, with the remedy; empty if one does or none exists.

    Args:
        graph: A node.
        topic: Resolved topic of the subscription.
        message_type: ``Image`` or ``CompressedImage``.
    """
    wanted = type_name(message_type)
    found = _published(graph, topic)
    if wanted in found:
        return ""
    if found:
        return _other_type(topic, found, wanted, image_type_remedy(topic, found))
    return _neighbour_fault(graph, topic, wanted)


def pose_topic_fault(graph: TopicGraph, topic: str, message_type: Any, accepted: Collection[str]) -> str:
    """Return why no publisher reaches a subscription to poses, with the remedy; empty if one does or none exists.

    Args:
        graph: A node.
        topic: Resolved topic of the subscription.
        message_type: Type of the subscription.
        accepted: Names of the types, without package, that the parameter ``pose.source`` accepts.
    """
    wanted = type_name(message_type)
    found = _published(graph, topic)
    if not found or wanted in found:
        return ""
    usable = [name for name in (one.rpartition("/")[2] for one in found) if name in accepted]
    others = f"remap pose to a topic of type {' or '.join(accepted)}, or set pose.source to none"
    remedy = f"set pose.source to {usable[0]}" if usable else others
    return _other_type(topic, found, wanted, remedy)


def _published(graph: TopicGraph, topic: str) -> list[str]:
    return sorted({publisher.topic_type for publisher in graph.get_publishers_info_by_topic(topic)})


def _other_type(topic: str, found: Iterable[str], wanted: str, remedy: str) -> str:
    return f"the topic {topic} has type {' and '.join(found)}, not {wanted}: {remedy}"


def image_type_remedy(topic: str, found: Collection[str]) -> str:
    """Return what to do about a topic whose publishers have other types than the node expects.

    Args:
        topic: Resolved topic of the subscription.
        found: Names of the published types.
    """
    if COMPRESSED_TYPE in found:
        base = topic.removesuffix(COMPRESSED_SUFFIX)
        if base != topic:
            return f"set image_transport to compressed and remap image to {base}"
        return f"publish it as {topic}{COMPRESSED_SUFFIX} and set image_transport to compressed"
    if RAW_TYPE in found:
        return "set image_transport to raw and remap image to this topic"
    return f"remap image to a topic of type {RAW_TYPE} or {COMPRESSED_TYPE}"


def _neighbour_fault(graph: TopicGraph, topic: str, wanted: str) -> str:
    """Return how to use the images of the same camera that are published on another topic."""
    base = topic.removesuffix(COMPRESSED_SUFFIX)
    if wanted == RAW_TYPE and COMPRESSED_TYPE in _published(graph, topic + COMPRESSED_SUFFIX):
        return f"only {topic}{COMPRESSED_SUFFIX} is published ({COMPRESSED_TYPE}): set image_transport to compressed"
    if wanted == COMPRESSED_TYPE and RAW_TYPE in _published(graph, base):
        return f"only {base} is published ({RAW_TYPE}): set image_transport to raw"
    if wanted == COMPRESSED_TYPE and base.endswith(COMPRESSED_SUFFIX) and COMPRESSED_TYPE in _published(graph, base):
        plain = base.removesuffix(COMPRESSED_SUFFIX)
        return f"{base} is published, and image_transport adds {COMPRESSED_SUFFIX} once more: remap image to {plain}"
    return ""
