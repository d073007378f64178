"""Settings of a remote engine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum

from delayed_vlm_ros.errors import ConfigurationError


class Encoding(str, Enum):
    """How the kept frames are sent.

    Attributes:
        AUTO: The best one that server and model offer.
        TIMED_IMAGES: One image of each pair after its time, as models with times as text (Qwen3-VL, Qwen3.5) write it.
        VIDEO: All frames as one video with their times.
        IMAGES: One image of each pair after its time in words, for any model with images.
    """

    AUTO = "auto"
    TIMED_IMAGES = "timed_images"
    VIDEO = "video"
    IMAGES = "images"


@dataclass(frozen=True)
class RemoteSettings:
    """Settings of a remote engine.

    Attributes:
        encoding: How frames are sent.
        api_key_env: Name of the environment variable with the server's key; empty: no key.
        jpeg_quality: Quality of the frames that are sent, 1 to 100.
        frame_multiple: Divisor of both sides of a frame, in pixels: patch size × merge size of the model.
    """

    encoding: Encoding = Encoding.AUTO
    api_key_env: str = ""
    jpeg_quality: int = 90
    frame_multiple: int = 32

    def api_key(self) -> str:
        """Return the server's key; empty without one.

        Raises:
            ConfigurationError: The environment variable is not set.
        """
        if not self.api_key_env:
            return ""
        key = os.environ.get(self.api_key_env, "").strip()
        if not key:
            raise ConfigurationError(
                f"the environment variable {self.api_key_env} (remote.api_key_env) is not set: set it to the key of "
                "the model server"
            )
        return key
