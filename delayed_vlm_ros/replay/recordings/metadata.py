"""The metadata of a ROS 2 bag: the files that it names and the messages that it lists."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath

import yaml

METADATA_FILE = "metadata.yaml"


@dataclass(frozen=True)
class BagMetadata:
    """Content of ``metadata.yaml``.

    Attributes:
        files: Names of the storage files, without folders.
        message_counts: Number of messages by topic, over all QoS profiles.
    """

    files: frozenset[str]
    message_counts: Mapping[str, int]

    def unnamed(self, files: list[Path]) -> list[Path]:
        """Return the files that the metadata does not name.

        A file and its zstd-compressed copy count as the same file.
        """
        named = {_without_zstd_suffix(name) for name in self.files}
        return [file for file in files if _without_zstd_suffix(file.name) not in named]


def read_metadata(path: Path) -> BagMetadata | None:
    """Read the metadata of a bag.

    Args:
        path: The bag's folder, or one of its files.

    Returns:
        The metadata; None for a single file, or if ``metadata.yaml`` is missing or cannot be read.
    """
    try:
        content = yaml.safe_load((path / METADATA_FILE).read_text(encoding="utf-8"))
        information = content["rosbag2_bagfile_information"]
        counts: Counter[str] = Counter()
        for topic in information["topics_with_message_count"]:
            counts[topic["topic_metadata"]["name"]] += int(topic["message_count"])
        files = frozenset(PurePath(name).name for name in information["relative_file_paths"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError, yaml.YAMLError):
        return None
    return BagMetadata(files, counts)


def _without_zstd_suffix(name: str) -> str:
    return name.removesuffix(".zstd")
